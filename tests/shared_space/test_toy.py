"""The cases of the didactic study, against the published sets."""

import numpy as np
import pytest
from conftest import golden
from scipy.special import erf

from diffalign.shared_space import toy
from diffalign.shared_space.affinity import total_variance
from diffalign.shared_space.pairing import pairing
from diffalign.shared_space.toy import ByAffinity


def ordered(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(points.T)]


def test_the_first_seed_is_the_published_set() -> None:
    with np.load(golden("rbf_toy.npz")) as file:
        arrays = {name: file[name] for name in file.files}
    for case, name in (("isotropic", "Y_isotropic"), ("anisotropic", "Y_anisotropic")):
        made = toy.toy(case, 0)
        assert np.array_equal(made.clusters, arrays["cluster"])
        # the published code leaves the order within a cluster to the processor
        for cluster in range(3):
            own = made.clusters == cluster
            np.testing.assert_allclose(ordered(made.x[own]), ordered(arrays["X"][own]), atol=1e-5)
            np.testing.assert_allclose(ordered(made.y[own]), ordered(arrays[name][own]), atol=1e-4)
    # and the second set is this function of the first
    np.testing.assert_allclose(toy.isotropic(arrays["X"], 0), arrays["Y_isotropic"], atol=1e-5)
    np.testing.assert_allclose(toy.with_outliers(arrays["X"], 0), arrays["Y_outliers"], atol=1e-5)
    np.testing.assert_allclose(toy.anisotropic(arrays["X"], 0), arrays["Y_anisotropic"], atol=1e-4)


def test_the_hard_scale_squeezes_one_axis() -> None:
    x, _ = toy.blobs(3)
    plain, squeezed = toy.isotropic(x, 3), toy.strongly_anisotropic(x, 3)
    np.testing.assert_allclose((squeezed - 10) * [1000, 1], 4 * (plain - 10), rtol=2e-2, atol=2e-2)


def test_a_network_is_linear_layers_with_gelu_between() -> None:
    x, _ = toy.blobs(1)
    # one layer is an affine map of z-scored points
    made = toy.network(x, 5, 1).astype(np.float64)
    design = np.column_stack([x, np.ones(30)])
    residual = made - design @ np.linalg.lstsq(design, made, rcond=None)[0]
    assert np.abs(residual).max() < 1e-5
    hidden = (x.astype(np.float64) - x.mean(0, dtype=np.float64)) / x.std(0, ddof=1, dtype=np.float64)
    for at, (inputs, outputs) in enumerate([(2, 8), (8, 2)]):
        bound = inputs**-0.5
        drawn = toy.keyed(5, "toy network of 2", str(at)).uniform(-bound, bound, (inputs + 1, outputs))
        hidden = (hidden * (1 + erf(hidden / 2**0.5)) / 2 if at else hidden) @ drawn[:-1] + drawn[-1]
    np.testing.assert_allclose(toy.network(x, 5, 2), hidden, atol=1e-6)
    assert np.abs(toy.network(x, 6, 2) - hidden).max() > 0.01


def test_merging_is_of_the_two_clusters_that_are_closest() -> None:
    clusters = np.repeat([0, 1, 2], 4)
    affinity = np.kron(np.array([[1, 0.7, 0.1], [0.7, 1, 0], [0.1, 0, 0.8]]), np.ones((4, 4)))
    assert toy.merging(np.tile(affinity, (2, 2)), clusters) == pytest.approx(0.7 / 0.8)
    same = np.full((12, 3), 2.0)
    assert toy.merging(toy.stacked_affinity(same, same), clusters) == 1


def test_last_landmarks_merge_clusters_that_all_points_tell_apart() -> None:
    of = toy.toy("isotropic", 0)
    merged = {}
    for name in ("all", "last", "farthest", "kmeans"):
        aligned = ByAffinity(None, name)(of, 0)
        merged[name] = toy.merging(toy.stacked_affinity(aligned.x_new, aligned.y_new), of.clusters)
    assert merged["last"] > 0.95
    assert max(merged[name] for name in ("all", "farthest", "kmeans")) < 0.75


def test_float32_distances_lose_a_set_that_is_tiny_beside_its_place() -> None:
    shares = {}
    for cdist in (False, True):
        found = []
        for seed in range(3):
            of = toy.toy("network_12", seed)
            aligned = ByAffinity(0.3, cdist=cdist)(of, seed)
            found.append(pairing(aligned.x_new, aligned.y_new, of.clusters).own_cluster or 0)
        shares[cdist] = float(np.mean(found))
    assert shares[False] > 0.8
    assert shares[True] < 0.5
    # where nothing is lost, both are the same
    x, _ = toy.blobs(0)
    variance = total_variance(x)
    np.testing.assert_allclose(
        toy.affinity_by_cdist(x, x, 0.2, variance), toy.rbf_affinity(x, x, 0.2, variance), atol=5e-5
    )


def test_an_unknown_case_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown case 'linear'; allowed: isotropic, outliers"):
        toy.toy("linear", 0)
