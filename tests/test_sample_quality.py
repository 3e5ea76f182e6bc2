"""Measures of samples, against closed forms, sets whose answer is known, and loops over all pairs."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from diffalign import sample_quality
from diffalign.alignment.intervals import of_mean
from diffalign.sample_quality import ImageSet, diversity, frechet, halves_apart, measured, neighborhoods, reference

Features = NDArray[np.float64]


def drawn(count: int, width: int, seed: int = 0, scale: float = 1.0) -> Features:
    return scale * np.random.default_rng(seed).standard_normal((count, width))


def with_moments(mean: Features, root: Features, count: int, seed: int) -> Features:
    """Features whose own mean and covariance are `mean` and root rootᵀ, to rounding."""
    values = drawn(count, len(mean), seed)
    values -= values.mean(axis=0)
    white = values @ np.linalg.inv(np.linalg.cholesky(np.cov(values, rowvar=False))).T
    return mean + white @ root.T


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    # covariances that commute: Σ (σ_a - σ_b)²
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    a = with_moments(np.zeros(3), np.diag(first), 50, 0)
    b = with_moments(np.array([1.0, -2.0, 0.0]), np.diag(second), 80, 1)
    assert frechet(a, b) == pytest.approx(5 + np.square(first - second).sum(), rel=1e-10)
    assert frechet(b, a) == pytest.approx(frechet(a, b), rel=1e-10)


def test_the_frechet_distance_is_that_of_the_root_of_the_matrix() -> None:
    random = np.random.default_rng(0)
    a = drawn(60, 8) @ random.standard_normal((8, 8))
    b = drawn(90, 8, 1) @ random.standard_normal((8, 8)) + random.standard_normal(8)
    covariances = [np.cov(each, rowvar=False) for each in (a, b)]
    shared = sqrtm(covariances[0] @ covariances[1]).real
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    assert frechet(a, b) == pytest.approx(means + np.trace(covariances[0] + covariances[1] - 2 * shared), rel=1e-8)


def test_the_frechet_distance_without_full_rank() -> None:
    a, b = drawn(10, 40), drawn(12, 40, 1)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 1) == pytest.approx(40, rel=1e-9)
    # too large for few images of one distribution, and less so for more
    many = [frechet(drawn(count, 40), drawn(count, 40, 1)) for count in (12, 100, 1000)]
    assert many[0] > 10 * many[2]
    assert frechet(a, b) > many[1]
    assert sample_quality.rank_note(41, 40) == ""
    assert sample_quality.rank_note(40, 40) == "40 images span at most 39 of 40 directions: covariances are singular"
    assert np.linalg.matrix_rank(np.cov(drawn(40, 40), rowvar=False)) == 39


def looped(real: Features, samples: Features, k: int) -> tuple[float, float, float, float]:
    def radius(features: Features, row: int) -> float:
        others = [math.dist(features[row], features[i]) for i in range(len(features)) if i != row]
        return sorted(others)[k - 1]

    of_real = [radius(real, i) for i in range(len(real))]
    of_samples = [radius(samples, j) for j in range(len(samples))]
    inside = [[math.dist(real[i], samples[j]) <= of_real[i] for j in range(len(samples))] for i in range(len(real))]
    precision = sum(any(row[j] for row in inside) for j in range(len(samples))) / len(samples)
    recall = sum(
        any(math.dist(real[i], samples[j]) <= of_samples[j] for j in range(len(samples))) for i in range(len(real))
    ) / len(real)
    density = sum(map(sum, inside)) / (k * len(samples))
    return precision, recall, density, sum(map(any, inside)) / len(real)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("block", [1, 60, 2**22])
def test_neighborhoods_are_those_of_loops(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_quality, "_BLOCK", block)
    real, samples = drawn(25, 3), drawn(31, 3, 1) + 1.2
    found = neighborhoods(real, samples, k)
    assert (found.precision, found.recall, found.density, found.coverage) == pytest.approx(looped(real, samples, k))
    assert all(0.1 < value < 1 for value in vars(found).values()), found


def test_neighborhoods_of_sets_whose_answer_is_known() -> None:
    real = drawn(200, 5)
    same = neighborhoods(real, real, 4)
    # every image lies in its own ball and, on average, in those of k others
    assert (same.precision, same.recall, same.coverage, same.density) == (1, 1, 1, 5 / 4)
    far = neighborhoods(real, real + 100, 4)
    assert (far.precision, far.recall, far.coverage, far.density) == (0, 0, 0, 0)
    collapsed = neighborhoods(real, np.repeat(real.mean(axis=0)[None], 50, axis=0), 4)
    assert (collapsed.precision, collapsed.recall) == (1, 0)
    assert collapsed.coverage < 0.5
    assert collapsed.density > 1
    # one half of a distribution: all of its samples are real, but half of the real images are missing
    half = neighborhoods(real, drawn(400, 5, 2)[drawn(400, 5, 2)[:, 0] > 0], 4)
    assert half.precision > 0.85
    assert half.coverage < 0.8
    alike = neighborhoods(drawn(500, 4), drawn(500, 4, 1), 5)
    # the expected coverage of samples of the same distribution is about 1 - 2^-k (Naeem et al. 2020)
    assert alike.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert alike.density == pytest.approx(1, abs=0.07)


def test_diversity_is_the_mean_over_pairs_within_classes() -> None:
    features, labels = drawn(30, 6) + 0.5, np.arange(30) % 3

    def cosine(i: int, j: int) -> float:
        return float(features[i] @ features[j] / np.linalg.norm(features[i]) / np.linalg.norm(features[j]))

    means = []
    for label in range(3):
        members = np.flatnonzero(labels == label)
        means.append(np.mean([1 - cosine(i, j) for i in members for j in members if i != j]))
    assert diversity(features, labels) == pytest.approx(np.mean(means))
    one_a_class = drawn(3, 6)[labels]
    assert diversity(one_a_class, labels) == pytest.approx(0, abs=1e-12)
    assert diversity(np.concatenate([one_a_class, -one_a_class]), np.tile(labels, 2)) == pytest.approx(1 + 1 / 19)


def image_set(count: int, seed: int, spread: float = 1.0) -> ImageSet:
    """Ten classes in 12 dimensions, of which the first ten are read by a perfect classifier."""
    labels = np.arange(count) % 10
    features = 6 * np.eye(12)[labels] + drawn(count, 12, seed, spread)
    return ImageSet(features[:, :10], features, labels)


def test_all_measures_of_samples_that_are_like_real_images_and_of_worse_ones() -> None:
    real = image_set(1000, 0)
    names = [f"image{i:04d}" for i in range(1000)]
    halves = halves_apart(names, 0)
    assert sorted(np.bincount(halves)) == [500, 500]
    floor = reference(real, halves, 5)
    good = measured(image_set(600, 1), real, 5)
    assert list(good) == list(floor) == list(sample_quality.MEASURES)
    assert good["share_of_class"] > 0.99
    assert good["frechet"] < floor["frechet"]
    for name in ("precision", "recall", "density", "coverage", "diversity"):
        assert good[name] == pytest.approx(floor[name], abs=0.1), name
    fewer = measured(image_set(600, 1, spread=0.2), real, 5)
    assert fewer["diversity"] < 0.3 * good["diversity"]
    assert fewer["recall"] < 0.1
    assert fewer["precision"] > 0.95
    assert fewer["frechet"] > 4 * good["frechet"]
    shuffled = image_set(600, 1)
    wrong = measured(ImageSet(shuffled.logits[::-1], shuffled.features, shuffled.labels), real, 5)
    assert wrong["share_of_class"] < 0.05


def test_no_measure_depends_on_the_order_of_images() -> None:
    real, samples = image_set(200, 0), image_set(150, 1)
    order = np.random.default_rng(0).permutation(150)
    moved = ImageSet(samples.logits[order], samples.features[order], samples.labels[order])
    assert measured(moved, real, 5) == pytest.approx(measured(samples, real, 5), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: neighborhoods(drawn(5, 2), drawn(9, 2), 5), "k = 5, but 5 real images have at most 4 neighbours"),
        (lambda: neighborhoods(drawn(9, 2), drawn(5, 2), 5), "k = 5, but 5 samples have at most 4 neighbours"),
        (lambda: frechet(drawn(9, 2), drawn(9, 3)), r"features of shapes \(9, 2\) and \(9, 3\)"),
        (lambda: frechet(drawn(9, 2), drawn(1, 2)), "1 images; expected at least 2"),
        (lambda: diversity(drawn(3, 2), np.array([0, 0, 1])), "class 1 has one image"),
        (lambda: diversity(np.zeros((2, 2)), np.array([0, 0])), "2 images have features of length 0"),
        (
            lambda: sample_quality.share_of_class(drawn(3, 10), np.array([0, 9, 10])),
            "labels from 0 to 10, but the classifier has classes 0 to 9",
        ),
        (lambda: sample_quality.share_of_class(drawn(3, 10), np.array([0])), "for 1 labels"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: object, said: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_over_seeds_covers_the_mean(seeds: int) -> None:
    random = np.random.default_rng(0)

    def covers(values: Sequence[float]) -> bool:
        _, interval = of_mean(np.asarray(values))
        return bool(interval.low <= 0.3 <= interval.high)

    held = np.mean([covers(0.3 + 0.1 * random.standard_normal(seeds)) for _ in range(2000)])
    assert held == pytest.approx(0.95, abs=0.015)
    mean, interval = of_mean(np.array([0.3]))
    assert mean == 0.3
    assert np.isnan([interval.low, interval.high, interval.error]).all()
