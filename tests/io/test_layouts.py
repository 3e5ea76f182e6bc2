"""Files of other projects: what is read, what is refused and with which words, what is written."""

import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from safetensors.torch import save_file

from diffalign.io import feature_files
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError
from diffalign.io.latents import encode_names
from diffalign.io.layouts import latent_folders, platonic, row_names, thingsvision, vfmvae
from diffalign.io.layouts.feature_tables import LAYOUTS, Table, read_layers
from export_features import export_features

VALUES = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
STACK = np.random.default_rng(1).standard_normal((6, 2, 3)).astype(np.float32)
# not in order, so that a join by position would be noticed
NAMES = ("d", "b", "f", "a", "c", "e")
ORDER = sorted(range(6), key=NAMES.__getitem__)


def of_vfmvae(**changes: object) -> dict[str, object]:
    return {"features": torch.from_numpy(VALUES), "names": list(NAMES)} | changes


def write_names(path: Path, names: tuple[str, ...] = NAMES) -> None:
    path.write_text("".join(f"{name}\n" for name in names))


def check(table: Table, layout: str, values: np.ndarray = VALUES) -> None:
    assert table.names == tuple(sorted(NAMES))
    assert table.layout == layout
    assert table.values[0].dtype == np.float32
    assert np.array_equal(table.values[0], values[ORDER])


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"transformations": [{"mode": "clean"}] * 6},
        {"num_images": 6, "sorted": True, "sorted_by": "name", "timestep": 0.5, "feature_name": "block_0"},
        {"original_indices": list(range(6))},
        {"names": tuple(f"{name}.png" for name in NAMES)},
        {"names": [f"folder/{name}.JPEG" for name in NAMES]},
        {"features": torch.from_numpy(VALUES).double()},
    ],
)
def test_features_of_vfmvae(more: dict[str, object], tmp_path: Path) -> None:
    torch.save(of_vfmvae(**more), tmp_path / "x_clean.pt")
    table = read_layers(tmp_path / "x_clean.pt")
    check(table, "vfmvae")
    assert (table.names_from, table.files) == ("inside", (tmp_path / "x_clean.pt",))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_numbers_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    narrow = torch.from_numpy(VALUES).to(dtype)
    torch.save(of_vfmvae(features=narrow), tmp_path / "x.pt")
    table = read_layers(tmp_path / "x.pt")
    check(table, "vfmvae", narrow.float().numpy())
    assert table.dtype == str(dtype).removeprefix("torch.")


def test_our_own_files(tmp_path: Path) -> None:
    feature_files.write_features(tmp_path / "b0.pt", Features(VALUES, NAMES, {}))
    check(read_layers(tmp_path / "b0.pt"), "diffalign")
    check(read_layers(tmp_path / "b0.pt", layout="vfmvae"), "vfmvae")


def platonic_list(path: Path) -> None:
    torch.save({"feats": [torch.from_numpy(STACK[:, i]) for i in range(2)], "num_params": 7}, path)


def platonic_stack(path: Path) -> None:
    torch.save({"feats": torch.from_numpy(STACK).bfloat16().float(), "num_params": 7, "mask": torch.ones(6, 4)}, path)


@pytest.mark.parametrize("write", [platonic_list, platonic_stack])
def test_layers_of_platonic(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "model_pool-cls.pt"
    write(path)
    write_names(tmp_path / "model_pool-cls.txt")
    table = read_layers(path, ["1", "0", "-1"])
    assert table.layout == "platonic"
    assert table.names_from == str(tmp_path / "model_pool-cls.txt")
    assert np.allclose(table.values[0], STACK[ORDER, 1], atol=0.02)
    assert np.allclose(table.values[1], STACK[ORDER, 0], atol=0.02)
    assert np.array_equal(table.values[2], table.values[0])
    with pytest.raises(StoreError, match=r"model_pool-cls.pt: holds 2 layers \(0, 1\); say which"):
        read_layers(path)
    with pytest.raises(StoreError, match="no layer '2'; it holds 2: 0, 1"):
        read_layers(path, ["2"])


def test_features_of_thingsvision(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", VALUES.astype(np.float64))
    write_names(tmp_path / "file_names.txt", tuple(f"images/{name}.jpg" for name in NAMES))
    for path in (tmp_path, tmp_path / "features.npy"):
        table = read_layers(path, layout="thingsvision")
        check(table, "thingsvision")
        assert table.dtype == "float64"
        assert table.files == (tmp_path / "features.npy", tmp_path / "file_names.txt")
    (tmp_path / "features.txt").write_text("0.1\n" * 6)
    (tmp_path / "names.txt").write_text("other\n" * 6)
    check(read_layers(tmp_path), "thingsvision")
    (tmp_path / "file_names.txt").unlink()
    with pytest.raises(StoreError, match="features.npy: file_names.txt, which thingsvision writes beside it, is miss"):
        read_layers(tmp_path, layout="thingsvision")


def as_tensor(path: Path) -> Path:
    torch.save(torch.from_numpy(VALUES), path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def as_npy(path: Path) -> Path:
    np.save(path.with_suffix(".npy"), VALUES)
    return path.with_suffix(".npy")


def as_npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), features=VALUES, labels=np.arange(6))
    return path.with_suffix(".npz")


def as_safetensors(path: Path) -> Path:
    save_file({"features": torch.from_numpy(VALUES)}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


BARE = [as_tensor, as_npy, as_npz, as_safetensors]


@pytest.mark.parametrize("write", BARE)
@pytest.mark.parametrize("names", ["x.txt", "names.txt"])
def test_arrays_with_names_beside_them(write: Callable[[Path], Path], names: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x")
    write_names(tmp_path / names)
    check(read_layers(path), "array")


@pytest.mark.parametrize("write", BARE)
def test_arrays_with_names_given_or_counted_and_never_guessed(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path / "x")
    with pytest.raises(StoreError, match=r"x\.\w+: has no names, and rows are never joined by pos.* x.txt"):
        read_layers(path)
    counted = read_layers(path, names="rows")
    assert counted.names[:2] == ("00000000", "00000001")
    assert np.array_equal(counted.values[0], VALUES)
    write_names(tmp_path / "mine.list")
    check(read_layers(path, names=str(tmp_path / "mine.list")), "array")
    with pytest.raises(FileNotFoundError, match="gone.txt: no such names file"):
        read_layers(path, names=str(tmp_path / "gone.txt"))


def test_arrays_with_names_inside(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", b0=VALUES, b1=STACK[:, 1], names=np.array(NAMES))
    check(read_layers(tmp_path / "x.npz", ["b0"]), "array")
    assert np.array_equal(read_layers(tmp_path / "x.npz", ["b1"]).values[0], STACK[ORDER, 1])
    with pytest.raises(StoreError, match="no layer 'b2'; it holds 2: b0, b1"):
        read_layers(tmp_path / "x.npz", ["b2"])
    np.savez(tmp_path / "stack.npz", feats=STACK, names=np.array(NAMES))
    check(read_layers(tmp_path / "stack.npz", ["1"]), "array", STACK[:, 1])
    tensors = {"features": torch.from_numpy(VALUES), "names": encode_names(NAMES)}
    save_file(tensors, tmp_path / "x.safetensors")
    check(read_layers(tmp_path / "x.safetensors"), "array")


def test_a_token_of_published_latents(tmp_path: Path) -> None:
    tensors = {
        "latents": torch.zeros(6, 4, 2, 2),
        "dinov2_cls_tokens": torch.from_numpy(VALUES),
        "labels": torch.arange(6),
        "names": encode_names([f"{name}.png" for name in NAMES]),
    }
    save_file(tensors, tmp_path / "latents_rank00_shard000.safetensors")
    check(read_layers(tmp_path / "latents_rank00_shard000.safetensors", ["dinov2_cls_tokens"]), "array")
    with pytest.raises(StoreError, match=r"features have shape \(6, 4, 2, 2\); expected \(N, D\)"):
        read_layers(tmp_path / "latents_rank00_shard000.safetensors", ["latents"])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.png", "a"),
        ("aardvark/aardvark_01b.jpg", "aardvark_01b"),
        ("n01_1.JPEG", "n01_1"),
        ("v1.5", "v1.5"),
        ("x.tar.png", "x.tar"),
    ],
)
def test_names_of_images(text: str, name: str) -> None:
    assert row_names.image_name(text) == name


# --- what is refused ------------------------------------------------------------------------------------------------


def nan_rows() -> torch.Tensor:
    broken = torch.from_numpy(VALUES.copy())
    broken[1:, 0] = float("nan")
    return broken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"feature": torch.zeros(6, 3)}, "has the keys feature; expected features, format, names, recipe (diffalign)"),
        ({"feats": "text"}, "features are no tensors: features"),
        ({"feats": [torch.zeros(6, 3), 3]}, "features are no tensors: 1"),
        ({"feats": []}, "features are no tensors: an empty list"),
        ([torch.zeros(6, 3)], "holds a list; expected a tensor or a dictionary"),
        (of_vfmvae(names=["a", "b", "a", "b", "c", "d"]), "2 names stand more than once, first: a, b"),
        (
            of_vfmvae(names=["x/a.png", "y/a.png", "a", "b", "c", "d"]),
            "3 names are the same without folder and suffix, first: x/a.png, y/a.png, a",
        ),
        (of_vfmvae(names=["a", "b", "", 4, None, "c"]), "3 names are empty or no text, first: '' (row 2), 4 (row 3)"),
        (of_vfmvae(names="abcdef"), "'names' is a str; expected a list of text"),
        (
            of_vfmvae(names=list(NAMES[:4])),
            "6 rows for 4 names inside it; if the first rows agree, rows without a name: 4, 5",
        ),
        (
            of_vfmvae(names=[*NAMES, *"ghijkl"]),
            "6 rows for 12 names inside it; if the first rows agree, names without a row: g, h, i, j, k …",
        ),
        (of_vfmvae(features=nan_rows()), "5 of 6 rows are NaN or infinite, first: b, f, a, c, e"),
        (
            of_vfmvae(features=torch.full((6, 3), 1e300, dtype=torch.float64)),
            "6 of 6 rows become infinite as float32 (they are float64), first: d, b, f, a, c …",
        ),
        (
            of_vfmvae(features=torch.zeros(6, 3, dtype=torch.int64)),
            "features are int64; expected floating-point numbers",
        ),
        (of_vfmvae(features=torch.zeros(6)), "features have shape (6,); expected (N, D)"),
        (of_vfmvae(features=torch.zeros(6, 0)), "features have shape (6, 0); expected (N, D)"),
        (of_vfmvae(features=torch.eye(6).to_sparse()), "features are a sparse or quantised tensor"),
        (
            {"format": 9, "features": torch.zeros(6, 3), "names": list(NAMES), "recipe": "{}"},
            "format 9 is not known here",
        ),
    ],
)
def test_files_that_cannot_be_trusted(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        read_layers(tmp_path / "x.pt")
    assert str(caught.value).startswith(f"{tmp_path / 'x.pt'}: ")


def test_the_layout_that_was_said_is_held_to(tmp_path: Path) -> None:
    torch.save(of_vfmvae(), tmp_path / "x.pt")
    with pytest.raises(StoreError, match="is laid out as 'vfmvae', not as 'platonic'"):
        read_layers(tmp_path / "x.pt", layout="platonic")
    with pytest.raises(StoreError, match="unknown layout 'platonik'; did you mean 'platonic'"):
        read_layers(tmp_path / "x.pt", layout="platonik")
    with pytest.raises(StoreError, match="has names of its own, so its rows are not named by number"):
        read_layers(tmp_path / "x.pt", names="rows")
    with pytest.raises(StoreError, match="no layer '3'; it holds one layer, number 0"):
        read_layers(tmp_path / "x.pt", ["3"])


class Dangerous:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    danger = Dangerous(tmp_path / "executed")
    torch.save(of_vfmvae(names=danger), tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", np.array([danger], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", features=VALUES, names=np.array([danger], dtype=object))
    np.save(tmp_path / "platonic.npy", {"scores": danger}, allow_pickle=True)  # type: ignore[arg-type]
    for name in ("x.pt", "x.npy", "x.npz"):
        with pytest.raises(StoreError, match=f"{name}: cannot be read as features .it is damaged, or holds pickled"):
            read_layers(tmp_path / name)
    with pytest.raises(StoreError, match="platonic.npy: cannot be read .* holds posix.mkdir, which is no array"):
        platonic.read_alignment(tmp_path / "platonic.npy")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_absent_broken_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.pt: no such feature file"):
        read_layers(tmp_path / "gone.pt")
    with pytest.raises(FileNotFoundError, match="features.npy: no such feature file"):
        read_layers(tmp_path)
    for suffix in (".pt", ".npy", ".npz", ".safetensors"):
        (tmp_path / f"x{suffix}").write_bytes(b"nonsense")
        with pytest.raises(StoreError, match=f"x{suffix}: cannot be read as features"):
            read_layers(tmp_path / f"x{suffix}")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(StoreError, match="x.csv: features are read from .pt, .pth, .npy, .npz, .safetensors files"):
        read_layers(tmp_path / "x.csv")


def test_names_files_that_cannot_be_trusted(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    names = tmp_path / "x.txt"
    names.write_text("a\nb\n\nc\nd\ne\n")
    with pytest.raises(StoreError, match=r"x.txt: 1 names are empty or no text, first: '' \(row 2\)"):
        read_layers(tmp_path / "x.npy")
    names.write_text("a\nb\na\nc\nd\ne\n")
    with pytest.raises(StoreError, match="x.txt: 1 names stand more than once, first: a$"):
        read_layers(tmp_path / "x.npy")
    names.write_text("a\nb\nc\n")
    with pytest.raises(StoreError, match=r"x.npy: 6 rows for 3 names in .*x.txt; .* rows without a name: 3, 4, 5$"):
        read_layers(tmp_path / "x.npy")
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(StoreError, match="x.txt: cannot be read as a list of names"):
        read_layers(tmp_path / "x.npy")
    # written on another system, with a mark of the encoding and other ends of lines
    names.write_bytes("\ufeff".encode() + "\r\n".join(NAMES).encode())
    check(read_layers(tmp_path / "x.npy"), "array")


def test_names_inside_of_another_kind(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=VALUES, names=np.arange(6))
    with pytest.raises(StoreError, match=r"'names' is \(6,\) of int64; expected \(N,\) text"):
        read_layers(tmp_path / "x.npz")
    save_file({"features": torch.from_numpy(VALUES), "names": torch.arange(6)}, tmp_path / "x.safetensors")
    with pytest.raises(StoreError, match="expected .N, L. uint8, UTF-8 padded with zeros"):
        read_layers(tmp_path / "x.safetensors")


def test_arrays_need_no_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=VALUES, names=np.array(NAMES))
    code = (
        "import sys, pathlib; from diffalign.io.layouts import feature_tables\n"
        f"feature_tables.read_layers(pathlib.Path({str(tmp_path / 'x.npz')!r}))\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow_scripts")}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


# --- what is written ------------------------------------------------------------------------------------------------


IN_ORDER = Features(VALUES[ORDER], tuple(sorted(NAMES)), {"layer": "b8"})


def test_vfmvae_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "x_clean.pt"
    vfmvae.write_features(path, IN_ORDER, "clean")
    check(read_layers(path, layout="vfmvae"), "vfmvae")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["features", "names", "transformations"]
    assert content["transformations"] == [{"mode": "clean"}] * 6
    vfmvae.write_features(path, IN_ORDER, "noise_0.050")
    assert torch.load(path, weights_only=True)["transformations"][0] == {"mode": "noise", "noise_level": 0.05}
    with pytest.raises(StoreError, match="not for 'equivariance'"):
        vfmvae.write_features(path, IN_ORDER, "equivariance")
    known = {name: {"rotation": 90, "scale": 0.5} for name in IN_ORDER.names}
    vfmvae.write_features(path, IN_ORDER, "equivariance", known)
    said = torch.load(path, weights_only=True)["transformations"]
    assert said == [{"rotation": 90, "scale": 0.5, "mode": "equivariance"}] * len(IN_ORDER.names)


def of(family: str, layer: str, **more: Any) -> Features:
    return Features(IN_ORDER.values, IN_ORDER.names, {"model": {"family": family}, "layer": layer, **more})


# the keys after features and names of each published script
SIT = ["num_images", "sorted", "sorted_by", "timestep", "feature_name", "feature_dim"]
REG = ["num_images", "sorted", "sorted_by", "original_indices", "timestep", "feature_name", "feature_dim"]
LIGHTNINGDIT = ["feature_name", "timestep", "num_images"]


@pytest.mark.parametrize(
    ("family", "layer", "name", "keys"),
    [
        ("sit", "b8", "block_8", SIT),
        ("sit", "embed", "embedder", SIT),
        ("sit", "final", "final_layer", SIT),
        ("repa", "proj0", "projection_0", SIT),
        ("reg", "proj1", "projector_1", REG),
        ("lightningdit", "b0", "block_0", LIGHTNINGDIT),
        ("diffusers_unet", "mid", "mid", SIT),
    ],
)
def test_diffusion_features_have_the_published_keys_and_names(
    family: str, layer: str, name: str, keys: list[str], tmp_path: Path
) -> None:
    features = of(family, layer, noise_level={"t": 0.5})
    path = tmp_path / vfmvae.file_name("x", features, "clean")
    assert path.name == f"x_{name}_t0.500.pt"
    vfmvae.write_features(path, features, "clean")
    check(read_layers(path), "vfmvae")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["features", "names", *keys]
    said = {"num_images": 6, "sorted": True, "sorted_by": "name", "original_indices": [0, 1, 2, 3, 4, 5]}
    said |= {"timestep": 0.5, "feature_name": name, "feature_dim": 3}
    assert {key: content[key] for key in keys} == {key: said[key] for key in keys}


def test_latents_of_sd_vae_have_the_published_keys(tmp_path: Path) -> None:
    def written(features: Features, condition: str) -> dict[str, Any]:
        path = tmp_path / vfmvae.file_name("sd_vae", features, condition)
        assert path.name == f"sd_vae_{condition}.pt"
        vfmvae.write_features(path, features, condition)
        check(read_layers(path), "vfmvae")
        return dict(torch.load(path, weights_only=True))

    clean = written(of("diffusers_vae", "latent"), "clean")
    more = {"apply_scaling": False, "num_images": 6, "sorted": True}
    assert list(clean) == ["features", "names", "transformations", *more]
    assert {key: clean[key] for key in more} == more
    noisy = written(of("diffusers_vae", "latent"), "noise_0.050")
    assert list(noisy) == [*clean, "noise_level"]
    assert noisy["noise_level"] == 0.05
    assert list(written(of("vfmvae", "latent"), "clean")) == ["features", "names", "transformations"]
    # no script writes other layers of an autoencoder
    assert list(written(of("diffusers_vae", "mid"), "clean")) == ["features", "names", "transformations"]


def test_layers_are_exported_under_their_published_names(tmp_path: Path) -> None:
    sources = [tmp_path / f"{layer}.pt" for layer in ("embed", "b0", "proj0", "final")]
    for path in sources:
        facts = {"module": path.stem, "noise_level": {"t": 0.5}}
        feature_files.write_features(path, of("repa", path.stem, **facts))
    folder, recipe = tmp_path / "features", tmp_path / "recipe.json"
    export_features("vfmvae_files", "clean", sources, None, folder, None, recipe, "repa")
    published = ("block_0", "embedder", "final_layer", "projection_0")
    assert sorted(path.name for path in folder.iterdir()) == [f"repa_{name}_t0.500.pt" for name in published]
    assert [each["layer"] for each in json.loads(recipe.read_text())["layers"]] == ["embed", "b0", "proj0", "final"]


def test_thingsvision_comes_back(tmp_path: Path) -> None:
    thingsvision.write_features(tmp_path / "m" / "features.npy", tmp_path / "m" / "file_names.txt", IN_ORDER)
    check(read_layers(tmp_path / "m"), "thingsvision")


def test_platonic_comes_back(tmp_path: Path) -> None:
    path, names = tmp_path / "m.pt", tmp_path / "m.txt"
    second = Features(IN_ORDER.values + 1, IN_ORDER.names, {})
    platonic.write_features(path, names, [IN_ORDER, second])
    assert torch.load(path, weights_only=True)["feats"].shape == (6, 2, 3)
    assert np.array_equal(read_layers(path, ["1"]).values[0], second.values)
    wide = Features(np.tile(IN_ORDER.values, 2), IN_ORDER.names, {})
    platonic.write_features(path, names, [IN_ORDER, wide])
    feats = torch.load(path, weights_only=True)["feats"]
    assert [tuple(layer.shape) for layer in feats] == [(6, 3), (6, 6)]
    check(read_layers(path, ["0"]), "platonic")
    with pytest.raises(StoreError, match="images differ"):
        platonic.write_features(path, names, [IN_ORDER, Features(VALUES[:5], IN_ORDER.names[:5], {})])


def matrix(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_an_alignment_is_what_platonic_reads_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "cknna_k10.npy"
    platonic.write_alignment(path, [[matrix([[0.1, 0.2, np.nan], [0.4, 0.9, 0.3]])]])
    theirs = np.load(path, allow_pickle=True).item()
    assert {key: value.tolist() for key, value in theirs.items()} == {"scores": [[0.9]], "indices": [[[1.0, 1.0]]]}
    scores, indices = platonic.read_alignment(path)
    assert np.array_equal(scores, theirs["scores"])
    assert np.array_equal(indices, theirs["indices"])
    with pytest.raises(StoreError, match=r"no score of the matrix \(0, 0\) is defined"):
        platonic.write_alignment(path, [[matrix([[np.nan]])]])


def test_an_alignment_of_whole_sets_has_a_row_for_every_x(tmp_path: Path) -> None:
    """Two As (y) and three Bs (x), the best at the layers (i, j) of A and B."""

    def best(row: int, column: int, score: float) -> np.ndarray:
        found = np.zeros((3, 4))
        found[row, column] = score
        return found

    path = tmp_path / "mutual_knn_k10.npy"
    platonic.write_alignment(path, [[best(x % 3, y + 1, x + y / 10 + 0.1) for y in range(2)] for x in range(3)])
    scores, indices = platonic.read_alignment(path)
    assert np.allclose(scores, [[0.1, 0.2], [1.1, 1.2], [2.1, 2.2]])
    assert indices[2].tolist() == [[2, 1], [2, 2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VALUES, "holds float32 of shape"),
        ({"scores": VALUES}, "it needs the keys indices, scores"),
        ({"scores": 1, "indices": 2}, "are not arrays of numbers"),
        ({"scores": VALUES, "indices": VALUES}, r"scores \(6, 3\) and indices \(6, 3\); expected \(X, Y\)"),
    ],
)
def test_alignments_that_cannot_be_trusted(content: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", content, allow_pickle=True)
    with pytest.raises(StoreError, match=f"x.npy: .*{message}"):
        platonic.read_alignment(tmp_path / "x.npy")


def test_an_alignment_of_an_older_numpy_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    best = {"scores": np.array([[0.5]]), "indices": np.array([[[3.0, 1.0]]])}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickle.dumps(np.array(best, dtype=object), protocol=3).replace(b"numpy._core", b"numpy.core"))
    scores, indices = platonic.read_alignment(path)
    assert (scores.tolist(), indices.tolist()) == ([[0.5]], [[[3.0, 1.0]]])


def test_the_schema_names_every_layout() -> None:
    defined = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text(encoding="utf-8"))["$defs"]
    enum = {name: defined[name]["properties"]["layout"]["enum"] for name in ("FeatureFilesEntry", "LatentFilesEntry")}
    assert enum == {"FeatureFilesEntry": ["auto", *LAYOUTS], "LatentFilesEntry": list(latent_folders.LAYOUTS)}
