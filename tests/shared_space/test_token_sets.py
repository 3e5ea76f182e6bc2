"""Tokens on a common grid, their keys, and the parts that cells show."""

import numpy as np
import pytest
import torch

from diffalign.shared_space.token_sets import RULES, common_grid, keys, on_grid, part_of_cells, weights

RNG = np.random.default_rng(0)
SIDES = (1, 2, 3, 4, 7, 14, 16, 37)


def laid(values: list[list[float]]) -> np.ndarray:
    """A picture of one channel, as tokens of one image."""
    return np.array(values, np.float32).reshape(1, -1, 1)


def test_area_is_the_mean_over_the_area() -> None:
    picture = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    assert on_grid(laid(picture), (4, 4), (2, 2), "area").ravel().tolist() == [3.5, 5.5, 11.5, 13.5]
    # a new cell is one and a half old ones
    assert on_grid(laid([[2, 4, 6]]), (1, 3), (1, 2), "area").ravel() == pytest.approx([8 / 3, 16 / 3])
    # where cells shrink, each is a part of one old cell, or of two
    assert on_grid(laid([[2, 8]]), (1, 2), (1, 3), "area").ravel() == pytest.approx([2, 5, 8])
    assert on_grid(laid([[2], [8]]), (2, 1), (4, 1), "area").ravel().tolist() == [2, 2, 8, 8]
    # of any grids: the mean over the image is kept
    tokens = RNG.standard_normal((3, 37 * 16, 5)).astype(np.float32)
    made = on_grid(tokens, (37, 16), (14, 7), "area")
    np.testing.assert_allclose(made.mean(1), tokens.mean(1), atol=1e-6)


def test_nearest_takes_the_token_in_the_middle_of_the_cell() -> None:
    assert on_grid(laid([[1, 2, 3, 4]]), (1, 4), (1, 2), "nearest").ravel().tolist() == [2, 4]
    assert on_grid(laid([[1, 2, 3]]), (1, 3), (1, 2), "nearest").ravel().tolist() == [1, 3]
    assert on_grid(laid([[1, 2]]), (1, 2), (1, 4), "nearest").ravel().tolist() == [1, 1, 2, 2]
    assert on_grid(laid([[1], [2], [3]]), (3, 1), (1, 1), "nearest").ravel().tolist() == [2]
    # rows and columns are not exchanged
    assert on_grid(laid([[1, 2, 3], [4, 5, 6]]), (2, 3), (4, 3), "nearest").reshape(4, 3)[:, 0].tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize(("old", "new"), [((3, 4), (6, 8)), ((4, 4), (7, 3)), ((14, 16), (5, 9)), ((1, 3), (4, 2))])
def test_bilinear_is_that_of_torch(old: tuple[int, int], new: tuple[int, int]) -> None:
    tokens = RNG.standard_normal((2, old[0] * old[1], 5)).astype(np.float32)
    maps = torch.from_numpy(tokens).double().reshape(2, *old, 5).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(maps, new, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(on_grid(tokens, old, new, "bilinear"), theirs.flatten(2).mT.numpy(), atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_weights_are_shares_and_what_is_constant_stays_so(rule: str) -> None:
    for old in SIDES:
        for new in SIDES:
            given = weights(old, new, rule)
            assert given.shape == (new, old)
            assert given.min() >= 0
            np.testing.assert_allclose(given.sum(1), 1, rtol=1e-14)
    constant = np.full((2, 37 * 3, 4), 0.1, np.float32)
    assert np.array_equal(on_grid(constant, (37, 3), (16, 7), rule), np.full((2, 16 * 7, 4), 0.1, np.float32))
    same = RNG.standard_normal((2, 6, 4)).astype(np.float32)
    assert np.array_equal(on_grid(same, (2, 3), (2, 3), rule), same)


def test_images_do_not_depend_on_each_other() -> None:
    tokens = RNG.standard_normal((5, 12, 3)).astype(np.float16)
    made = on_grid(tokens, (3, 4), (2, 2), "area")
    assert made.dtype == np.float32
    assert np.array_equal(made[3:4], on_grid(tokens[3:4], (3, 4), (2, 2), "area"))


def test_other_grids_without_a_rule_are_refused_with_both_models() -> None:
    tokens = np.zeros((1, 12, 2), np.float32)
    said = (
        "sam has tokens on a grid of 3 x 4, dinov3 on one of 2 x 2; name a rule by which tokens are resampled: nearest"
    )
    with pytest.raises(ValueError, match=said):
        on_grid(tokens, (3, 4), (2, 2), None, ("sam", "dinov3"))
    assert on_grid(tokens, (3, 4), (3, 4), None).shape == (1, 12, 2)
    grids = {"sam": (3, 4), "again": (3, 4), "dinov3": (2, 2)}
    with pytest.raises(ValueError, match=said):
        common_grid(grids, None)
    assert common_grid({"sam": (3, 4), "again": (3, 4)}, None) == (3, 4)
    assert common_grid(grids, "area") == (2, 2)
    with pytest.raises(ValueError, match="no model or layer was given"):
        common_grid({}, "area")


def test_bad_input_of_resampling_is_named() -> None:
    with pytest.raises(ValueError, match=r"tokens of sam are \(1, 11, 2\); expected \(N, 3 x 4, C\)"):
        on_grid(np.zeros((1, 11, 2), np.float32), (3, 4), (2, 2), "area", ("sam", "dinov3"))
    broken = np.zeros((1, 12, 2), np.float32)
    broken[0, 3, 1] = np.nan
    with pytest.raises(ValueError, match="tokens of sam are NaN or infinite"):
        on_grid(broken, (3, 4), (3, 4), "area", ("sam", "dinov3"))
    with pytest.raises(ValueError, match="unknown rule of resampling 'cubic'; allowed: nearest, area, bilinear"):
        on_grid(np.zeros((1, 12, 2), np.float32), (3, 4), (2, 2), "cubic")
    with pytest.raises(ValueError, match=r"rows and columns, from 1, not \(0, 4\)"):
        on_grid(np.zeros((1, 0, 2), np.float32), (0, 4), (2, 2), "area")


def test_a_cell_shows_the_part_that_covers_it() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :2] = 3
    mask[:2, 2:] = [[1, 1], [1, 2]]
    mask[2:, :2] = [[5, 5], [0, 0]]
    mask[2:, 2:] = [[4, 0], [0, 0]]
    assert part_of_cells(mask, (2, 2)).tolist() == [[3, 1], [5, 0]]
    assert part_of_cells(mask, (2, 2), coverage=0.25).tolist() == [[3, 1], [5, 4]]
    assert part_of_cells(mask, (2, 2), coverage=1).tolist() == [[3, 0], [0, 0]]
    # half and half: the lowest number
    assert part_of_cells(np.array([[2, 1]]), (1, 1)).tolist() == [[1]]
    assert part_of_cells(np.zeros((4, 4), np.uint8), (2, 2)).tolist() == [[0, 0], [0, 0]]


def test_cells_that_share_pixels_count_them_by_area() -> None:
    # three cells on four columns of pixels: the middle one has the right third of the second pixel, and so on
    assert part_of_cells(np.array([[1, 2, 2, 2]]), (1, 3)).tolist() == [[1, 2, 2]]
    assert part_of_cells(np.array([[1, 2, 3, 0]]), (1, 3), coverage=0.6).tolist() == [[1, 0, 0]]
    # a cell within one pixel
    assert part_of_cells(np.array([[1, 2]]), (1, 6)).tolist() == [[1, 1, 1, 2, 2, 2]]
    for coverage in (0, 1.5):
        with pytest.raises(ValueError, match=f"coverage {coverage}; expected a share above 0, at most 1"):
            part_of_cells(np.array([[1, 2]]), (1, 1), coverage)
    with pytest.raises(ValueError, match=r"array \(H, W\) of numbers from 0, not float64 \(1, 2\)"):
        part_of_cells(np.array([[1.0, 2.0]]), (1, 1))


def test_every_token_has_a_key_of_its_own() -> None:
    assert keys(["b", "a"], (1, 2)) == ("b/0/0", "b/0/1", "a/0/0", "a/0/1")
    many = keys(["a", "a/1", "a/1/0"], (3, 12))
    assert len(set(many)) == len(many) == 3 * 36
    with pytest.raises(ValueError, match="1 names stand more than once: a"):
        keys(["a", "b", "a"], (1, 1))
