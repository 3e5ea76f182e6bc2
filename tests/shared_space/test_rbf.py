"""Affinities to landmarks as features."""

import numpy as np
import pytest
from conftest import golden

from diffalign.shared_space.affinity import rbf_affinity
from diffalign.shared_space.pairing import pairing
from diffalign.shared_space.rbf import fit_rbf

ROWS = [1, 4, 9, 16, 25]


def features(rows: int = 200) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, 12)).astype(np.float32)


def test_the_mean_of_features_is_c_and_new_rows_keep_the_scale() -> None:
    x = features()
    fit = fit_rbf(x[:150], ROWS, 0.2)
    assert fit.apply(x[:150]).mean(dtype=np.float64) == pytest.approx(0.2, rel=1e-5)
    assert np.array_equal(fit.landmarks, x[ROWS])
    # a row does not depend on those beside it
    np.testing.assert_allclose(fit.apply(x)[150:], fit.apply(x[150:]), atol=1e-6)
    # outliers among new rows change nothing of the others
    spoilt = np.concatenate([x[150:], 1e4 * x[:1]])
    np.testing.assert_allclose(fit.apply(spoilt)[:-1], fit.apply(x[150:]), atol=1e-6)


def test_blocks_are_the_whole() -> None:
    x = features(8_000)
    fit = fit_rbf(x, range(50), 0.2)
    made = fit.apply(x, memory_mb=1)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, rbf_affinity(x, x[:50], fit.gamma, fit.variance), atol=1e-6)


def test_the_order_of_rows_changes_neither_scale_nor_features() -> None:
    x = features()
    order = np.random.default_rng(1).permutation(len(x))
    places = np.argsort(order)
    fit, again = fit_rbf(x, ROWS, 0.2), fit_rbf(x[order], places[ROWS], 0.2)
    assert again.gamma == pytest.approx(fit.gamma, rel=1e-6)
    np.testing.assert_allclose(again.apply(x[order]), fit.apply(x)[order], atol=1e-6)


def test_sets_that_differ_by_shift_rotation_and_scale_become_one() -> None:
    with np.load(golden("rbf_toy.npz")) as file:
        x, y, clusters = file["X"], file["Y_isotropic"], file["cluster"]
    before = pairing(x, y, clusters)
    first, second = fit_rbf(x, range(30), 0.3), fit_rbf(y, range(30), 0.3)
    after = pairing(first.apply(x), second.apply(y), clusters)
    assert (before.own_cluster, before.own_index) == pytest.approx((1 / 3, 1 / 30))
    assert (after.own_cluster, after.own_index) == (1, 1)
    assert second.gamma == pytest.approx(first.gamma, rel=1e-5)


def test_bad_input_is_refused() -> None:
    x = features(20)
    for rows in ([], [0, 0], [-1, 2], [3, 20]):
        with pytest.raises(ValueError, match=r"must be different rows of 0 … 19"):
            fit_rbf(x, rows, 0.3)
    fit = fit_rbf(x, [0, 5], 0.3)
    with pytest.raises(ValueError, match="4 columns and landmarks 12"):
        fit.apply(x[:, :4])
    x[3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in row 3"):
        fit.apply(x)
