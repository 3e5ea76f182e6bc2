"""Features to measure, and the definition of every metric in N x N matrices."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.linalg import orthogonal_procrustes, subspace_angles
from scipy.spatial.distance import pdist
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import Ridge

from diffalign.alignment import regression
from diffalign.alignment.preparation import unit_rows
from diffalign.randomness import dealt


def names(count: int) -> list[str]:
    return [f"image{i}" for i in range(count)]


def unit(features: np.ndarray) -> np.ndarray:
    return unit_rows(features, names(len(features)))


def random_features(seed: int, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def related(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    a = random_features(seed, count, 12)
    return a, (a @ random_features(seed + 1, 12, 11) + 0.5 * random_features(seed + 2, count, 11)).astype(np.float32)


def with_ties(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand three times, some scaled, at other places in A than in B."""
    random = np.random.default_rng(seed)
    a, b = related(seed, 20)
    tied = []
    for features in (a, b):
        thrice = np.concatenate([features, features, features])[random.permutation(60)]
        tied.append((thrice * random.choice([0.5, 1, 2], (60, 1))).astype(np.float32))
    return tied[0], tied[1]


def dense_unbiased_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, as it stands."""
    m = len(kernel)
    k, l_ = kernel * (1 - np.eye(m)), other * (1 - np.eye(m))
    one = np.ones(m)
    trace = np.trace(k @ l_)
    return (trace + (one @ k @ one) * (one @ l_ @ one) / ((m - 1) * (m - 2)) - 2 * (one @ k @ l_ @ one) / (m - 2)) / (
        m * (m - 3)
    )


def dense_biased_hsic(kernel: np.ndarray, other: np.ndarray) -> float:
    m = len(kernel)
    h = np.eye(m) - np.ones((m, m)) / m
    return float(np.trace(kernel @ h @ other @ h))


def normalised(
    hsic: Callable[[np.ndarray, np.ndarray], float], cross: Sequence[np.ndarray], own: Sequence[np.ndarray]
) -> float:
    return hsic(cross[0], cross[1]) / math.sqrt(hsic(own[0], own[0]) * hsic(own[1], own[1]))


def linear(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float64) @ rows.astype(np.float64).T


def rbf(rows: np.ndarray, sigma: float = 1) -> np.ndarray:
    double = rows.astype(np.float64)
    return np.exp(-np.square(double[:, None] - double[None]).sum(axis=2) / (2 * sigma**2))


def dense_steps(rows: np.ndarray) -> np.ndarray:
    """Negative similarities (N, N) in steps of 2**-40: equal ones are ties."""
    similarity = linear(rows)
    np.fill_diagonal(similarity, -10)
    return -(similarity * 2**40).round()


def dense_lists(rows: np.ndarray, k: int, random: np.random.Generator | None = None) -> np.ndarray:
    """By (-similarity, index), or by (-similarity, a random number)."""
    steps = dense_steps(rows)
    second = np.broadcast_to(np.arange(len(rows)), steps.shape) if random is None else random.random(steps.shape)
    return np.lexsort((second, steps), axis=1)[:, :k]


def dense_credit(rows: np.ndarray, k: int) -> np.ndarray:
    """The probability (N, N) that an image is among the k nearest if ties are broken at random."""
    steps = dense_steps(rows)
    last = np.sort(steps, axis=1)[:, k - 1 : k]
    nearer, tied = steps < last, steps == last
    return nearer + tied * (k - nearer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)


def dense_masks(a: np.ndarray, b: np.ndarray, k: int) -> list[np.ndarray]:
    return [dense_credit(rows, k) for rows in (a, b)]


def dense_cknna(a: np.ndarray, b: np.ndarray, k: int) -> float:
    masks, kernels = dense_masks(a, b, k), [linear(a), linear(b)]
    both = masks[0] * masks[1]
    own = [mask * kernel for mask, kernel in zip(masks, kernels, strict=True)]
    return normalised(dense_unbiased_hsic, [both * kernel for kernel in kernels], own)


def dense_cknna_biased(a: np.ndarray, b: np.ndarray, k: int) -> float:
    masks, kernels = dense_masks(a, b, k - 1), [linear(a), linear(b)]
    masks = [mask + np.eye(len(a)) for mask in masks]
    both = masks[0] * masks[1]
    own = [mask * kernel for mask, kernel in zip(masks, kernels, strict=True)]
    return normalised(dense_biased_hsic, [both * kernel for kernel in kernels], own)


def longest_common_subsequence(x: list[int], y: list[int]) -> int:
    if not x or not y:
        return 0
    if x[-1] == y[-1]:
        return longest_common_subsequence(x[:-1], y[:-1]) + 1
    return max(longest_common_subsequence(x[:-1], y), longest_common_subsequence(x, y[:-1]))


def levenshtein(x: list[int], y: list[int]) -> int:
    if not x or not y:
        return len(x) + len(y)
    swap = levenshtein(x[:-1], y[:-1]) + (x[-1] != y[-1])
    return min(swap, levenshtein(x[:-1], y) + 1, levenshtein(x, y[:-1]) + 1)


def both_lists(a: np.ndarray, b: np.ndarray, k: int) -> list[tuple[list[int], list[int]]]:
    """The lists of all images, and where there are ties those of 30 random orders."""
    if all(len(np.unique(row)) == len(row) for rows in (a, b) for row in dense_steps(rows)):
        return list(zip(dense_lists(a, k).tolist(), dense_lists(b, k).tolist(), strict=True))
    random = np.random.default_rng(0)
    drawn = ((dense_lists(a, k, random), dense_lists(b, k, random)) for _ in range(30))
    return [pair for x, y in drawn for pair in zip(x.tolist(), y.tolist(), strict=True)]


def dense_mutual(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(math.prod(dense_masks(a, b, k)).sum() / len(a) / k)


def dense_cycle(a: np.ndarray, b: np.ndarray, k: int) -> float:
    ours, theirs = dense_masks(a, b, k)
    return float((1 - np.prod(1 - theirs * ours.T, axis=1)).mean())


def dense_lcs(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(np.mean([longest_common_subsequence(x, y) for x, y in both_lists(a, b, k)]))


def dense_edit_distance(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return 1 - float(np.mean([levenshtein(x, y) for x, y in both_lists(a, b, k)])) / k


def dense_svcca(a: np.ndarray, b: np.ndarray, k: int) -> float:
    spaces = []
    for rows in (a.astype(np.float64), b.astype(np.float64)):
        standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0, ddof=1) + 1e-8)
        spaces.append(np.linalg.svd(standard, full_matrices=False)[0][:, :10])
    return float(np.cos(subspace_angles(*spaces)).mean())


def dense_procrustes(a: np.ndarray, b: np.ndarray, k: int) -> float:
    width = max(a.shape[1], b.shape[1])
    padded = [np.pad(x.astype(np.float64), ((0, 0), (0, width - x.shape[1]))) for x in (a, b)]
    x, y = ((z - z.mean(axis=0)) / np.linalg.norm(z - z.mean(axis=0)) for z in padded)
    turned = x @ orthogonal_procrustes(x, y)[0]
    return 1 - 2 / math.pi * math.acos(min(1, float((turned * y).sum())))


def dense_rsa(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(spearmanr(*(pdist(x.astype(np.float64), "correlation") for x in (a, b))).statistic)


def dense_rsa_pearson(a: np.ndarray, b: np.ndarray, k: int) -> float:
    return float(pearsonr(*(pdist(x.astype(np.float64), "correlation") for x in (a, b))).statistic)


def dense_ridge(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Explicit folds, drawn by row numbers; penalties by generalised cross-validation with hat matrices."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    folds = dealt([str(i) for i in range(len(x))], regression.FOLDS, 0, "folds")
    unexplained = total = 0.0
    for fold in range(5):
        train, test = folds != fold, folds == fold
        centred_x, centred_y = (z[train] - z[train].mean(axis=0) for z in (x, y))
        eigenvalues = np.linalg.eigvalsh(centred_x @ centred_x.T)
        n = len(eigenvalues)
        eigenvalues = eigenvalues[eigenvalues > 1e-6 * eigenvalues[-1]]
        best = (math.inf, 0.0)
        for penalty in np.logspace(-8, 3, 23) * eigenvalues.mean():
            hat = centred_x @ np.linalg.solve(
                centred_x.T @ centred_x + penalty * np.eye(x.shape[1]), centred_x.T
            ) + np.full((n, n), 1 / n)
            residual = np.square(centred_y - hat @ centred_y).sum()
            freedom = 1 - np.trace(hat) / n
            if freedom > 1e-3:
                best = min(best, (residual / freedom**2, penalty))
        predicted = Ridge(alpha=best[1]).fit(x[train], y[train]).predict(x[test]).reshape(-1, y.shape[1])
        unexplained += np.square(y[test] - predicted).sum()
        total += np.square(y[test] - y[train].mean(axis=0)).sum()
    return 1 - unexplained / total


DENSE: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "cycle_knn": dense_cycle,
    "mutual_knn": dense_mutual,
    "lcs_knn": dense_lcs,
    "edit_distance_knn": dense_edit_distance,
    "cknna": dense_cknna,
    "cknna_biased": dense_cknna_biased,
    "cka": lambda a, b, k: normalised(dense_biased_hsic, *[[linear(a), linear(b)]] * 2),
    "unbiased_cka": lambda a, b, k: normalised(dense_unbiased_hsic, *[[linear(a), linear(b)]] * 2),
    "cka_rbf": lambda a, b, k: normalised(dense_biased_hsic, *[[rbf(a), rbf(b)]] * 2),
    "unbiased_cka_rbf": lambda a, b, k: normalised(dense_unbiased_hsic, *[[rbf(a), rbf(b)]] * 2),
    "svcca": dense_svcca,
    "procrustes": dense_procrustes,
    "rsa": dense_rsa,
    "rsa_pearson": dense_rsa_pearson,
    "ridge": dense_ridge,
    "ridge_back": lambda a, b, k: dense_ridge(b, a, k),
}
