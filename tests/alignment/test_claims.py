import math

import numpy as np
import pytest
from numpy.typing import NDArray

from diffalign.alignment.calibration import calibrate_by_moments, calibrate_by_permutations, without_p
from diffalign.alignment.claims import corrected, smallest
from diffalign.alignment.nulls import NullMoments

Grid = NDArray[np.float64]


def claimed_at(level: float, p_adjusted: list[Grid]) -> list[Grid]:
    """Benjamini and Bogomolov by their definition: the grids that pass, then their cells at a share of the level."""
    grids = np.array([smallest(p) for p in p_adjusted])
    tested = np.sort(grids[~np.isnan(grids)])
    count = len(tested)
    passing = [r for r in range(1, count + 1) if tested[r - 1] <= level * r / count]
    share = level * (passing[-1] if passing else 0) / max(1, count)
    return [(p <= share) & (smallest(p) <= share) for p in p_adjusted]


def test_cells_are_claimed_as_defined() -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        p = [np.clip(random.uniform(0, 1.5) * random.beta(0.3, 3, (3, 4)), 1e-9, 1) for _ in range(6)]
        p[2][1, 1] = np.nan
        p[4][:] = np.nan
        q = corrected(p)
        for level in (0.0131, 0.0517, 0.1173, 0.2311):
            for found, expected in zip(q, claimed_at(level, p), strict=True):
                assert np.array_equal(found <= level, expected)
        for each, found in zip(p, q, strict=True):
            assert np.array_equal(np.isnan(each), np.isnan(found))
            assert (found >= each - 1e-12)[~np.isnan(each)].all()


def test_a_grid_by_itself_is_corrected_within() -> None:
    p = np.array([[0.004, 0.2], [0.03, np.nan]])
    (q,) = corrected([p])
    assert q == pytest.approx(p, nan_ok=True)
    assert corrected([]) == []
    (none,) = corrected([np.full((1, 2), np.nan)])
    assert np.isnan(none).all()
    with pytest.raises(ValueError, match="between 0 and 1"):
        corrected([np.array([[1.5]])])


def test_a_grid_whose_p_was_refused_is_not_tested_and_no_claim() -> None:
    values = like_scores(np.random.default_rng(3), 99, (3, 4))
    found = calibrate_by_permutations(values[0] + 1, values[1:], math.inf, 0.05)
    refused = without_p(found, "6 arrangements")
    for name in ("p", "threshold", "calibrated", "p_adjusted", "grid_threshold"):
        assert np.isnan(getattr(refused, name)).all()
    assert np.isnan([refused.maximum_p, refused.maximum_threshold, refused.maximum_calibrated]).all()
    assert np.array_equal(refused.z, found.z)
    alone, with_refused = corrected([found.p_adjusted]), corrected([found.p_adjusted, refused.p_adjusted])
    assert np.array_equal(with_refused[0], alone[0])
    assert (alone[0] <= 0.05).all()
    assert not (with_refused[1] <= 0.05).any()


def test_cells_without_a_p_are_no_tests_of_their_grid() -> None:
    scores, sd = np.array([[0.9, 0.5, 0.4]]), np.full((1, 3), 0.1)
    null = NullMoments(np.full((1, 3), 0.1), sd, np.full((1, 3), 0.5), holds=np.array([[False, True, True]]))
    found = calibrate_by_moments(scores, null, 1.0, 0.05)
    assert np.isnan(found.p_adjusted).tolist() == [[True, False, False]]
    assert found.p_adjusted[0, 1:] == pytest.approx(np.minimum(1, 2 * found.p[0, 1:]))
    # the largest score was not tested
    assert np.isnan(found.maximum_p)
    assert (corrected([found.p_adjusted])[0] <= 0.05).tolist() == [[False, True, True]]


def test_a_grid_with_more_cells_than_moments_resolve_claims_nothing() -> None:
    scores, like = np.full((60, 100), 0.9), np.full((60, 100), 0.1)
    found = calibrate_by_moments(scores, NullMoments(like, like, 5 * like), 1.0, 0.05)
    assert found.maximum_p == pytest.approx(0.06)
    assert found.maximum_calibrated == 0
    assert np.isnan(found.grid_threshold).all()


def like_scores(random: np.random.Generator, draws: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Scores and their null, (1 + draws, L_A, L_B), of layers that resemble each other."""
    common = random.standard_normal((1 + draws, 1, 1))
    rows, columns = random.standard_normal((1 + draws, shape[0], 1)), random.standard_normal((1 + draws, 1, shape[1]))
    return 0.1 + 0.02 * (0.6 * common + 0.5 * rows + 0.5 * columns + 0.4 * random.standard_normal((1 + draws, *shape)))


def test_independent_grids_are_rarely_claimed() -> None:
    """200 independent grids of 8 x 12: single cells lie above their own thresholds in most, after correction in few."""
    random = np.random.default_rng(1)
    single, within = [], []
    for _ in range(200):
        values = like_scores(random, 99, (8, 12))
        found = calibrate_by_permutations(values[0], values[1:], 1.0, 0.05)
        single.append((found.calibrated > 0).any())
        within.append((found.p_adjusted <= 0.05).any())
    assert np.mean(single) > 0.5
    assert 0.01 <= np.mean(within) <= 0.09


def test_few_claimed_cells_are_false() -> None:
    """Studies of 12 grids, of which three are aligned in 2 of 4 rows: the share of false cells among those claimed."""
    random = np.random.default_rng(2)
    false, found_share = [], []
    for _ in range(60):
        p, truth = [], []
        for grid in range(12):
            values = like_scores(random, 499, (4, 6))
            aligned = np.zeros((4, 6), bool)
            if grid < 3:
                aligned[:2] = True
            values[0] += 0.06 * aligned
            p.append(calibrate_by_permutations(values[0], values[1:], 1.0, 0.05).p_adjusted)
            truth.append(aligned)
        claimed = np.concatenate([(q <= 0.05).ravel() for q in corrected(p)])
        real = np.concatenate([each.ravel() for each in truth])
        false.append((claimed & ~real).sum() / max(1, claimed.sum()))
        found_share.append((claimed & real).sum() / real.sum())
    assert np.mean(false) <= 0.05
    assert np.mean(found_share) > 0.3
