"""Ridge regression between representations: penalties by folds, and R² of held-out images under permutations."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from diffalign.shared_space.predictivity import cross_validated, predict, regression, spectrum


def planted(count: int, width: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    x = (draws.standard_normal((count, width)) * np.geomspace(3, 0.3, width) + 5).astype(np.float32)
    y = x @ draws.standard_normal((width, 4)) + noise * draws.standard_normal((count, 4)) - 2
    return x, y.astype(np.float32)


@pytest.mark.parametrize(("count", "width"), [(80, 12), (30, 50), (20, 20)])
def test_weights_are_those_of_scikit_learn(count: int, width: int) -> None:
    x, y = planted(count, width, 1.0)
    made = regression(x, y)
    for share in (1e-3, 0.5, 20):
        known = Ridge(alpha=made.of.penalty(share), solver="svd").fit(x.astype(np.float64), y.astype(np.float64))
        expected = known.predict(x.astype(np.float64))
        predicted = made.of.rows @ made.weights(share) + made.offsets
        assert np.abs(predicted - expected).max() < 1e-8 * np.abs(expected).max()


def test_folds_predict_what_they_have_not_seen() -> None:
    x, y = planted(60, 8, 0.5)
    folds = np.arange(60) % 5
    found = cross_validated(x, y, folds, (1e-4, 0.1, 1e4))
    unexplained = total = 0.0
    for fold in range(5):
        inside = folds == fold
        made = regression(x[~inside], y[~inside])
        predicted = (x[inside] - made.of.center) @ made.weights(0.1) + made.offsets
        unexplained += float(np.square(y[inside] - predicted).sum())
        total += float(np.square(y[inside] - made.offsets).sum())
    assert found[1] == pytest.approx(1 - unexplained / total, rel=1e-9)
    assert found[0] > 0.9
    # a huge penalty predicts the mean
    assert abs(found[2]) < 0.01


def test_the_penalty_is_chosen_by_folds_and_a_linear_map_is_recovered() -> None:
    x, y = planted(120, 10, 0.0)
    folds = np.arange(60) % 5
    exact = predict((x[:60], y[:60]), (x[60:], y[60:]), folds, (1e-8, 1.0))
    assert exact.penalty == 1e-8
    assert exact.r2 > 1 - 1e-6
    noise = np.random.default_rng(1).standard_normal((120, 4)).astype(np.float32)
    nothing = predict((x[:60], noise[:60]), (x[60:], noise[60:]), folds, (1e-8, 100.0))
    assert nothing.penalty == 100.0
    assert nothing.r2 < 0.05


def test_r2_weights_dimensions_by_variance_and_sums_over_images() -> None:
    x, y = planted(100, 6, 2.0)
    y[:, 0] *= 50
    found = predict((x[:50], y[:50]), (x[50:], y[50:]), np.arange(50) % 5, (0.01,))
    left = 1 - found.unexplained.sum() / found.total.sum()
    assert found.r2 == pytest.approx(left)
    each = 1 - np.square(found.targets - found.predicted).sum(axis=0) / np.square(found.targets).sum(axis=0)
    share = np.square(found.targets).sum(axis=0) / np.square(found.targets).sum()
    assert found.r2 == pytest.approx(float(each @ share))


def test_permuted_r2_is_that_of_moved_targets() -> None:
    x, y = planted(90, 6, 1.0)
    held_out = x[40:], y[40:]
    found = predict((x[:40], y[:40]), held_out, np.arange(40) % 5, (0.01, 1))
    orders = np.stack([np.arange(50), np.random.default_rng(2).permutation(50)])
    moved = predict((x[:40], y[:40]), (held_out[0], held_out[1][orders[1]]), np.arange(40) % 5, (0.01, 1))
    assert found.permuted(orders) == pytest.approx([found.r2, moved.r2], rel=1e-9)


def test_constant_sides_are_no_error_of_a_prediction() -> None:
    x, y = planted(40, 5, 1.0)
    folds = np.arange(20) % 5
    equal = np.ones_like(x)
    assert predict((equal[:20], y[:20]), (equal[20:], y[20:]), folds, (0.1,)).r2 <= 0
    assert math.isnan(predict((x[:20], equal[:20]), (x[20:], equal[20:]), folds, (0.1,)).r2)


def test_wrong_input_is_refused() -> None:
    x, y = planted(20, 5, 1.0)
    with pytest.raises(ValueError, match="features are constant: all 20 rows are equal"):
        spectrum(np.full((20, 5), 0.1, np.float32))
    with pytest.raises(ValueError, match="sets have 20 and 19 rows"):
        regression(x, y[:19])
    for wrong in ((), (0.0,), (1.0, -1.0), (math.inf,)):
        with pytest.raises(ValueError, match="each must be above 0 and finite"):
            cross_validated(x, y, np.arange(20) % 5, wrong)
    with pytest.raises(ValueError, match="20 rows are of 1 fold"):
        cross_validated(x, y, np.zeros(20, np.int64), (1.0,))
