"""Normalized cuts: exact, extended from landmarks, and beside ncut-pytorch."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffalign.shared_space.affinity import rbf_affinity, scale, total_variance
from diffalign.shared_space.landmarks import choose
from diffalign.shared_space.ncut import exact, ncut, nystrom, subspace_angle

Features = NDArray[np.float32]


def clusters(nodes: int, count: int = 12, seed: int = 0) -> tuple[Features, NDArray[np.int64]]:
    draws = np.random.default_rng(seed)
    of = draws.integers(0, count, nodes)
    centres = draws.standard_normal((count, 64)) * 2
    return (centres[of] + draws.standard_normal((nodes, 64))).astype(np.float32), of


def farthest(x: Features, count: int) -> NDArray[np.int64]:
    return choose(x, count, "farthest", 0, [f"{row:05d}" for row in range(len(x))])


def width(x: Features, c: float = 0.1) -> tuple[float, float]:
    return scale(x, x[::4], c), total_variance(x)


@pytest.mark.parametrize("nodes", [300, 1500])
def test_eigenvectors_solve_the_problem_of_their_definition(nodes: int) -> None:
    x, _ = clusters(nodes)
    gamma, variance = width(x)
    found = exact(x, 6, gamma, variance, seed=0)
    affinity = rbf_affinity(x.astype(np.float64), x.astype(np.float64), gamma, variance)
    degrees = affinity.sum(axis=1)
    normalized = affinity / np.sqrt(degrees[:, None] * degrees)
    np.testing.assert_allclose(normalized @ found.vectors, found.vectors * found.values, atol=1e-9)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(6), atol=1e-9)
    # the first is the square root of the degrees, with eigenvalue 1, and the rest follow in order
    np.testing.assert_allclose(found.vectors[:, 0], np.sqrt(degrees / degrees.sum()), atol=1e-9)
    assert found.values[0] == pytest.approx(1)
    assert (np.diff(found.values) < 0).all()
    every = np.sort(np.linalg.eigvalsh(normalized))[::-1]
    np.testing.assert_allclose(found.values, every[:6], atol=1e-9)
    assert (np.power(found.vectors, 3).sum(axis=0) > 0).all()


def test_lanczos_and_the_full_solver_agree_whatever_the_seed_and_the_global_generator() -> None:
    x, _ = clusters(1500)
    gamma, variance = width(x)
    np.random.seed(1)  # noqa: NPY002
    first = exact(x, 8, gamma, variance, seed=0)
    np.random.seed(2)  # noqa: NPY002
    again, other = exact(x, 8, gamma, variance, seed=0), exact(x, 8, gamma, variance, seed=5)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    np.testing.assert_allclose(first.vectors, other.vectors, atol=1e-8)
    full = exact(x, 400, gamma, variance, seed=0)
    np.testing.assert_allclose(full.vectors[:, :8], first.vectors, atol=1e-8)


def test_the_order_of_nodes_does_not_matter() -> None:
    x, _ = clusters(400)
    gamma, variance = width(x)
    order = np.random.default_rng(0).permutation(400)
    found, shuffled = exact(x, 5, gamma, variance, 0), exact(x[order], 5, gamma, variance, 0)
    np.testing.assert_allclose(shuffled.vectors, found.vectors[order], atol=1e-9)


def test_coordinates_of_separate_clusters_are_orthogonal_directions() -> None:
    x, of = clusters(300, count=4)
    gamma, variance = width(4 * x, c=0.02)
    rows = exact(4 * x, 4, gamma, variance, 0).coordinates()
    np.testing.assert_allclose(np.square(rows).sum(axis=1), 1, rtol=1e-5)
    same = of[:, None] == of[None, :]
    products = rows @ rows.T
    assert products[same].min() > 0.9
    assert abs(products[~same]).max() < 0.4


def test_exact_agrees_with_ncut_pytorch() -> None:
    from ncut_pytorch.ncuts.ncut_nystrom import ncut_fn

    x, _ = clusters(600)
    gamma, variance = width(x)
    # it decomposes exactly where a gradient is asked for, and by a randomised SVD else
    theirs, values = ncut_fn(
        torch.tensor(x, requires_grad=True),
        10,
        sigma=float(np.sqrt(gamma * variance)),
        exact_gradient=True,
        device="cpu",
    )
    ours = exact(x, 10, gamma, variance, 0)
    assert subspace_angle(ours.vectors, theirs.detach().numpy()) < 0.01
    np.testing.assert_allclose(ours.values, values.detach().numpy(), atol=1e-5)


def test_nystrom_agrees_with_exact_on_4000_nodes_and_propagation_does_not() -> None:
    from ncut_pytorch.ncuts.ncut_nystrom import nystrom_propagate

    x, _ = clusters(4000)
    rows = farthest(x, 512)
    gamma, variance = scale(x, x[rows], 0.1), total_variance(x)
    whole, extended = exact(x, 10, gamma, variance, 0), nystrom(x, rows, 10, gamma, variance)
    np.testing.assert_allclose(extended.vectors.T @ extended.vectors, np.eye(10), atol=1e-9)
    np.testing.assert_allclose(extended.values, whole.values, atol=0.01)
    angle = subspace_angle(whole.vectors, extended.vectors)
    of_landmarks = torch.tensor(exact(x[rows], 10, gamma, variance, 0).vectors, dtype=torch.float32)
    propagated = nystrom_propagate(of_landmarks, torch.tensor(x), torch.tensor(x[rows]), n_sample2=512, device="cpu")
    assert angle < 2
    # why it is not used here
    assert subspace_angle(whole.vectors, propagated.numpy()) > 10 * angle


def test_nystrom_with_all_nodes_as_landmarks_is_exact_and_does_not_depend_on_blocks() -> None:
    x, _ = clusters(300)
    gamma, variance = width(x)
    whole, extended = exact(x, 5, gamma, variance, 0), nystrom(x, np.arange(300), 5, gamma, variance)
    assert subspace_angle(whole.vectors, extended.vectors) < 0.01
    np.testing.assert_allclose(extended.values, whole.values, atol=1e-6)
    small = nystrom(x, farthest(x, 60), 5, gamma, variance, memory_mb=1)
    large = nystrom(x, farthest(x, 60), 5, gamma, variance, memory_mb=1024)
    np.testing.assert_allclose(small.vectors, large.vectors, atol=1e-7)


def test_the_number_of_nodes_chooses_the_solver() -> None:
    x, _ = clusters(200)
    gamma, variance = width(x)
    rows = farthest(x, 50)
    assert ncut(x, 4, gamma, variance, rows, 0).exact
    assert not ncut(x, 4, gamma, variance, rows, 0, exact_below=200).exact


def test_angles_of_known_subspaces() -> None:
    eye = np.eye(4)
    turned = eye[:, :2] @ np.array([[0.6, -0.8], [0.8, 0.6]])
    assert subspace_angle(eye[:, :2], turned) == pytest.approx(0, abs=1e-6)
    assert subspace_angle(eye[:, :2], eye[:, 1:3]) == pytest.approx(90)
    tilted = np.stack([eye[0], np.cos(0.3) * eye[1] + np.sin(0.3) * eye[2]], axis=1)
    assert subspace_angle(eye[:, :2], tilted) == pytest.approx(np.degrees(0.3))


def test_bad_input_is_refused_by_name() -> None:
    x, _ = clusters(50)
    with pytest.raises(ValueError, match="count of eigenvectors is 1; .* at least 2"):
        exact(x, 1, 1.0, 1.0, 0)
    with pytest.raises(ValueError, match="60 eigenvectors of 50 nodes"):
        exact(x, 60, 1.0, 1.0, 0)
    with pytest.raises(ValueError, match="6 eigenvectors of 5 landmarks"):
        nystrom(x, np.arange(5), 6, 1.0, 1.0)
    same = np.repeat(x[:2], 25, axis=0)
    with pytest.raises(ValueError, match=r"50 landmarks span \d dimensions, fewer than 20"):
        nystrom(same, np.arange(50), 20, 1.0, total_variance(same))
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="nodes are NaN or infinite in row 3"):
        exact(x, 3, 1.0, 1.0, 0)
