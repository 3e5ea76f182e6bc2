"""What two layers share beyond controls, in simulations whose truth is known."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from diffalign.alignment.moments import cka_error, moments, unbiased_cka
from diffalign.alignment.partial import Controls, Estimate, beyond, controls, leading, one_hot
from diffalign.alignment.preparation import unit_rows

CLASSES, WIDTH, PIXELS = 8, 24, 20
STUDIES = 200


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


def named(count: int) -> list[str]:
    return [f"n{i:03d}" for i in range(count)]


class Population:
    """Images with a class, pixels, private noise and, where `planted` is above 0, something else that both sides see.

    uneven: the noise of an image has a scale of its own, larger in some classes, and on both sides.
    """

    def __init__(self, seed: int, planted: float = 0.0, pixels: bool = False, uneven: bool = False) -> None:
        self.random = np.random.default_rng(seed)
        self.of_class = self.random.standard_normal((2, CLASSES, WIDTH))
        self.of_pixels = 0.4 * self.random.standard_normal((2, PIXELS, WIDTH)) * pixels
        self.of_planted = planted * self.random.standard_normal((2, 3, WIDTH))
        turns = np.linalg.qr(self.random.standard_normal((2, WIDTH, WIDTH)))[0]
        # as in real layers, few directions hold most of the noise
        self.private = 2 * turns / np.sqrt(np.arange(1, WIDTH + 1))[:, None]
        self.pixels, self.uneven = pixels, uneven

    @property
    def share(self) -> float:
        """The squared covariance beyond class and pixels, as a share of all."""
        spread = (np.eye(CLASSES) - 1 / CLASSES) / CLASSES
        beyond = self.of_planted[0].T @ self.of_planted[1]
        everything = self.of_class[0].T @ spread @ self.of_class[1] + self.of_pixels[0].T @ self.of_pixels[1] + beyond
        return float(np.square(beyond).sum() / np.square(everything).sum())

    def sample(self, count: int) -> tuple[list[np.ndarray], Controls]:
        labels = self.random.integers(CLASSES, size=count)
        pixels, planted = (self.random.standard_normal((count, width)) for width in (PIXELS, 3))
        classes = one_hot([str(label) for label in labels])
        scale = (
            np.exp(0.4 * self.random.standard_normal((count, 1))) * (0.5 + labels[:, None] / 8) if self.uneven else 1
        )
        sides = [
            classes @ self.of_class[i]
            + pixels @ self.of_pixels[i]
            + planted @ self.of_planted[i]
            + scale * (self.random.standard_normal((count, WIDTH)) @ self.private[i])
            for i in range(2)
        ]
        return sides, controls([classes, *([pixels] if self.pixels else [])], named(count))

    def studies(self, count: int, number: int = STUDIES) -> list[Estimate]:
        return [beyond(sides[0], sides[1], given).share for sides, given in (self.sample(count) for _ in range(number))]


def test_without_controls_it_is_unbiased_cka_with_its_error() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((150, 12)).astype(np.float32)
    b = (a[:, :7] + rng.standard_normal((150, 7))).astype(np.float32)
    found = beyond(a, b, controls([], named(150)))
    pair = moments(a), moments(b)
    assert found.cka.value == pytest.approx(unbiased_cka(*pair), abs=1e-6)
    assert found.cka.high - found.cka.low == pytest.approx(2 * 1.96 * cka_error(*pair, unbiased=True), rel=0.03)
    assert (found.share.value, found.controls) == (pytest.approx(1), 0)


def test_the_estimate_is_that_of_its_formula() -> None:
    """Residual kernels and the noise that images are expected to share, with matrices that are written out."""
    rng = np.random.default_rng(1)
    z, a, b = rng.standard_normal((40, 5)), rng.standard_normal((40, 6)), rng.standard_normal((40, 4))
    design = np.concatenate([np.ones((40, 1)), z], axis=1)
    projection = np.eye(40) - design @ np.linalg.inv(design.T @ design) @ design.T

    def squared(x: np.ndarray, y: np.ndarray) -> float:
        k, l_ = projection @ x @ x.T @ projection, projection @ y @ y.T @ projection
        m = 40 - 6
        corrected = np.trace(k @ l_) - np.diag(k) @ np.linalg.inv(projection**2) @ np.diag(l_)
        return float(corrected / (m**2 + m - 2 * 40))

    found = beyond(a, b, controls([z], named(40)))
    assert found.cka.value == pytest.approx(squared(a, b) / math.sqrt(squared(a, a) * squared(b, b)))
    assert found.controls == 5


@pytest.mark.parametrize(
    ("pixels", "uneven", "count"), [(False, False, 300), (False, True, 300), (True, False, 300), (False, False, 1000)]
)
def test_features_of_the_class_alone_share_nothing_beyond_it(pixels: bool, uneven: bool, count: int) -> None:
    population = Population(2, pixels=pixels, uneven=uneven)
    assert population.share == 0
    number = STUDIES if count < 1000 else 60
    found = population.studies(count, number)
    held = np.mean([each.low <= 0 <= each.high for each in found])
    assert (0.92 if count < 1000 else 0.88) <= held <= 0.985
    values = np.array([each.value for each in found])
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(number)


def test_unit_rows_of_the_class_alone_share_nothing_beyond_it() -> None:
    """Rows of unit norm, as studies compare them: the noise of an image then depends on its class."""
    population, held = Population(3), []
    for _ in range(STUDIES):
        (a, b), given = population.sample(300)
        rows = [unit_rows(side.astype(np.float32), named(300)) for side in (a, b)]
        share = beyond(rows[0], rows[1], given).share
        held.append(share.low <= 0 <= share.high)
    assert 0.92 <= np.mean(held) <= 0.985


@pytest.mark.parametrize("planted", [0.6, 1.0])
def test_planted_structure_is_found_and_its_share_covered(planted: float) -> None:
    population = Population(4, planted=planted, pixels=True)
    found = population.studies(300, 100)
    assert np.mean([each.low > 0 for each in found]) > 0.95
    assert np.mean([each.low <= population.share <= each.high for each in found]) >= 0.9
    assert np.mean([each.value for each in found]) == pytest.approx(population.share, rel=0.06)


def test_a_control_that_is_left_out_is_found() -> None:
    """With the class alone as given, what both sides see of the pixels is beyond it."""
    population = Population(5, pixels=True)
    (a, b), given = population.sample(400)
    by_class = controls([given.basis[:, 1:CLASSES]], named(400))
    assert beyond(a, b, given).share.low < 0 < beyond(a, b, given).share.high
    everything = beyond(a, b, controls([], named(400)))
    assert everything.share.value == pytest.approx(1)
    assert beyond(a, b, by_class).controls == CLASSES - 1


def test_a_share_of_nothing_is_undefined() -> None:
    rng = np.random.default_rng(6)
    a, b, z = rng.standard_normal((120, 10)), rng.standard_normal((120, 10)), rng.standard_normal((120, 3))
    found = beyond(a, b, controls([z], named(120)))
    assert all(map(math.isnan, (found.share.value, found.share.low, found.share.high)))
    assert found.cka.low < 0 < found.cka.high


def test_no_order_of_images_and_no_rotation_of_controls_matters() -> None:
    (a, b), given = Population(7, planted=0.5, pixels=True).sample(200)
    order = np.random.default_rng(0).permutation(200)
    first = beyond(a, b, given)
    moved = beyond(a[order], b[order], Controls(given.basis[order]))
    columns = given.basis[:, 1:]
    turned = beyond(a, b, controls([columns @ np.random.default_rng(1).standard_normal((27, 27)), columns], named(200)))
    for other in (moved, turned):
        assert other.share.value == pytest.approx(first.share.value, rel=1e-6)
        assert (other.share.low, other.share.high) == pytest.approx((first.share.low, first.share.high), rel=1e-5)
    assert turned.controls == first.controls == 27


def test_controls_that_cannot_be_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="31 controls of 60 images; at most 30 are allowed"):
        controls([rng.standard_normal((60, 31))], named(60))
    with pytest.raises(ValueError, match=r"controls have shape \(59, 2\); expected \(60, C\)"):
        controls([rng.standard_normal((59, 2))], named(60))
    with pytest.raises(ValueError, match="NaN or infinite"):
        controls([np.full((60, 1), np.nan)], named(60))
    for size in (1, 2):
        labels = ["rare"] * size + ["b"] * 30 + ["c"] * (30 - size)
        with pytest.raises(ValueError, match=f"too little of {size} of 60 images, first: n000.*at least three"):
            controls([one_hot(labels)], named(60))
    assert controls([one_hot(["a"] * 3 + ["b"] * 57)], named(60)).freedom == 58
    with pytest.raises(ValueError, match="60 and 59 rows with controls of 60 images"):
        beyond(np.ones((60, 2)), np.ones((59, 2)), controls([], named(60)))


def test_leading_components_are_those_of_the_centred_features() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((50, 3)) @ np.diag([5.0, 2.0, 0.1]) @ rng.standard_normal((3, 9)) + 7
    scores = leading(features, 2)
    assert scores.shape == (50, 2)
    left, lengths, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(scores), np.abs(left[:, :2] * lengths[:2]), rtol=1e-9)
    assert leading(features, 100).shape == (50, 9)
