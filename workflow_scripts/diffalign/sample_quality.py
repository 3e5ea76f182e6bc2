"""How good samples are: the classes they are taken for, and where their features lie beside those of real images.

Arrays only. Features are (N, D) or (M, D), one row an image; arithmetic is float64. All measures but the share of the
class compare two sets of images, so each can be taken between two halves of the real images: what a perfect generator
would get, and a floor for distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffalign.randomness import dealt

Array = NDArray[np.floating]
# distances that are held at a time
_BLOCK = 2**22


@dataclass(frozen=True)
class Measure:
    """A measure of quality. label: for figures. better: ``high``, ``low``, or ``real``: near that of real images."""

    label: str
    better: str


MEASURES: Mapping[str, Measure] = {
    "share_of_class": Measure("share assigned to own class", "high"),
    "frechet": Measure("Fréchet distance", "low"),
    "precision": Measure("precision", "high"),
    "recall": Measure("recall", "high"),
    "density": Measure("density", "high"),
    "coverage": Measure("coverage", "high"),
    "diversity": Measure("diversity within classes", "real"),
}


def named(measure: str) -> str:
    """A measure as figures and sentences name it; one of a user's table by its column."""
    return MEASURES[measure].label if measure in MEASURES else measure


def share_of_class(logits: Array, labels: NDArray[np.int64]) -> float:
    """The share of images whose largest logit is that of their class. logits: (N, classes). labels: (N,).

    Raises ValueError for a label that has no logit.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(f"logits of shape {logits.shape} for {len(labels)} labels; expected (N, classes)")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels from {labels.min()} to {labels.max()}, but the classifier has classes 0 to {logits.shape[1] - 1}"
        )
    return float((logits.argmax(axis=1) == labels).mean())


def frechet(a: Array, b: Array) -> float:
    """The squared Fréchet distance of two Gaussians with the moments of the features (Heusel et al. 2017).

    |μ_a - μ_b|² + tr Σ_a + tr Σ_b - 2 tr (Σ_a Σ_b)^½, with unbiased covariances. With centred features A and B over
    sqrt(N - 1), Σ_a = AᵀA and Σ_b = BᵀB, so Σ_a Σ_b has the eigenvalues of (A Bᵀ)(A Bᵀ)ᵀ, and the last trace is the sum
    of the singular values of A Bᵀ: no root of a matrix that is not symmetric, and no negative eigenvalue. They are
    taken of the triangles of QR decompositions. A covariance of N <= D images is singular and the distance too large;
    see `rank_note`. Raises ValueError for fewer than two images, or other widths.
    """
    _check(a, b, 2)
    first, second = (_triangle(each) for each in (a, b))
    between = np.square(a.mean(axis=0, dtype=np.float64) - b.mean(axis=0, dtype=np.float64)).sum()
    within = np.square(first).sum() + np.square(second).sum()
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    # rounding alone may take it below 0
    return max(0.0, float(between + within - 2 * shared))


def _triangle(features: Array) -> NDArray[np.float64]:
    """R (min(N, D), D) with RᵀR = the unbiased covariance."""
    values = features.astype(np.float64)
    _, triangle = np.linalg.qr(values - values.mean(axis=0))
    return np.asarray(triangle / np.sqrt(len(values) - 1))


def rank_note(count: int, width: int) -> str:
    """What to say of a Fréchet distance of `count` images in `width` features; empty where covariances have full rank.

    N images, of which one is spent on the mean, span at most N - 1 directions.
    """
    if count > width:
        return ""
    return f"{count} images span at most {count - 1} of {width} directions: covariances are singular"


@dataclass(frozen=True)
class Neighborhoods:
    """precision, recall: shares of samples and of real images. density: about 1 for samples like real images, and
    more where they crowd where real images are dense. coverage: share of real images.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighborhoods(real: Array, samples: Array, k: int) -> Neighborhoods:
    """Which samples lie among real images, and which real images among samples, by balls up to the k-th neighbour.

    The ball of an image has its distance to its k-th nearest neighbour of its own set, itself excluded, as radius, and
    contains its surface. precision: share of samples in a ball of a real image. recall: share of real images in a ball
    of a sample (Kynkäänniemi et al. 2019). density: balls of real images around a sample, over k, on
    average. coverage: share of balls of real images with a sample in them (Naeem et al. 2020).
    Distances are Euclidean and exact. Raises ValueError where a set has no k neighbours.
    """
    _check(real, samples, 2)
    for what, features in (("real images", real), ("samples", samples)):
        if not 1 <= k < len(features):
            raise ValueError(f"k = {k}, but {len(features)} {what} have at most {len(features) - 1} neighbours")
    of_real, of_samples = _radii(real, k), _radii(samples, k)
    in_real = np.zeros(len(samples), np.int64)
    covered, recalled = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, distances in _distances(real, samples):
        inside = distances <= of_real[rows, None]
        in_real += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (distances <= of_samples).any(axis=1)
    return Neighborhoods(
        float((in_real > 0).mean()), float(recalled.mean()), float(in_real.mean() / k), float(covered.mean())
    )


def _radii(features: Array, k: int) -> NDArray[np.float64]:
    """The distance of every row to the k-th nearest of the others."""
    radii = np.empty(len(features))
    for rows, distances in _distances(features, features):
        distances[np.arange(len(rows)), rows] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _distances(a: Array, b: Array) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Positions in `a` and their Euclidean distances to all of `b`, one block after the other."""
    from scipy.spatial.distance import cdist

    step = max(1, _BLOCK // len(b))
    for start in range(0, len(a), step):
        rows = np.arange(start, min(start + step, len(a)))
        yield rows, cdist(a[rows].astype(np.float64), b.astype(np.float64))


def diversity(features: Array, labels: NDArray[np.int64]) -> float:
    """The mean cosine distance of two images of one class, 1 - cos, over all pairs of a class, then over classes.

    Features are not centred. 0 where all images of each class are the same. Raises ValueError for a class of one image
    and for features without a direction.
    """
    values = features.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1)
    if (lengths == 0).any():
        raise ValueError(f"{int((lengths == 0).sum())} images have features of length 0, which have no direction")
    unit = values / lengths[:, None]
    means = []
    for label in np.unique(labels):
        members = unit[labels == label]
        count = len(members)
        if count < 2:
            raise ValueError(f"class {label} has one image; diversity is of pairs")
        # |Σ u|² is the sum of all cosines, those of images with themselves among them
        cosines = (np.square(members.sum(axis=0)).sum() - count) / (count * (count - 1))
        means.append(1 - cosines)
    # rounding alone may take it below 0
    return max(0.0, float(np.mean(means)))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A set of images. logits: (N, classes) of a classifier. features: (N, D). labels: (N,), the classes asked for."""

    logits: Array
    features: Array
    labels: NDArray[np.int64]


def measured(samples: ImageSet, real: ImageSet, k: int) -> dict[str, float]:
    """All of `MEASURES` of samples beside real images. Raises ValueError as each."""
    near = neighborhoods(real.features, samples.features, k)
    found = {
        "share_of_class": share_of_class(samples.logits, samples.labels),
        "frechet": frechet(samples.features, real.features),
        **vars(near),
        "diversity": diversity(samples.features, samples.labels),
    }
    return {name: found[name] for name in MEASURES}


def reference(real: ImageSet, halves: NDArray[np.int64], k: int) -> dict[str, float]:
    """The same of real images in the place of samples: one half of them beside the other, mean of both ways round.

    halves: (N,), 0 or 1, the half of every image. Share of class and diversity are of all real images. Half of the
    images are fewer than all: the Fréchet distance of few images is too large, so as a floor for more samples this one
    is an upper bound. Raises ValueError as each.
    """
    parts = [
        ImageSet(real.logits[halves == half], real.features[halves == half], real.labels[halves == half])
        for half in (0, 1)
    ]
    ways = [
        {
            "frechet": frechet(one.features, other.features),
            **vars(neighborhoods(other.features, one.features, k)),
        }
        for one, other in (parts, parts[::-1])
    ]
    found = {
        "share_of_class": share_of_class(real.logits, real.labels),
        **{name: float(np.mean([way[name] for way in ways])) for name in ways[0]},
        "diversity": diversity(real.features, real.labels),
    }
    return {name: found[name] for name in MEASURES}


def _check(a: Array, b: Array, least: int) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shapes {a.shape} and {b.shape}; expected (N, D) and (M, D)")
    if min(len(a), len(b)) < least:
        raise ValueError(f"{min(len(a), len(b))} images; expected at least {least}")


def halves_apart(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    """The half, 0 or 1, of every image, keyed by (seed, name)."""
    return dealt(names, 2, seed, "quality")
