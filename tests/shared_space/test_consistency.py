"""Consistency of parts and cells over images and sets, on planted tokens and by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from diffalign.shared_space.consistency import (
    CELL_SAME_IMAGE,
    PART_OTHER_IMAGES,
    PART_SAME_IMAGE,
    Measured,
    by_position,
    consistency,
    contrast,
    nearest,
    over_images,
)
from diffalign.shared_space.shifts import grid_shifts

GRID = (8, 8)


def parts_of(images: int, seed: int = 0) -> NDArray[np.int64]:
    """Three parts as stripes at another place in each image, and a margin without a part."""
    draws = np.random.default_rng(seed)
    made = np.zeros((images, *GRID), np.int64)
    for image in made:
        top, left = draws.integers(0, 3, 2)
        for part in range(3):
            image[top + 2 * part : top + 2 * part + 2, left : left + 5] = part + 1
    return made.reshape(images, -1)


def planted(parts: NDArray[np.int64], noise: float = 0.3, seed: int = 0) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed)
    return draws.standard_normal((4, 16))[parts] * 3 + noise * draws.standard_normal((*parts.shape, 16))


def rotated(tokens: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((tokens.shape[-1],) * 2))
    return tokens @ turn


def shifts_of(images: int, count: int = 199, seed: int = 0) -> NDArray[np.int32]:
    return grid_shifts([f"image{i}" for i in range(images)], GRID, count, seed)


def test_shifts_are_permutations_within_images_that_keep_neighbours() -> None:
    shifts = grid_shifts(["a", "b"], (3, 5), 400, 0).reshape(400, 2, 15)
    np.testing.assert_array_equal(np.sort(shifts, axis=2)[:, 0], np.tile(np.arange(15), (400, 1)))
    np.testing.assert_array_equal(np.sort(shifts, axis=2)[:, 1], np.tile(np.arange(15, 30), (400, 1)))
    cells = shifts[:, 0].reshape(400, 3, 5)
    for axis, size in ((1, 3), (2, 5)):
        steps = np.diff(cells // 5 if axis == 1 else cells % 5, axis=axis) % size
        assert set(np.unique(steps)) == {1, size - 1}
    # every shift of every mirroring occurs, each image draws its own, and the other image does not matter
    assert len(np.unique(cells[:, 0, 0])) == 15
    assert (shifts[:, 0] + 15 != shifts[:, 1]).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(shifts[:, 0], grid_shifts(["c", "a"], (3, 5), 400, 0).reshape(400, 2, 15)[:, 1] - 15)


def test_shifts_with_mirrored_borders_keep_neighbours_within_the_image() -> None:
    shifts = grid_shifts(["a", "b"], (3, 5), 400, 0, "mirror").reshape(400, 2, 15)
    assert (shifts[:, 0].min(), shifts[:, 0].max()) == (0, 14)
    assert (shifts[:, 1].min(), shifts[:, 1].max()) == (15, 29)
    cells = shifts[:, 0].reshape(400, 3, 5)
    # neighbours come from neighbours, or at the mirror from the same cell
    assert set(np.unique(np.diff(cells // 5, axis=1))) == {-1, 0, 1}
    assert set(np.unique(np.diff(cells % 5, axis=2))) == {-1, 0, 1}
    assert (np.diff(cells // 5, axis=2) == 0).all()
    with pytest.raises(ValueError, match="unknown border 'edge'; allowed: torus, mirror"):
        grid_shifts(["a"], (3, 5), 9, 0, "edge")


def test_neighbours_by_hand_with_ties_shared() -> None:
    a = np.array([[[0.0], [10.0]], [[1.0], [11.0]]])
    b = np.array([[[0.0], [9.0]], [[5.0], [5.0]]])
    others, own = nearest(a, b)
    np.testing.assert_array_equal(own.queries, [0, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(own.found, [0, 1, 2, 3, 2, 3])
    np.testing.assert_array_equal(own.shares, [1, 1, 0.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(others.queries, [0, 0, 1, 1, 2, 3])
    np.testing.assert_array_equal(others.found, [2, 3, 2, 3, 0, 1])
    small = nearest(np.repeat(a, 30, axis=1), np.repeat(b, 30, axis=1), memory_mb=1)
    large = nearest(np.repeat(a, 30, axis=1), np.repeat(b, 30, axis=1), memory_mb=512)
    for one, other in zip(small, large, strict=True):
        np.testing.assert_array_equal(one.found, other.found)


def test_parts_weigh_the_same_whatever_their_size() -> None:
    # of part 1 three of four tokens find their part, of part 2 the only one does not
    parts = np.array([[1, 1, 1, 2], [1, 2, 0, 0]])
    place = {"a": np.array([[[0.0], [1.0], [8.0], [9.0]], [[0.4], [8.2], [50.0], [60.0]]])}
    found = consistency(place, parts, grid_shifts(["x", "y"], (2, 2), 9, 0))[PART_OTHER_IMAGES, "a", "a"]
    # of part 1: 0 and 1 find .4 (part 1), 8 finds 8.2 (part 2), .4 finds 0; of part 2: 9 and 8.2 find each other, 8
    # is nearer to 8.2 than 9
    assert found.score == pytest.approx((3 / 4 + 1 / 2) / 2)
    np.testing.assert_allclose(found.per_image, [(2 / 3 + 1) / 2, (1 + 0) / 2])


def test_planted_parts_are_found_across_images_and_not_across_rotated_models() -> None:
    parts = parts_of(4)
    tokens = planted(parts)
    sets = {"a": tokens, "b": rotated(tokens, 1)}
    found = consistency(sets, parts, shifts_of(4))
    for name in sets:
        same = found[PART_OTHER_IMAGES, name, name]
        assert same.score > 0.99
        assert same.p == 1 / 200
        assert np.quantile(same.null, 0.95) < 0.7
    across = found[PART_OTHER_IMAGES, "a", "b"]
    assert across.score < 0.7
    assert across.p > 0.01
    aligned = consistency({"a": tokens, "b": tokens + 1e-3}, parts, shifts_of(4))
    gain = contrast(aligned[PART_OTHER_IMAGES, "a", "b"], across)
    assert gain.difference == pytest.approx(aligned[PART_OTHER_IMAGES, "a", "b"].score - across.score)
    assert np.isnan(gain.low)
    assert gain.reason == "4 images, fewer than 5"
    assert aligned[CELL_SAME_IMAGE, "a", "b"].score == 1
    assert aligned[CELL_SAME_IMAGE, "a", "b"].p == 1 / 200
    assert aligned[CELL_SAME_IMAGE, "a", "b"].null.mean() == pytest.approx(1 / 64, abs=0.01)
    assert aligned[PART_SAME_IMAGE, "a", "b"].score == 1
    assert aligned[PART_SAME_IMAGE, "a", "b"].p < 0.02
    assert (PART_SAME_IMAGE, "a", "a") not in found


def test_without_any_relation_five_per_cent_are_significant() -> None:
    """Smooth tokens and smooth parts, which a permutation of single tokens would call alike far more often."""
    significant, by_permutation = 0, 0
    for trial in range(200):
        draws = np.random.default_rng(trial)
        smooth = gaussian_filter(draws.standard_normal((3, *GRID, 4)), (0, 1.5, 1.5, 0), mode="wrap")
        of_parts = gaussian_filter(draws.standard_normal((3, *GRID, 3)), (0, 1.5, 1.5, 0), mode="wrap")
        parts = (of_parts / of_parts.std(axis=(0, 1, 2))).argmax(axis=-1).reshape(3, -1) + 1
        sets = {"a": smooth.reshape(3, 64, 4)}
        significant += consistency(sets, parts, shifts_of(3, 99, trial))[PART_OTHER_IMAGES, "a", "a"].p <= 0.05
        single = np.stack([64 * image + draws.permutation(64) for _ in range(99) for image in range(3)])
        permuted = single.reshape(99, -1).astype(np.int32)
        by_permutation += consistency(sets, parts, permuted)[PART_OTHER_IMAGES, "a", "a"].p <= 0.05
    assert 3 <= significant <= 18
    assert by_permutation > 2 * significant


def test_objects_at_one_place_agree_by_position_alone() -> None:
    parts = np.repeat(parts_of(1), 3, axis=0)
    assert by_position(parts, shifts_of(3)).score == 1
    assert by_position(parts_of(3), shifts_of(3)).score < 0.9
    assert by_position(parts_of(1), shifts_of(1)).undefined == "one image: there is no other"


def test_intervals_of_differences_need_images() -> None:
    parts = parts_of(6)
    first, second = (
        consistency({"a": planted(parts, noise)}, parts, shifts_of(6))[PART_OTHER_IMAGES, "a", "a"]
        for noise in (0.5, 6.0)
    )
    gain = contrast(first, second)
    assert 0 < gain.low < gain.difference < gain.high
    none = contrast(first, first)
    assert none.difference == 0
    assert np.isnan([none.low, none.high]).all()
    assert none.reason == "the difference is the same in all 6 images"


def test_means_over_images_are_those_of_a_t_test() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).standard_normal(9) + 0.5
    found, expected = over_images(np.append(values, np.nan)), ttest_1samp(values, 0)
    assert (found.mean, found.p, found.images) == (pytest.approx(values.mean()), pytest.approx(expected.pvalue), 9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    # copies of images tell nothing new
    groups = [f"photograph {number}" for number in np.repeat(range(10), 3)]
    copies = over_images(np.repeat(np.append(values, np.nan), 3), groups)
    assert (copies.low, copies.high, copies.p) == pytest.approx((found.low, found.high, found.p))
    assert (copies.images, copies.groups) == (27, 9)
    few = over_images(np.repeat(values[:4], 3), groups[:12])
    assert np.isnan([few.low, few.high, few.p]).all()
    assert few.reason == "4 groups of 12 images, fewer than 5"
    level = over_images(np.tile([0.1, 0.3], 6), [f"photograph {number}" for number in np.repeat(range(6), 2)])
    assert np.isnan([level.low, level.p]).all()
    assert level.reason == "the difference is the same in all 6 groups of 12 images"
    nearly = over_images(1 + 1e-6 * values)
    assert nearly.p == 1e-5
    assert nearly.low < nearly.mean < nearly.high


def test_five_per_cent_of_intervals_exclude_0_where_scores_are_equal() -> None:
    """Two scores of the same expectation, of images that differ: shifts of both would tell them apart far too often."""
    excluded = 0
    for trial in range(400):
        draws = np.random.default_rng(trial)
        of_images = np.clip(0.4 + 0.1 * draws.standard_normal((2, 8)), 0, 1)
        first, second = (
            Measured(float(each.mean()), 0.1 + 0.01 * draws.standard_normal(99), each) for each in of_images
        )
        found = contrast(first, second)
        excluded += not found.low <= 0 <= found.high
    assert 8 <= excluded <= 34


def test_one_image_has_no_score_across_images() -> None:
    parts = parts_of(1)
    found = consistency({"a": planted(parts), "b": planted(parts)}, parts, shifts_of(1))
    across = found[PART_OTHER_IMAGES, "a", "b"]
    assert np.isnan(across.score)
    assert np.isnan(across.p)
    assert across.undefined == "one image: there is no other"
    assert found[CELL_SAME_IMAGE, "a", "b"].score == 1
    with pytest.raises(ValueError, match="no difference of scores that are undefined: one image"):
        contrast(across, across)
    alone = np.repeat(parts_of(1), 2, axis=0)
    alone[0][alone[0] > 0] = 1
    alone[1][alone[1] > 0] = 2
    tokens = planted(alone)
    assert consistency({"a": tokens}, alone, shifts_of(2))[PART_OTHER_IMAGES, "a", "a"].undefined == (
        "no part is in two images"
    )


def test_without_parts_only_cells_are_compared() -> None:
    tokens = planted(parts_of(2))
    assert list(consistency({"a": tokens, "b": tokens}, None, shifts_of(2))) == [(CELL_SAME_IMAGE, "a", "b")]


def test_the_order_of_images_does_not_matter() -> None:
    parts, order = parts_of(4), [2, 0, 3, 1]
    tokens = planted(parts, 3.0)
    names = [f"image{i}" for i in range(4)]
    found, turned = (
        consistency({"a": tokens[rows]}, parts[rows], grid_shifts([names[i] for i in rows], GRID, 50, 0))
        for rows in ([0, 1, 2, 3], order)
    )
    one, other = found[PART_OTHER_IMAGES, "a", "a"], turned[PART_OTHER_IMAGES, "a", "a"]
    assert other.score == pytest.approx(one.score)
    np.testing.assert_allclose(other.null, one.null)
    np.testing.assert_allclose(other.per_image, one.per_image[order])


def test_bad_input_is_refused_by_name() -> None:
    parts = parts_of(2)
    tokens = planted(parts)
    shifts = shifts_of(2)
    with pytest.raises(ValueError, match=r"a \(2, 64, 16\), b \(2, 63, 16\)"):
        consistency({"a": tokens, "b": tokens[:, :63]}, parts, shifts)
    with pytest.raises(ValueError, match=r"parts have shape \(2, 63\); expected \(2, 64\)"):
        consistency({"a": tokens}, parts[:, :63], shifts)
    with pytest.raises(ValueError, match="shifts are of 64 tokens, sets of 2 images x 64 cells"):
        consistency({"a": tokens}, parts, shifts_of(1))
    broken = tokens.copy()
    broken[1, 3, 5] = np.nan
    with pytest.raises(ValueError, match="tokens of b are NaN or infinite in row 67"):
        consistency({"a": tokens, "b": broken}, parts, shifts)
    with pytest.raises(ValueError, match="of 2 images of which 1 differ"):
        grid_shifts(["a", "a"], GRID, 9, 0)
    assert Measured(0.5, np.array([0.5, 0.1, 0.9]), np.array([0.5])).p == pytest.approx(3 / 4)
