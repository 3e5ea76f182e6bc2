import itertools
import math
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search import bounds, exact, numpy_products, torch_products
from diffalign.alignment.search.exact import Neighbors, Ties, nearest_neighbors
from diffalign.alignment.ties import joined
from diffalign.devices import choose_device

RNG = np.random.default_rng(0)
EPS = np.finfo(np.float64).eps


def names(count: int) -> list[str]:
    return [f"image{i}" for i in range(count)]


def all_similarities(rows: np.ndarray) -> np.ndarray:
    """Cosine similarities (N, N) in float64, -inf on the diagonal; equal pairs of rows have equal ones."""
    double = rows.astype(np.float64)
    # no BLAS, whose order of sums depends on where a row lies
    similarity = np.stack([(row * double).sum(axis=1) for row in double])
    np.fill_diagonal(similarity, -np.inf)
    return similarity


def collinear_size(rows: np.ndarray) -> float:
    """The median distance of rows from their mean where they are nearly collinear, else 0."""
    double = rows.astype(np.float64)
    mean = double.mean(axis=0)
    return float(np.median(np.linalg.norm(double - mean, axis=1))) if 1 - mean @ mean < bounds.COLLINEAR else 0.0


def closeness(rows: np.ndarray) -> np.ndarray:
    """Minus half of the squared distances (N, N) in float64, -inf on the diagonal."""
    double = rows.astype(np.float64)
    close = -np.stack([np.square(row - double).sum(axis=1) for row in double]) / 2
    np.fill_diagonal(close, -np.inf)
    return close


def check_brute_force(lists: Neighbors, rows: np.ndarray, k: int) -> None:
    """The lists are those of all similarities in float64, sorted by (-similarity, index); within 2**-40 they are ties.

    Processors sum in different orders, so a similarity may be rounded to either of two steps of 2**-40: neighbours
    whose similarities differ by less than a step may stand in either order, equal rows may not.
    """
    similarity, tolerance = all_similarities(rows), bounds.QUANTUM + rows.shape[1] * EPS
    size = collinear_size(rows)
    if size:
        similarity = closeness(rows) / size**2
    places = np.broadcast_to(np.arange(len(rows)), similarity.shape)
    expected = np.lexsort((places, -(similarity * 2**40).round()), axis=1)[:, :k]
    known, measured = (np.take_along_axis(similarity, indices, 1) for indices in (expected, lists.indices))
    moved = lists.indices != expected
    assert (np.abs(measured - known)[moved] <= tolerance).all()
    check_equal_rows(lists.indices, rows)
    check_ties(lists, similarity)
    if size:
        measured = 1 + size**2 * measured
    np.testing.assert_allclose(lists.similarities, measured, rtol=0, atol=np.finfo(np.float32).eps)


def check_ties(lists: Neighbors, similarity: np.ndarray) -> None:
    """Ties differ by no more than 2**-40, and similarities that are equal to the bit are ties."""
    rows, k = np.arange(lists.count), lists.k_max
    ties = lists.ties or Ties(np.zeros((len(rows), k), bool), *[np.zeros(len(rows), np.int32)] * 3)
    starts = np.cumsum(ties.counts) - ties.counts
    slack = EPS * 1000
    for row in rows:
        further = ties.rest[starts[row] : starts[row] + ties.counts[row]]
        listed = lists.indices[row]
        assert (np.diff(further) > 0).all()
        assert not {*further.tolist()} & {*listed.tolist(), row}
        of_list = similarity[row, listed]
        apart = np.abs(np.diff(of_list, prepend=np.inf))
        assert (apart[ties.tied[row]] <= bounds.QUANTUM + slack).all()
        assert (np.abs(similarity[row, further] - of_list[-1]) <= bounds.QUANTUM + slack).all()
        left = np.setdiff1d(rows, [*listed, *further, row])
        assert not (similarity[row, left] == of_list[-1]).any()
        assert ties.tied[row][apart == 0].all()


def check_equal_rows(indices: np.ndarray, rows: np.ndarray) -> None:
    """Of equal rows, those with the smallest indices are listed, in order, and no row lists itself or another twice."""
    group = np.unique(rows, axis=0, return_inverse=True)[1].ravel().tolist()
    members: dict[int, list[int]] = defaultdict(list)
    for place, of in enumerate(group):
        members[of].append(place)
    for row, neighbors in enumerate(indices.tolist()):
        listed: dict[int, list[int]] = defaultdict(list)
        for neighbor in neighbors:
            listed[group[neighbor]].append(neighbor)
        for of, places in listed.items():
            assert places == [place for place in members[of] if place != row][: len(places)]


@pytest.mark.parametrize(("count", "width", "k"), [(50, 8, 10), (300, 64, 100), (40, 3, 39), (200, 1, 5), (5, 2, 1)])
def test_lists_equal_brute_force(count: int, width: int, k: int) -> None:
    rows = unit_rows(RNG.standard_normal((count, width)).astype(np.float32), names(count))
    lists = nearest_neighbors(rows, k)
    check_brute_force(lists, rows, k)
    assert lists.indices.dtype == np.int32
    assert lists.similarities.dtype == np.float32


def test_planted_ties_go_to_the_smaller_index() -> None:
    base = RNG.standard_normal((30, 16)).astype(np.float32)
    # every row five times, some scaled: their directions are equal
    features = np.concatenate([base, base, 2 * base, 0.5 * base, base])[RNG.permutation(150)]
    rows = unit_rows(features, names(150))
    lists = nearest_neighbors(rows, 20)
    check_brute_force(lists, rows, 20)
    assert not (lists.indices == np.arange(150)[:, None]).any()


def test_many_near_ties_at_the_cut_are_settled_in_double_precision() -> None:
    # similarities differ by some 1e-9: float32 products, good to 6e-8, cannot order them
    for width in (32, 300):
        near = np.repeat(RNG.standard_normal((40, width)), 10, axis=0) + 3e-5 * RNG.standard_normal((400, width))
        rows = unit_rows(near.astype(np.float32), names(400))
        assert not collinear_size(rows)
        check_brute_force(nearest_neighbors(rows, 7), rows, 7)


@pytest.mark.parametrize("offset", [40, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("along", ["the diagonal", "any direction"])
def test_a_common_offset_hides_no_neighbour(offset: float, along: str) -> None:
    """Cosines of nearly collinear rows differ by less than norms are rounded by; distances keep their order."""
    random = np.random.default_rng(1)
    direction = np.ones(24) if along == "the diagonal" else random.standard_normal(24)
    features = (random.standard_normal((400, 24)) + offset * direction).astype(np.float32)
    exactly = features.astype(np.longdouble)
    units = exactly / np.sqrt(np.square(exactly).sum(axis=1, keepdims=True))
    units -= units.mean(axis=0)
    apart = np.stack([np.square(row - units).sum(axis=1) for row in units])
    np.fill_diagonal(apart, np.inf)
    wanted = np.argsort(apart, axis=1)[:, :10]
    found = nearest_neighbors(unit_rows(features, names(400)), 10).indices
    shared = np.mean([len({*x} & {*y}) / 10 for x, y in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert shared > (0.99 if offset == 1e5 else 0.998)


def test_rows_far_from_nearly_collinear_ones_hide_no_neighbour() -> None:
    """One image in 4000 is unlike all others, which are nearly collinear."""
    random = np.random.default_rng(2)
    features = random.standard_normal((4000, 12)) + 2e3
    features[5] = random.standard_normal(12)
    rows = unit_rows(features.astype(np.float32), names(4000))
    assert collinear_size(rows)
    some = range(100)
    lists = nearest_neighbors(rows, 5, some)
    close = closeness(rows)[:100]
    found, best = np.take_along_axis(close, lists.indices, 1), -np.sort(-close, axis=1)[:, :5]
    of_others = np.arange(100) != 5
    np.testing.assert_allclose(found[of_others], best[of_others], rtol=0, atol=1e-5 * collinear_size(rows) ** 2)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("count", [90, 400])
def test_ties_of_nearly_collinear_rows_are_found(count: int, device: str | None) -> None:
    """Classes of images far from the origin: those of a class are equal, and all classes are as far from each other."""
    classes = np.random.default_rng(3).integers(0, 6, count)
    # equal to the bit: norms of all rows are the same sum
    double = np.full((count, 6), 256.0)
    double[np.arange(count), classes] += 1
    rows = (double / np.sqrt(np.square(double[0]).sum())).astype(np.float32)
    assert collinear_size(rows)
    lists = nearest_neighbors(rows, 20, device=device and choose_device(device))
    check_brute_force(lists, rows, 20)
    assert lists.ties is not None
    sizes = np.bincount(classes, minlength=6)[classes] - 1
    # a list that holds all of its class goes on with all others, which are at one distance
    assert (lists.ties.counts + 20 == np.where(sizes >= 20, sizes, count - 1)).all()
    far = nearest_neighbors(np.eye(6, dtype=np.float32)[classes], 20)
    assert far.ties is not None
    assert np.array_equal(lists.indices, far.indices)
    assert np.array_equal(lists.ties.tied, far.ties.tied)
    assert np.array_equal(lists.ties.rest, far.ties.rest)


def ordinary() -> np.ndarray:
    return RNG.standard_normal((400, 24))


def tied() -> np.ndarray:
    """Every row ten times, some scaled: more equal directions than a list is long."""
    return np.repeat(RNG.standard_normal((40, 24)), 10, axis=0)[RNG.permutation(400)] * RNG.choice(
        [0.5, 1, 2], (400, 1)
    )


def crowded() -> np.ndarray:
    """Similarities that differ by some 1e-9: float32 products leave every row a candidate."""
    return 1 + 3e-5 * RNG.standard_normal((400, 24))


def collapsed() -> np.ndarray:
    """All rows are equal but for two."""
    features = np.ones((400, 24))
    features[[7, 300]] = RNG.standard_normal((2, 24))
    return features


def prepared(kind: Callable[[], np.ndarray]) -> np.ndarray:
    return unit_rows(kind().astype(np.float32), names(400))


def check_equal(a: Neighbors, b: Neighbors) -> None:
    assert np.array_equal(a.indices, b.indices)
    assert a.similarities.tobytes() == b.similarities.tobytes()
    assert (a.ties is None) == (b.ties is None)
    if a.ties is not None and b.ties is not None:
        for member in ("tied", "counts", "rest", "unlisted"):
            ours, theirs = getattr(a.ties, member), getattr(b.ties, member)
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs), member


KINDS = pytest.mark.parametrize("kind", [ordinary, tied, crowded, collapsed], ids=lambda kind: kind.__name__)
CPU = torch.device("cpu")


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with more than five candidates to spare are searched again with float64 products."""
    monkeypatch.setattr(exact, "CROWD", 5)


@KINDS
@pytest.mark.parametrize("device", [None, CPU], ids=["numpy", "torch"])
def test_every_back_end_equals_brute_force(kind: Callable, device: torch.device | None, few_candidates: None) -> None:
    rows = prepared(kind)
    check_brute_force(nearest_neighbors(rows, 9, device=device), rows, 9)


@KINDS
@pytest.mark.parametrize("k", [1, 3, 60, 399])
def test_torch_and_numpy_agree_to_the_bit(kind: Callable, k: int, few_candidates: None) -> None:
    rows = prepared(kind)
    check_equal(nearest_neighbors(rows, k, device=CPU), nearest_neighbors(rows, k))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@KINDS
def test_a_gpu_and_numpy_agree_to_the_bit(kind: Callable, few_candidates: None) -> None:
    rows = prepared(kind)
    check_equal(nearest_neighbors(rows, 12, device=choose_device("cuda")), nearest_neighbors(rows, 12))


@KINDS
def test_lists_do_not_depend_on_blocks_chunks_and_threads(
    kind: Callable, few_candidates: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = prepared(kind)
    whole = nearest_neighbors(rows, 12, threads=3)
    monkeypatch.setattr(exact, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(numpy_products, "_SYMMETRIC_ROWS", 13)
    monkeypatch.setattr(exact, "_CHUNK_BYTES", 1)
    for products in (numpy_products, torch_products):
        monkeypatch.setattr(products, "column_step", lambda width, budget: 33)
    for device in (None, CPU):
        check_equal(nearest_neighbors(rows, 12, memory_mb=1, device=device), whole)
    with threadpool_limits(1):
        check_equal(nearest_neighbors(rows, 12), whole)


@KINDS
@pytest.mark.parametrize("device", [None, CPU], ids=["numpy", "torch"])
def test_lists_of_parts_are_the_lists_of_all(kind: Callable, device: torch.device | None, few_candidates: None) -> None:
    rows = prepared(kind)
    edges = [0, 1, 133, 133, 399, 400]
    parts = [nearest_neighbors(rows, 12, range(a, b), device=device) for a, b in itertools.pairwise(edges)]
    assert [part.count for part in parts] == [1, 132, 0, 266, 1]
    check_equal(joined(parts), nearest_neighbors(rows, 12))


@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.integers(1, 12), st.sampled_from([1e-6, 1e-3, 1.0]))
@settings(max_examples=60, deadline=None)
def test_any_rows_have_the_lists_of_brute_force(seed: int, count: int, width: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    # a coarse grid of few values has ties of all kinds
    features = 1 + spread * random.integers(-2, 3, (count, width)).astype(np.float32)
    features[(features == 0).all(axis=1)] = 1
    rows = unit_rows(features, names(count))
    k = int(random.integers(1, count))
    lists = nearest_neighbors(rows, k)
    check_brute_force(lists, rows, k)
    check_equal(nearest_neighbors(rows, k, device=CPU), lists)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_products_are_off_by_less_than_the_bound(precision: bounds.Precision) -> None:
    rows = unit_rows(1 + RNG.standard_normal((60, 3000)).astype(np.float32), names(60))
    exact = np.array([[math.fsum(a * b) for b in rows.astype(np.float64)] for a in rows.astype(np.float64)])
    # the worst order of sums: one after the other
    typed = rows.astype(precision)
    products = np.cumsum(typed[:, None] * typed[None], axis=2)[..., -1]
    assert 0 < np.abs(products - exact).max() < bounds.candidate_slack(3000, precision) / 2


def test_products_of_less_than_float32_are_refused() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ValueError, match="'highest', not at 'high'"):
            nearest_neighbors(np.eye(10, dtype=np.float32), 2, device=CPU)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": range(3, 11)}, r"queries range\(3, 11\) are no part of the 10 rows"),
        ({"queries": range(0, 10, 2)}, r"queries range\(0, 10, 2\)"),
        ({"memory_mb": 0}, "memory_mb = 0; at least 1"),
    ],
)
def test_what_cannot_be_searched_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(np.eye(10, dtype=np.float32), 2, **arguments)


def test_rows_must_be_of_unit_norm() -> None:
    rows = np.eye(10, dtype=np.float32)
    rows[4:6] *= 2
    with pytest.raises(ValueError, match="2 of 10 rows are not of unit norm, the first is row 4"):
        nearest_neighbors(rows, 2)


def test_memory_stays_within_the_budget() -> None:
    """Beyond the rows, at 20,000 x 32: a part of 2,000 rows, crowded and not; 40 MB for what is not in blocks."""
    code = """
import resource, sys
import numpy as np
from diffalign.alignment.search.exact import nearest_neighbors
rows = np.random.default_rng(0).standard_normal((20_000, 32), dtype=np.float32) * np.float32(sys.argv[1]) + 1
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
nearest_neighbors(rows[:300], 10, threads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
nearest_neighbors(rows, 10, range(2000), memory_mb=int(sys.argv[2]), threads=2)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    # at once, 2,000 rows would take 160 MB of float32 products, or 320 MB of float64 ones
    for spread in ("1", "1e-4"):
        command = [sys.executable, "-c", code, spread, "40"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow_scripts")}
        grown = int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
        assert grown * 1024 < 80 * 10**6, spread


@pytest.mark.parametrize("k", [0, 10, 11])
def test_k_must_fit(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} neighbours need"):
        nearest_neighbors(np.eye(10, dtype=np.float32), k)
