"""Edges by cell, and eigenvectors that follow them or do not."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr, rankdata, spearmanr

from diffalign.shared_space.edge_maps import EdgeCorrelation, cell_edges, edge_contrast, edge_correlation
from diffalign.shared_space.shifts import grid_shifts

GRID = (8, 8)


def smooth(images: int, columns: int, seed: int, deviation: float = 1.2) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed).standard_normal((images, *GRID, columns))
    return gaussian_filter(draws, (0, deviation, deviation, 0)).reshape(images, 64, columns)


def shifts_of(images: int, count: int = 199, seed: int = 0, border: str = "mirror") -> NDArray[np.int32]:
    return grid_shifts([f"{i}" for i in range(images)], GRID, count, seed, border)


def test_edges_lie_where_the_grey_value_changes() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    edges = cell_edges(pixels, (4, 4))
    # the step lies between columns 31 and 32: Sobel sees it in both, one in the second and one in the third cell
    np.testing.assert_allclose(edges[:, [0, 3]], 0, atol=1e-12)
    np.testing.assert_allclose(edges[:, [1, 2]], 1 / np.sqrt(2) / 16, rtol=1e-6)
    assert cell_edges(pixels, (5, 3)).shape == (5, 3)
    # what lies in several cells is divided, not lost
    np.testing.assert_allclose(cell_edges(pixels, (5, 7)).mean(), edges.mean(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"shape \(64, 64\) has no 4 x 4 cells"):
        cell_edges(pixels[..., 0], (4, 4))
    with pytest.raises(ValueError, match="no 65 x 4 cells"):
        cell_edges(pixels, (65, 4))


def test_correlation_is_spearmans_and_the_largest() -> None:
    vectors, edges = smooth(3, 4, 0), smooth(3, 1, 1)[..., 0]
    vectors[..., 2] = -np.exp(edges) + 0.2 * vectors[..., 2]
    found = edge_correlation(vectors, edges, shifts_of(3))
    every = [spearmanr(vectors[..., k].ravel(), edges.ravel()).statistic for k in range(4)]
    assert found.column == 2
    assert found.value == pytest.approx(max(abs(each) for each in every))
    np.testing.assert_allclose(
        found.per_image, [-spearmanr(vectors[i, :, 2], edges[i]).statistic for i in range(3)], atol=1e-12
    )
    assert found.per_image.min() > 0.5
    assert found.p == 1 / 200
    # ranks go with their cells
    drawn = rankdata(edges.ravel())[shifts_of(3)[7]]
    by_hand = [pearsonr(rankdata(vectors[..., k].ravel()), drawn).statistic for k in range(4)]
    assert found.null[7] == pytest.approx(max(abs(each) for each in by_hand))


def test_without_any_relation_five_per_cent_are_significant_though_the_largest_of_many_is_taken() -> None:
    """On a torus more are: what meets at its seam is not as smooth as the map."""
    mirrored, torus = [], []
    for trial in range(300):
        vectors, edges = smooth(2, 10, 2 * trial, 1.5), smooth(2, 1, 2 * trial + 1, 1.5)[..., 0]
        mirrored.append(edge_correlation(vectors, edges, shifts_of(2, 99, trial)).p)
        torus.append(edge_correlation(vectors, edges, shifts_of(2, 99, trial, "torus")).p)
    assert 4 <= sum(p <= 0.05 for p in mirrored) <= 25
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.08)
    assert sum(p <= 0.05 for p in torus) > 1.5 * sum(p <= 0.05 for p in mirrored)


def test_a_set_that_follows_edges_is_told_from_one_that_does_not() -> None:
    edges = smooth(8, 1, 1)[..., 0]
    following, other = smooth(8, 5, 0), smooth(8, 5, 3)
    following[..., 1] += 2 * edges
    shifts = shifts_of(8)
    first, second = (edge_correlation(each, edges, shifts) for each in (following, other))
    assert first.p == 1 / 200
    assert second.p > 0.01
    difference = edge_contrast(first, second)
    assert 0 < difference.low < difference.mean < difference.high
    assert difference.p < 0.01
    assert difference.images == 8
    assert edge_contrast(first, first).p == 1
    few = edge_contrast(*(edge_correlation(each[:2], edges[:2], shifts_of(2)) for each in (following, other)))
    assert few.images == 2
    assert np.isnan([few.low, few.high, few.p]).all()
    assert few.mean > 0
    assert few.reason == "2 images, fewer than 5"


def test_differences_that_are_all_the_same_have_no_p_and_no_interval() -> None:
    of_images = np.linspace(0.1, 0.8, 8)
    first, second = (EdgeCorrelation(0.5, 0, np.zeros(19), each) for each in (of_images + 0.1, of_images))
    found = edge_contrast(first, second)
    assert found.mean == pytest.approx(0.1)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert found.reason == "the difference is the same in all 8 images"
    same = edge_contrast(first, first)
    assert (same.mean, same.p) == (0, 1)
    assert np.isnan([same.low, same.high]).all()


def test_bad_input_is_refused_by_name() -> None:
    vectors, edges = smooth(2, 3, 0), smooth(2, 1, 1)[..., 0]
    with pytest.raises(ValueError, match=r"eigenvectors \(2, 64, 3\), edges \(2, 63\)"):
        edge_correlation(vectors, edges[:, :63], shifts_of(2))
    with pytest.raises(ValueError, match="edges are the same at all 128 cells"):
        edge_correlation(vectors, np.ones_like(edges), shifts_of(2))
    with pytest.raises(ValueError, match="eigenvectors are the same at all 128 cells"):
        edge_correlation(np.ones_like(vectors), edges, shifts_of(2))
    blank = edges.copy()
    blank[0] = 0.5
    assert np.isnan(edge_correlation(vectors, blank, shifts_of(2)).per_image[0])
    vectors[1, 5, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in images 1"):
        edge_correlation(vectors, edges, shifts_of(2))
