"""Affinities and their scale, against the published example and dense definitions."""

import json

import numpy as np
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from diffalign.shared_space.affinity import rbf_affinity, scale, squared_distances, total_variance

Array = np.ndarray


def published() -> dict[str, Array]:
    with np.load(golden("rbf_toy.npz")) as file:
        return {name: file[name] for name in file.files}


def mean_affinity(x: Array, landmarks: Array, gamma: float) -> float:
    squares = cdist(x.astype(np.float64), landmarks.astype(np.float64), "sqeuclidean")
    return float(np.exp(-squares / (2 * gamma * x.astype(np.float64).var(axis=0, ddof=1).sum())).mean())


@pytest.mark.parametrize(
    ("name", "of", "gamma"),
    [
        ("affinity_X_gamma1", "X", 1.0),
        ("affinity_Y_gamma1", "Y_isotropic", 1.0),
        ("affinity_X_auto", "X", "set1"),
        ("affinity_Yo_auto", "Y_outliers", "set2_outliers"),
    ],
)
def test_published_affinities(name: str, of: str, gamma: float | str) -> None:
    arrays = published()
    value = json.loads(golden("rbf_toy.json").read_text())["grid_search"][gamma] if isinstance(gamma, str) else gamma
    x = arrays[of]
    made = rbf_affinity(x, x, value, total_variance(x))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, arrays[name], rtol=0, atol=5e-5)


def test_published_scales() -> None:
    arrays = published()
    for name, gamma in (("X", 0.1861), ("Y_outliers", 0.0125)):
        assert scale(arrays[name], arrays[name], 0.3) == pytest.approx(gamma, abs=5e-4), name


def test_distances_and_variance_are_those_of_the_definition() -> None:
    draws = np.random.default_rng(0)
    # far from the origin, where squared norms swallow distances
    x, y = (draws.standard_normal((n, 7)) + 1e4 for n in (23, 11))
    np.testing.assert_allclose(squared_distances(x, y).numpy(), cdist(x, y, "sqeuclidean"), rtol=1e-7)
    assert total_variance(x) == pytest.approx(np.cov(x.T).trace(), rel=1e-9)
    assert (squared_distances(x, x).numpy().diagonal() == 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("c", [0.05, 0.3, 0.9])
def test_the_mean_affinity_at_the_scale_is_c(kind: type, c: float) -> None:
    x = np.random.default_rng(1).standard_normal((60, 5)).astype(kind)
    assert mean_affinity(x, x[::7], scale(x, x[::7], c)) == pytest.approx(c, rel=1e-5)


def test_outliers_far_away_leave_a_scale() -> None:
    x = np.random.default_rng(2).standard_normal((400, 8))
    x[:2] *= 1e5
    assert mean_affinity(x, x, scale(x, x, 0.05)) == pytest.approx(0.05, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    shift=st.floats(-100, 100),
    factor=st.floats(1e-3, 1e3),
    c=st.floats(0.1, 0.9),
)
def test_shift_rotation_and_isotropic_scale_change_nothing(seed: int, shift: float, factor: float, c: float) -> None:
    draws = np.random.default_rng(seed)
    x = draws.standard_normal((20, 4)) * draws.uniform(0.1, 3, 4)
    rotation, _ = np.linalg.qr(draws.standard_normal((4, 4)))
    y = factor * (x @ rotation + shift)
    gamma = scale(x, x[:7], c)
    assert scale(y, y[:7], c) == pytest.approx(gamma, rel=1e-6)
    np.testing.assert_allclose(
        rbf_affinity(y, y[:7], gamma, total_variance(y)), rbf_affinity(x, x[:7], gamma, total_variance(x)), atol=1e-8
    )
    # but an anisotropic scale does
    z = x * [100, 1, 1, 1]
    assert np.abs(rbf_affinity(z, z, 1, total_variance(z)) - rbf_affinity(x, x, 1, total_variance(x))).max() > 1e-3


def test_a_scale_is_the_same_kept_or_computed_anew() -> None:
    x = np.random.default_rng(3).standard_normal((3000, 16)).astype(np.float32)
    landmarks = x[:200]
    # 2.4 MB of distances
    assert scale(x, landmarks, 0.2, memory_mb=1) == pytest.approx(scale(x, landmarks, 0.2, memory_mb=64), rel=1e-6)


def test_equal_rows_narrow_what_c_can_be() -> None:
    x = np.repeat(np.random.default_rng(4).standard_normal((5, 3)), 2, axis=0)
    # each of ten rows equals two
    with pytest.raises(ValueError, match=r"c = 0.2: .* between 0.2, .* and 1, both excluded"):
        scale(x, x, 0.2)
    assert mean_affinity(x, x, scale(x, x, 0.21)) == pytest.approx(0.21, rel=1e-6)


@pytest.mark.parametrize("c", [1 / 30, 0.02, 0.0, -1.0, 1.0, 1.5, float("nan")])
def test_a_mean_that_no_scale_reaches_is_refused(c: float) -> None:
    x = published()["X"]
    with pytest.raises(ValueError, match=r"a mean between 0.03333"):
        scale(x, x, c)


def test_bad_features_are_refused() -> None:
    x = np.random.default_rng(5).standard_normal((12, 3))
    constant = np.full((12, 3), 0.1)
    with pytest.raises(ValueError, match="features are constant: all 12 rows"):
        scale(constant, constant[:4], 0.3)
    bad = x.copy()
    bad[[2, 7], 1] = np.nan, np.inf
    for call in (lambda: total_variance(bad), lambda: scale(bad, x, 0.3), lambda: rbf_affinity(bad, x, 1, 1)):
        with pytest.raises(ValueError, match="features are NaN or infinite in row 2, row 7"):
            call()
    with pytest.raises(ValueError, match="the others are NaN or infinite in row 2, row 7"):
        rbf_affinity(x, bad, 1, 1)
    with pytest.raises(ValueError, match="3 columns and the others 2"):
        rbf_affinity(x, x[:, :2], 1, 1)
    with pytest.raises(ValueError, match="gamma = 0 and variance = 1"):
        rbf_affinity(x, x, 0, 1)
    with pytest.raises(ValueError, match="float16; allowed: float32, float64"):
        total_variance(x.astype(np.float16))
    with pytest.raises(ValueError, match="at least 2 rows"):
        total_variance(x[:1])
