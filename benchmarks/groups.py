"""What nulls, intervals and folds hold where images come in groups, and where moments tell the null of CKA.

Prints five tables: the tails of the p of unbiased CKA by moments, coverage of 95 % intervals with planted alignment,
type I errors of permutations of groups and of images, held-out R² of independent codes of the groups, and type I errors
of the p of unbiased CKA with outlying images. `--repetitions` studies each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearson3

from diffalign.alignment import nulls
from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.calibration import calibrate, over_images
from diffalign.alignment.groups import Groups
from diffalign.alignment.kernel_permutations import permuted_cka
from diffalign.alignment.metrics import Layer, Settings, measure_grid
from diffalign.alignment.moments import effective_images, moments
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors

COUNT, K, DRAWS, ALPHA = 320, 10, 199, 0.05
LEVELS = (0.05, 1e-3, 1e-4, 1e-5)
KINDS = ("no structure", "few dimensions", "a massive dimension", "outliers 0.5", "outliers 0.8", "outliers 0.9")
MEASURED = ("cka", "unbiased_cka", "mutual_knn", "cknna", "lcs_knn")
Rows = NDArray[np.float32]


def as_layer(features: NDArray[np.floating], groups: Sequence[str]) -> Layer:
    """Features (N, D) as a layer of images of these groups."""
    rows = unit_rows(features.astype(np.float32), [str(i) for i in range(len(features))])
    return rows_layer(rows, groups, lambda: nearest_neighbors(rows, K))


def planted(random: np.random.Generator, size: int, share: float) -> Iterator[NDArray[np.float64]]:
    """Two noisy linear views of latents of which groups of `size` images have a share of the variance in common."""
    group = np.repeat(np.arange(COUNT // size), size)
    own = random.standard_normal((COUNT, 8))
    latent = own
    if size > 1:
        latent = np.sqrt(share) * random.standard_normal((COUNT // size, 8))[group] + np.sqrt(1 - share) * own
    for view in range(2):
        linear = np.random.default_rng(100 + view).standard_normal((8, 24))
        yield latent @ linear + 2 * random.standard_normal((COUNT, 24))


def coverage(size: int, share: float, repetitions: int) -> dict[str, tuple[float, float]]:
    """Coverage of the mean over studies, of intervals over images and over groups: metric -> both."""
    random = np.random.default_rng(1)
    names = [f"g{i // size:03d}" for i in range(COUNT)]
    groups = Groups.of(names if size > 1 else [str(i) for i in range(COUNT)])
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in MEASURED}
    for _ in range(repetitions):
        a, b = ([as_layer(side, names).held()] for side in planted(random, size, share))
        scores = measure_grid(MEASURED, a, b, Settings(K))
        bounds = [over_images(scores, a, b, Settings(K), groups=given) for given in (None, groups)]
        for name in MEASURED:
            ends = [float(end[0, 0]) for each in bounds for end in (each[name].low, each[name].high)]
            found[name].append((float(scores[name][0, 0]), *ends))
    rates = {}
    for name, values in found.items():
        score, *ends = np.array(values).T
        truth = score.mean()
        held = [float(((low <= truth) & (truth <= high)).mean()) for low, high in (ends[:2], ends[2:])]
        rates[name] = (held[0], held[1])
    return rates


def grouped_type_one(size: int, repetitions: int) -> dict[str, tuple[float, float]]:
    """How often independent views of groups are significant at .05, with images and with groups exchanged."""
    random = np.random.default_rng(2)
    group = np.repeat(np.arange(COUNT // size), size)
    names = [f"g{code:03d}" for code in group]
    hits: dict[str, list[tuple[bool, bool]]] = {name: [] for name in MEASURED}
    for _ in range(repetitions):
        a, b = (
            [
                as_layer(
                    3 * random.standard_normal((COUNT // size, 8))[group] + random.standard_normal((COUNT, 8)), names
                )
            ]
            for _ in "ab"
        )
        scores = measure_grid(MEASURED, a, b, Settings(K))
        exchanged = (None, Groups.of(names).exchanges)
        p = [calibrate(scores, a, b, Settings(K), 39, ALPHA, 0, exchanges=each) for each in exchanged]
        for name in MEASURED:
            first, second = (bool(each[name].p[0, 0] <= ALPHA) for each in p)
            hits[name].append((first, second))
    return {name: (float(np.mean(x, axis=0)[0]), float(np.mean(x, axis=0)[1])) for name, x in hits.items()}


def ridge(size: int, repetitions: int) -> tuple[float, float]:
    """Mean held-out R² of independent codes of groups, with folds of images and of groups."""
    random = np.random.default_rng(3)
    group = np.repeat(np.arange(COUNT // size), size)
    found = []
    for _ in range(repetitions):
        sides = [random.standard_normal((COUNT // size, 24))[group] + random.standard_normal((COUNT, 24)) for _ in "ab"]
        values = []
        for names in ([str(i) for i in range(COUNT)], [f"g{code:03d}" for code in group]):
            a, b = ([as_layer(side, names)] for side in sides)
            values.append(float(measure_grid(["ridge"], a, b, Settings(K))["ridge"][0, 0]))
        found.append(values)
    first, second = np.mean(found, axis=0)
    return float(first), float(second)


def with_outliers(random: np.random.Generator, count: int, cosine: float, outliers: int) -> NDArray[np.float64]:
    """Independent unit rows of a mean cosine, of which some lie anywhere."""
    rows = random.standard_normal((count, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    common = random.standard_normal(32)
    rows = np.sqrt(cosine) * common / np.linalg.norm(common) + np.sqrt(1 - cosine) * rows
    rows[random.choice(count, outliers, replace=False)] = random.standard_normal((outliers, 32))
    return rows


def outliers_type_one(count: int, cosine: float, outliers: int, repetitions: int) -> tuple[float, float, float]:
    """Median skewness, and how often unbiased CKA of independent rows is significant at .05: by moments, and as it is
    reported.
    """
    random = np.random.default_rng(4)
    found = []
    for _ in range(repetitions):
        names = [str(i) for i in range(count)]
        a, b = ([as_layer(with_outliers(random, count, cosine, outliers), names)] for _ in "ab")
        scores = measure_grid(["unbiased_cka"], a, b, Settings(K))
        sums = [moments(side[0].rows()) for side in (a, b)]
        cubes = [[nulls.kernel_cubes(each)] for each in sums]
        closed = nulls.unbiased_cka_moments(sums[:1], sums[1:], (cubes[0], cubes[1]))
        assert closed.skewness is not None
        reported = calibrate(scores, a, b, Settings(K), DRAWS, ALPHA, 0)["unbiased_cka"].p[0, 0]
        by_moments = closed.p(scores["unbiased_cka"])[0, 0]
        found.append((closed.skewness[0, 0], by_moments <= ALPHA, reported <= ALPHA))
    skewness, first, second = np.array(found).T
    return float(np.median(skewness)), float(first.mean()), float(second.mean())


def tails(kind: str, draws: int) -> tuple[float, float, bool, list[float]]:
    """Of one pair of layers of 60 independent images: skewness, images over the product of effective numbers, whether
    moments count as holding, and how often p is at most .05, 1e-3, 1e-4 and 1e-5 under permutations.
    """
    random, count = np.random.default_rng(5), 60
    sums = []
    for _ in "ab":
        rows = random.standard_normal((count, 32))
        if kind == "few dimensions":
            rows *= np.arange(1, 33) ** -1.0
        if kind == "a massive dimension":
            rows[:, 0] *= 8
        if kind.startswith("outliers"):
            rows = with_outliers(random, count, float(kind.split()[1]), 3)
        sums.append(moments(as_layer(rows, [str(i) for i in range(count)]).rows()))
    cubes = [[nulls.kernel_cubes(each)] for each in sums]
    closed = nulls.unbiased_cka_moments(sums[:1], sums[1:], (cubes[0], cubes[1]))
    effective = [[effective_images(each, unbiased=True)] for each in sums]
    assert closed.skewness is not None
    holds = nulls.pearson_holds(closed.skewness, count, effective[0], effective[1])
    hits = np.zeros(4)
    block = 10_000
    for start in range(0, draws, block):
        orders = list(nulls.permutations(count, block, start))
        null = permuted_cka(["unbiased_cka"], [lambda: sums[0]], [lambda: sums[1]], orders, 0.0)["unbiased_cka"]
        sd, skewness = float(closed.sd[0, 0]), float(closed.skewness[0, 0])
        p = pearson3.sf(null.ravel(), skewness, loc=0, scale=sd)
        hits += [(p <= level).sum() for level in LEVELS]
    concentration = count / effective[0][0] / effective[1][0]
    return float(closed.skewness[0, 0]), concentration, bool(holds[0, 0]), (hits / draws).tolist()


def main() -> None:
    """Print the tables."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--repetitions", type=int, default=200)
    command.add_argument("--draws", type=int, default=1_000_000, help="permutations of the tails")
    given = command.parse_args()
    write = sys.stdout.write
    write(f"how often p by moments is at most {LEVELS}: skewness, concentration, whether moments hold\n")
    for kind in KINDS:
        skewness, concentration, holds, frequencies = tails(kind, given.draws)
        words = " ".join(f"{rate:.2g}" for rate in frequencies)
        write(f"{kind}: {skewness:.2f}, {concentration:.3f}, {holds}: {words}\n")
        sys.stdout.flush()
    write(f"coverage of 95 % intervals over images / over groups, N = {COUNT}, k = {K}\n")
    for size, share in ((1, 0.5), (4, 0.5), (16, 0.5), (16, 0.9)):
        rates = coverage(size, share, given.repetitions)
        words = "  ".join(f"{name} {first:.3f} / {second:.3f}" for name, (first, second) in rates.items())
        write(f"groups of {size:2d}, share {share}: {words}\n")
        sys.stdout.flush()
    write("type I error at .05 of independent codes of groups, images / groups exchanged\n")
    for size in (4, 16):
        rates = grouped_type_one(size, given.repetitions)
        words = "  ".join(f"{name} {first:.3f} / {second:.3f}" for name, (first, second) in rates.items())
        write(f"groups of {size:2d}: {words}\n")
        sys.stdout.flush()
    first, second = ridge(16, min(20, given.repetitions))
    write(f"ridge R² of independent codes of groups of 16, folds of images {first:.3f}, of groups {second:.3f}\n")
    write("unbiased CKA of independent rows: median skewness, type I error at .05 by moments / as reported\n")
    for count, cosine, outliers in ((150, 0.999, 3), (150, 0.98, 3), (150, 0.9, 3), (150, 0.0, 0), (320, 0.999, 4)):
        skewness, first, second = outliers_type_one(count, cosine, outliers, given.repetitions)
        write(f"N = {count}, cosine {cosine}, {outliers} outliers: {skewness:.2f}, {first:.3f} / {second:.3f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
