"""Colours of nodes: one space for all of them, robust and without chance."""

import numpy as np
import pytest

from diffalign.shared_space.colors import rgb


def clusters(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    of = draws.integers(0, 4, 500)
    return np.eye(6)[of] + 0.02 * draws.standard_normal((500, 6)), of


def test_clusters_have_colours_of_their_own() -> None:
    x, of = clusters()
    found = rgb(x)
    assert found.shape == (500, 3)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() == 1
    means = np.stack([found[of == each].mean(axis=0) for each in range(4)])
    apart = np.linalg.norm(means[:, None] - means, axis=-1)[np.triu_indices(4, 1)]
    within = max(found[of == each].std(axis=0).max() for each in range(4))
    assert apart.min() > 0.5
    assert within < 0.1


def test_colours_do_not_depend_on_order_shift_scale_or_rotation() -> None:
    x, _ = clusters()
    order = np.random.default_rng(1).permutation(500)
    turn, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((6, 6)))
    found = rgb(x)
    np.testing.assert_allclose(rgb(x[order]), found[order], atol=1e-5)
    np.testing.assert_allclose(rgb(3 * x @ turn + 7), found, atol=1e-5)


def test_an_outlier_does_not_take_the_range() -> None:
    x, _ = clusters()
    found = rgb(x)
    x[0] = x[0] + 2
    assert np.abs(rgb(x)[1:] - found[1:]).mean() < 0.3
    assert rgb(x)[1:].std(axis=0).min() > 0.2


def test_components_beyond_the_rank_are_grey() -> None:
    line = np.linspace(0, 1, 100)[:, None] * np.array([1.0, 2.0])
    found = rgb(line)
    assert set(np.unique(found[:, 1:])) == {np.float32(0.5)}
    assert found[:, 0].std() > 0.2
    assert (rgb(np.ones((5, 3))) == 0.5).all()


def test_few_nodes_that_differ_are_seen() -> None:
    x = np.zeros((1000, 3))
    x[:5] = 1
    found = rgb(x)
    assert found[:5, 0].min() == 1
    assert found[5:, 0].max() == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="colours of 1 node"):
        rgb(np.ones((1, 3)))
    with pytest.raises(ValueError, match="coordinates are NaN or infinite in row 2"):
        rgb(np.array([[0.0], [1.0], [np.nan]]))
