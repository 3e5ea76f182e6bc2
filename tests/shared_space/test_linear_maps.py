"""Linear maps of two sets into one space on sets whose relation is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from diffalign.shared_space.linear_maps import (
    canonical,
    fit_cca,
    fit_padded,
    fit_procrustes,
    fit_relative,
    fit_ridge,
)
from diffalign.shared_space.pairing import pairing


def moved(count: int, width: int, seed: int = 0, scale: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """A set, and the same rotated, scaled and shifted."""
    draws = np.random.default_rng(seed)
    x = draws.standard_normal((count, width)) * np.geomspace(2, 0.5, width)
    turned = scale * x @ ortho_group.rvs(width, random_state=seed + 1) + 10
    return x.astype(np.float32), turned.astype(np.float32)


def test_procrustes_undoes_rotation_scale_and_shift_on_other_rows() -> None:
    x, y = moved(80, 12)
    first, second = fit_procrustes(x[:40], y[:40])
    a, b = first.apply(x[40:]), second.apply(y[40:])
    assert a.dtype == np.float32
    assert np.abs(a - b).max() < 1e-4
    assert pairing(a, b).own_index == 1
    # an isometry up to the scale
    assert np.linalg.norm(a[0] - a[1]) * np.sqrt(x[:40].var(axis=0, ddof=1).sum()) == pytest.approx(
        np.linalg.norm(x[40] - x[41]), rel=1e-4
    )
    plain = fit_padded(x[:40], y[:40])
    assert pairing(plain[0].apply(x[40:]), plain[1].apply(y[40:])).own_index < 0.3


def test_procrustes_leaves_out_what_the_narrower_set_cannot_match() -> None:
    x, y = moved(80, 12)
    first, second = fit_procrustes(x[:40], y[:40, :5])
    assert first.apply(x).shape == second.apply(y[:, :5]).shape == (80, 5)
    # with fewer rows than dimensions, N - 1 directions
    first, second = fit_procrustes(x[:8], y[:8])
    assert first.apply(x).shape == second.apply(y).shape == (80, 7)


def test_padded_sets_have_unit_variance_and_zeros() -> None:
    x, y = moved(50, 6)
    first, second = fit_padded(x, y[:, :4])
    a, b = first.apply(x), second.apply(y[:, :4])
    assert a.shape == b.shape == (50, 6)
    assert not b[:, 4:].any()
    for each in (a, b):
        assert each.var(axis=0, ddof=1).sum() == pytest.approx(1, rel=1e-5)
        assert np.abs(each.mean(axis=0)).max() < 1e-5


def test_ridge_recovers_a_linear_map_and_leaves_the_second_set() -> None:
    draws = np.random.default_rng(3)
    x = draws.standard_normal((100, 7)).astype(np.float32)
    y = (x @ draws.standard_normal((7, 4)) + 3).astype(np.float32)
    first, second = fit_ridge(x[:50], y[:50], 1e-9)
    assert np.abs(first.apply(x[50:]) - y[50:]).max() < 1e-4
    assert np.array_equal(second.apply(y), y)


def views(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two views with three shared dimensions, of correlation 1 / (1 + .25), among dimensions of their own."""
    draws = np.random.default_rng(seed)
    z = draws.standard_normal((count, 3))
    sides = []
    for width in (8, 6):
        own = draws.standard_normal((count, width - 3))
        mixed = np.concatenate([z + 0.5 * draws.standard_normal((count, 3)), 5 * own], axis=1)
        sides.append((mixed @ draws.standard_normal((width, width)) + 1).astype(np.float32))
    return sides[0], sides[1]


def test_canonical_variates_are_those_of_two_orthonormal_bases() -> None:
    x, y = views(300)
    first, second = fit_cca(x, y, 6, 1e-12)
    a, b = first.apply(x).astype(np.float64), second.apply(y).astype(np.float64)
    bases = [np.linalg.qr(each - each.mean(axis=0))[0] for each in (x.astype(np.float64), y.astype(np.float64))]
    expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    correlations = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(6)]
    assert correlations == pytest.approx(expected, abs=1e-4)
    assert np.cov(a.T) == pytest.approx(np.eye(6), abs=1e-4)
    assert np.cov(b.T) == pytest.approx(np.eye(6), abs=1e-4)


def test_cca_finds_what_views_share_on_other_rows() -> None:
    x, y = views(2000, seed=1)
    first, second = fit_cca(x[:1000], y[:1000], 4, 1e-6)
    a, b = first.apply(x[1000:]), second.apply(y[1000:])
    correlations = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    assert np.mean(correlations[:3]) == pytest.approx(0.8, abs=0.03)
    assert abs(correlations[3]) < 0.1


def test_several_ridges_and_components_share_one_decomposition() -> None:
    x, y = views(60)
    for ridge, found in zip((0.1, 10.0), canonical(x, y, (0.1, 10.0)), strict=True):
        for rows, made, alone in zip((x, y), found.leading(2), fit_cca(x, y, 2, ridge), strict=True):
            assert np.array_equal(made.apply(rows), alone.apply(rows))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-50, 50))
def test_relative_representations_do_not_see_rotation_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    x, _ = moved(30, 5, seed)
    y = (scale * (x @ ortho_group.rvs(5, random_state=seed) + shift)).astype(np.float32)
    first, second = fit_relative(x[:20], y[:20], np.array([0, 3, 7, 11]))
    a, b = first.apply(x[20:]), second.apply(y[20:])
    assert a.shape == (10, 4)
    assert np.abs(a - b).max() < 2e-3
    # of an anchor with itself
    assert first.apply(x[[3]])[0, 1] == pytest.approx(1, abs=1e-5)


def test_wrong_input_is_refused_by_its_values() -> None:
    x, y = moved(20, 4)
    equal = np.full((20, 4), 0.1, np.float32)
    hole = x.copy()
    hole[3, 1] = np.nan
    for fit in (fit_padded, fit_procrustes, lambda a, b: fit_cca(a, b, 2, 0.1), lambda a, b: fit_ridge(a, b, 0.1)):
        with pytest.raises(ValueError, match="sets have 20 and 19 rows"):
            fit(x, y[:19])
        with pytest.raises(ValueError, match="features of the second set are constant: all 20 rows are equal"):
            fit(x, equal)
        with pytest.raises(ValueError, match="features of the first set are NaN or infinite in row 3"):
            fit(hole, y)
    with pytest.raises(ValueError, match="5 components of 4 canonical variates; allowed: 1 to 4"):
        fit_cca(x, y, 5, 0.1)
    with pytest.raises(ValueError, match="each must be above 0"):
        fit_cca(x, y, 2, 0.0)
    for rows in ([], [1, 1], [20], [-1]):
        with pytest.raises(ValueError, match="anchors must be different rows of 0 … 19"):
            fit_relative(x, y, rows)
    first, second = fit_relative(x, y, [0, 1])
    with pytest.raises(ValueError, match="features have 3 columns; the transform takes 4"):
        first.apply(x[:, :3])
    with pytest.raises(ValueError, match="lie at the mean and have no direction: row 0"):
        second.apply(y.mean(axis=0, keepdims=True, dtype=np.float64))
