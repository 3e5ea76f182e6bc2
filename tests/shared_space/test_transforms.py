"""Every method by its name: what it does on sets whose relation is known, its file, and the order of rows."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ortho_group

from diffalign.io.headers import StoreError
from diffalign.io.shared_transform_files import read_shared_transform, write_shared_transform
from diffalign.shared_space import transforms
from diffalign.shared_space.half_shared import HalfShared
from diffalign.shared_space.linear_maps import fit_padded
from diffalign.shared_space.pairing import pairing
from diffalign.shared_space.predictivity import cross_validated
from diffalign.shared_space.transforms import METHODS, Pair, Settings, fit, is_held_out, run_name, select

NAMES = tuple(f"image_{number:03d}" for number in range(80))
LABELS = tuple("abc"[number % 3] for number in range(80))
PLAIN: dict[str, Any] = {
    "methods": list(METHODS),
    "landmarks": 12,
    "choice": "farthest",
    "c": 0.1,
    "held_out": 0.5,
    "components": [2, 4],
    "penalties": [1e-6, 0.1],
    "half_shared": {"steps": 20},
    "seeds": [0, 1],
    "permutations": 19,
    "bootstrap": 100,
    "seed": 0,
    "k": 5,
}
SETTINGS = Settings.of(PLAIN)


def sets(count: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A set, and the same rotated, scaled and shifted."""
    draws = np.random.default_rng(seed)
    x = draws.standard_normal((count, 6)) * np.geomspace(2, 0.5, 6)
    return x.astype(np.float32), (0.25 * x @ ortho_group.rvs(6, random_state=seed) + 10).astype(np.float32)


@pytest.mark.parametrize("method", ["rbf", "procrustes", "cca", "ridge", "relative"])
def test_what_is_rotated_scaled_and_shifted_is_found_again_on_held_out_rows(method: str) -> None:
    x, y = sets()
    pair = fit(method, x[:40], y[:40], NAMES[:40], None, SETTINGS, 0)
    a, b = pair.first.apply(x[40:]), pair.second.apply(y[40:])
    assert pairing(a, b).own_index == 1
    if method == "rbf":
        assert np.abs(a - b).max() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_changes_no_bit(method: str) -> None:
    x, y = sets()
    order = np.random.default_rng(1).permutation(40)
    straight = fit(method, x[:40], y[:40], NAMES[:40], LABELS[:40], SETTINGS, 0)
    moved = fit(method, x[order], y[order], [NAMES[i] for i in order], [LABELS[i] for i in order], SETTINGS, 0)
    for rows, one, other in ((x, straight.first, moved.first), (y, straight.second, moved.second)):
        assert np.array_equal(one.apply(rows), other.apply(rows))
    assert straight.chosen == moved.chosen


@pytest.mark.parametrize("method", METHODS)
def test_a_file_gives_the_same_transform_to_the_bit(method: str, tmp_path: Path) -> None:
    x, y = sets()
    pair = fit(method, x[:40], y[:40], NAMES[:40], LABELS[:40], SETTINGS, 0)
    path = tmp_path / "made.safetensors"
    write_shared_transform(path, method, 3 if method == "half_shared" else None, NAMES[:40], pair)
    read = read_shared_transform(path)
    assert (read.method, read.names, read.pair.chosen) == (method, NAMES[:40], dict(pair.chosen))
    assert read.seed == (3 if method == "half_shared" else None)
    for rows, before, after in ((x, pair.first, read.pair.first), (y, pair.second, read.pair.second)):
        assert type(before) is type(after)
        assert np.array_equal(before.apply(rows), after.apply(rows))
        for field in dataclasses.fields(before):  # type: ignore[arg-type]
            assert type(getattr(before, field.name)) is type(getattr(after, field.name))


def test_a_seed_is_that_of_a_training() -> None:
    x, y = sets()
    same, other = (fit("half_shared", x, y, NAMES, None, SETTINGS, seed).first.apply(x) for seed in (1, 2))
    assert np.array_equal(same, fit("half_shared", x, y, NAMES, None, SETTINGS, 1).first.apply(x))
    assert not np.array_equal(same, other)
    assert SETTINGS.runs == [
        ("padded", None),
        ("rbf", None),
        ("half_shared", 0),
        ("half_shared", 1),
        *((method, None) for method in ("procrustes", "cca", "ridge", "relative")),
    ]
    assert [run_name(*run) for run in SETTINGS.runs][1:3] == ["rbf", "half_shared_0"]


def test_folds_choose_what_pairs_images_they_have_not_seen() -> None:
    draws = np.random.default_rng(0)
    z = draws.standard_normal((200, 4))
    names = [f"{number:03d}" for number in range(200)]
    # each view has what both share in directions of little variance
    x, y = (
        np.concatenate([z + 0.02 * draws.standard_normal(z.shape), 6 * draws.standard_normal((200, 3))], axis=1).astype(
            np.float32
        )
        for _ in "xy"
    )
    settings = dataclasses.replace(SETTINGS, components=(1, 4, 7), penalties=(1e-4, 1e3))
    found = select(x, y, names, settings)
    assert (found.best, found.components, found.ridge, found.penalty) == ("cca", 4, 1e-4, 1e-4)
    assert found.own_index["cca"] > 0.9 > found.own_index["procrustes"]
    assert set(found.own_index) == {"procrustes", "cca", "ridge"}
    only = dataclasses.replace(settings, methods=("padded", "procrustes"))
    assert select(x, y, names, only).best == "procrustes"
    # where all pair everything, the first
    same = select(*sets(), NAMES, SETTINGS)
    assert (same.best, same.own_index["procrustes"]) == ("procrustes", 1)


def test_the_split_depends_on_names_alone() -> None:
    held = is_held_out(NAMES, 0.5, 0)
    assert 25 < held.sum() < 55
    assert np.array_equal(held[::-1], is_held_out(NAMES[::-1], 0.5, 0))
    more = is_held_out(NAMES, 0.7, 0)
    assert (more >= held).all()
    assert more.sum() > held.sum()
    assert not np.array_equal(held, is_held_out(NAMES, 0.5, 1))
    with pytest.raises(ValueError, match=r"12 images are too few: \d+ are held out and \d+ are left"):
        is_held_out(NAMES[:12], 0.5, 0)


def test_groups_are_held_out_and_dealt_into_folds_as_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [f"photograph_{number // 8:02d}" for number in range(160)]
    names = [f"{group}_{number % 8}" for number, group in enumerate(groups)]
    held = is_held_out(groups, 0.5, 0)
    assert held.any()
    assert all(len(set(held[i : i + 8])) == 1 for i in range(0, 160, 8))
    assert (is_held_out(groups, 0.7, 0) >= held).all()
    with pytest.raises(ValueError, match=r"8 groups of images are too few: \d are held out and \d are left to fit; at"):
        is_held_out(groups[:64], 0.5, 0)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(transforms, "cross_validated", lambda x, y, folds, share: _noted(seen, x, y, folds, share))
    x, y = sets(160)
    order = np.random.default_rng(0).permutation(160)
    moved = [[words[i] for i in order] for words in (names, groups)]
    selection = select(x, y, names, SETTINGS, groups)
    assert select(x[order], y[order], moved[0], SETTINGS, moved[1]) == selection
    folds = seen[0].reshape(20, 8)
    assert (folds == folds[:, :1]).all()
    assert np.bincount(folds[:, 0]).tolist() == [4] * 5
    fit("ridge", x, y, names, None, SETTINGS, 0, groups=groups)
    assert all(np.array_equal(each, seen[0]) for each in seen)
    with pytest.raises(ValueError, match="4 groups of images to fit are too few; at least 5 are needed"):
        select(x[:32], y[:32], names[:32], SETTINGS, groups[:32])
    with pytest.raises(ValueError, match="159 groups for 160 images"):
        select(x, y, names, SETTINGS, groups[:159])


def _noted(seen: list[np.ndarray], *given: Any) -> np.ndarray:
    seen.append(given[2])
    return cross_validated(*given)


def test_wrong_input_is_refused_by_its_names() -> None:
    x, y = sets()
    with pytest.raises(ValueError, match="unknown method 'pca' of alignment; allowed: padded, rbf"):
        fit("pca", x, y, NAMES, None, SETTINGS, 0)
    with pytest.raises(ValueError, match="81 landmarks of 80 images to fit"):
        fit("rbf", x, y, NAMES, None, dataclasses.replace(SETTINGS, landmarks=81), 0)
    with pytest.raises(ValueError, match=r"features of the second set have shape \(79, 6\); expected \(80, D\)"):
        fit("padded", x, y[:79], NAMES, None, SETTINGS, 0)
    with pytest.raises(ValueError, match="names repeat: image_000"):
        fit("padded", x, y, (*NAMES[:79], NAMES[0]), None, SETTINGS, 0)
    with pytest.raises(ValueError, match="features of the first set are constant"):
        fit("cca", np.ones_like(x), y, NAMES, None, SETTINGS, 0)
    hole = y.copy()
    hole[[2, 5]] = np.nan
    with pytest.raises(ValueError, match="features of the second set are NaN or infinite for image_002, image_005"):
        fit("ridge", x, hole, NAMES, None, SETTINGS, 0)
    with pytest.raises(ValueError, match="3 labels for 80 images"):
        fit("half_shared", x, y, NAMES, ["a", "b", "c"], SETTINGS, 0)
    with pytest.raises(ValueError, match=r"components \[40\] are all more than the canonical variates of 80 images"):
        select(x, y, NAMES, dataclasses.replace(SETTINGS, components=(40,)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["rbf"]}, "'padded' is missing"),
        ({"methods": ["padded", "lda"]}, "unknown method 'lda'"),
        ({"methods": ["padded", "rbf", "rbf"]}, "methods repeat: rbf"),
        ({"choice": "first"}, "unknown choice of landmarks 'first'; allowed: farthest, kmeans, random"),
        ({"held_out": 1}, "held_out = 1: a share"),
        ({"components": []}, "each must be at least 1, and one is needed"),
        ({"penalties": [0]}, "each must be above 0"),
        ({"seeds": []}, "no seeds for half_shared"),
        ({"seeds": [1, 1]}, "seeds repeat: 1"),
        ({"landmarks": 1}, "landmarks = 1; at least 2"),
        ({"permutations": 18}, "permutations = 18; at least 19"),
        ({"bootstrap": 10}, "bootstrap = 10; at least 100"),
        ({"k": 0}, "k = 0; at least 1"),
    ],
)
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.of(PLAIN | change)


def test_settings_are_made_of_plain_values() -> None:
    assert SETTINGS.half_shared == HalfShared(steps=20)
    assert (SETTINGS.components, SETTINGS.seeds) == ((2, 4), (0, 1))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    x, y = sets()
    path = tmp_path / "made.safetensors"
    pair = Pair(*fit_padded(x, y))
    with pytest.raises(StoreError, match="1 names stand more than once, first: a"):
        write_shared_transform(path, "padded", None, ["a", "a"], pair)
    bad = dataclasses.replace(pair.first, scale=np.nan)  # type: ignore[type-var]
    with pytest.raises(StoreError, match="first/scale of the transform 'padded' is NaN or infinite"):
        write_shared_transform(path, "padded", None, ["a"], Pair(bad, pair.second))
    assert not path.exists()
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="made.safetensors: cannot be read as a file of transforms"):
        read_shared_transform(path)
    write_shared_transform(path, "padded", None, ["a"], pair)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\"first\\": \\"padded\\"', b'\\"first\\": \\"pudded\\"'))
    with pytest.raises(StoreError, match="unknown kind 'pudded' of the first transform; allowed: affine, padded"):
        read_shared_transform(path)
