import numpy as np
import pytest

from diffalign.alignment import neighbors as module
from diffalign.alignment.neighbors import nearest_neighbors
from diffalign.alignment.preparation import FeatureError, clamped, unit_rows

RNG = np.random.default_rng(0)


def names(count: int) -> list[str]:
    return [f"image{i}" for i in range(count)]


def brute_force(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """All similarities in float64, sorted by (-similarity, index); within 2**-40 they are ties."""
    double = rows.astype(np.float64)
    count = len(rows)
    similarity = np.array([[float(double[i] @ double[j]) for j in range(count)] for i in range(count)])
    np.fill_diagonal(similarity, -np.inf)
    order = np.lexsort((np.broadcast_to(np.arange(count), similarity.shape), -(similarity * 2**40).round()), axis=1)[
        :, :k
    ]
    return order, np.take_along_axis(similarity, order, 1)


@pytest.mark.parametrize(("count", "width", "k"), [(50, 8, 10), (300, 64, 100), (40, 3, 39), (200, 1, 5), (5, 2, 1)])
def test_lists_equal_brute_force(count: int, width: int, k: int) -> None:
    rows = unit_rows(RNG.standard_normal((count, width)).astype(np.float32), names(count))
    found = nearest_neighbors(rows, k)
    indices, similarities = brute_force(rows, k)
    assert np.array_equal(found.indices, indices)
    assert np.allclose(found.similarities, similarities, atol=1e-7)
    assert found.indices.dtype == np.int32
    assert found.similarities.dtype == np.float32


def test_planted_ties_go_to_the_smaller_index() -> None:
    base = RNG.standard_normal((30, 16)).astype(np.float32)
    # every row five times, some scaled: their directions are equal
    features = np.concatenate([base, base, 2 * base, 0.5 * base, base])[RNG.permutation(150)]
    rows = unit_rows(features, names(150))
    found = nearest_neighbors(rows, 20)
    indices, _ = brute_force(rows, 20)
    assert np.array_equal(found.indices, indices)
    assert not (found.indices == np.arange(150)[:, None]).any()


def test_many_near_ties_at_the_cut_are_settled_in_double_precision() -> None:
    # similarities differ by some 1e-9: float32 products, good to 6e-8, cannot order them
    rows = unit_rows(1 + 3e-5 * RNG.standard_normal((400, 32)).astype(np.float32), names(400))
    found = nearest_neighbors(rows, 7)
    assert np.array_equal(found.indices, brute_force(rows, 7)[0])


def test_lists_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(RNG.standard_normal((333, 24)).astype(np.float32), names(333))
    whole = nearest_neighbors(rows, 12)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    single = nearest_neighbors(rows, 12)
    assert np.array_equal(whole.indices, single.indices)
    assert np.array_equal(whole.similarities, single.similarities)


@pytest.mark.parametrize("k", [0, 10, 11])
def test_k_must_fit(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} neighbours need"):
        nearest_neighbors(np.eye(10, dtype=np.float32), k)


def test_clamping_takes_the_exact_quantile_of_the_whole_tensor() -> None:
    features = RNG.standard_normal((100, 20)).astype(np.float32)
    bound = np.sort(np.abs(features).ravel())[int(0.95 * features.size)]
    result = clamped(features, 0.95)
    assert np.abs(result).max() == bound
    inside = np.abs(features) <= bound
    assert np.array_equal(result[inside], features[inside])
    assert np.array_equal(clamped(features, 1.0), features)


def test_preparation() -> None:
    features = RNG.standard_normal((100, 20)).astype(np.float32) + 5
    rows = unit_rows(features, names(100))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    centred = unit_rows(features, names(100), center=True)
    expected = features.astype(np.float64) - features.astype(np.float64).mean(0)
    assert np.allclose(centred, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert np.allclose(unit_rows(features.astype(np.float64), names(100)), rows, atol=1e-6)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0, "zero norm")]
)
def test_rows_without_direction_are_named(value: float, message: str) -> None:
    features = np.ones((9, 4), np.float32)
    features[2:9] = value
    with pytest.raises(
        FeatureError, match=f"7 of 9 images have .*{message}.*first: image2, image3, image4, image5, image6 …$"
    ):
        unit_rows(features, names(9))
