"""Every reader of files that a user brings: how it is called, and a valid file of each kind that it reads.

`hostile.py` makes files of these kinds that must be refused, and the fuzzers damage the valid ones.
"""

import importlib
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

NAMES = [f"image{i:02d}" for i in range(12)]
FEATURES = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
CONCEPTS = ["ant", "bear", "cat", "dog"]


@dataclass(frozen=True)
class Importer:
    """read: (file, folder for results) -> what it holds. valid: suffix -> writes a file that is read."""

    read: Callable[[Path, Path], Any]
    valid: Mapping[str, Callable[[Path], object]]

    @property
    def suffixes(self) -> tuple[str, ...]:
        return tuple(self.valid)


def _by(module: str, name: str) -> Callable[[Path, Path], Any]:
    """A function of a module that takes a file alone, imported when it is called."""
    return lambda path, out: getattr(importlib.import_module(module), name)(path)


def _features(path: Path, out: Path) -> Any:
    from diffalign.io.layouts.feature_tables import read_layers

    return read_layers(path, names=None if path.suffix in (".pt", ".pth", ".npz", ".safetensors") else "rows")


def _pickled_features(path: Path, out: Path) -> Any:
    from diffalign.io.layouts.feature_tables import read_layers

    return read_layers(path, layout="diffusion-alignment", names="rows")


def _compare(path: Path, out: Path) -> Any:
    """The command line; what it says on stderr is its error."""
    from contextlib import redirect_stderr, redirect_stdout

    from compare import main

    said, printed = io.StringIO(), io.StringIO()
    numbered = ["--names-a", "rows", "--names-b", "rows"] if path.suffix == ".npy" else []
    with redirect_stderr(said), redirect_stdout(printed):
        code = main([str(path), str(path), "--k", "3", *numbered])
    if code:
        assert said.getvalue().count("\n") == 1, said.getvalue()
        raise ValueError(said.getvalue().strip())
    return printed.getvalue()


def _embeddings(path: Path, out: Path) -> Any:
    from diffalign.io.prompt_files import read_embeddings

    return read_embeddings(path, NAMES)


def _latents(path: Path, out: Path) -> Any:
    """A folder of LightningDiT, or of REPA with a file at 00000/."""
    from diffalign.io.layouts.latent_folders import open_folder
    from diffalign.io.layouts.latent_records import Draw
    from diffalign.randomness import NoiseKey

    layout, at = ("lightningdit", path.parent) if path.suffix == ".safetensors" else ("repa", path.parent.parent)
    folder = open_folder(at, layout, None, Draw("mode", NoiseKey("name", 0, "vae")))
    return {name: folder.read(name) for name in sorted(folder.file_of)}


def _triplets(path: Path, out: Path) -> Any:
    from diffalign.human.triplets import read_triplets

    return read_triplets(path, len(CONCEPTS), 0, "last")


def _similarities(path: Path, out: Path) -> Any:
    from diffalign.human.concepts import Concept
    from diffalign.human.similarities import read_similarities

    names = out / "names.txt"
    names.write_text("\n".join(CONCEPTS))
    try:
        listed = [Concept(name, name, name, ()) for name in CONCEPTS]
        return read_similarities(path, "matrix", names, None, "similarity", listed)
    finally:
        names.unlink()


def _dimensions(path: Path, out: Path) -> Any:
    from diffalign.dataset_specs import SourceFile, TripletFile
    from diffalign.human.triplets import read_triplets  # noqa: F401  (what the script imports, too)
    from human_choices import human_choices

    concepts, choices = path.with_name("concepts.tsv"), path.with_name("choices.npy")
    _write_concepts(concepts)
    _write_triplets(choices)
    human_choices(
        SourceFile(str(concepts)), TripletFile(str(choices), 0, "last"), SourceFile(str(path)), out / "people.npz"
    )


def _quality_table(path: Path, out: Path) -> Any:
    from diffalign.io.quality_files import read_given

    return list(read_given(path, "mine", {"sit": [1, 2]}))


def _table(path: Path, out: Path) -> Any:
    """A table of texts."""
    from diffalign.dataset_specs import Dataset
    from diffalign.stimuli import kinds

    columns = {"name": "name", "caption": "caption"}
    listing = kinds.rows(Dataset("table", path=str(path), columns=columns), kinds.Supplied())
    return [(row.name, row.caption) for row in listing.rows]


def _table_of_images(path: Path, out: Path) -> Any:
    """A table with images as bytes or paths, to PNG files and their manifest."""
    from diffalign.dataset_specs import Dataset

    entry = Dataset("table", 8, str(path), columns={"name": "name", "image": "image"})
    return _images_of(entry, out)


def _image(path: Path, out: Path) -> Any:
    """A folder of images, to PNG files and their manifest."""
    from diffalign.dataset_specs import Dataset

    return _images_of(Dataset("folder", 8, str(path.parent)), out)


def _images_of(entry: Any, out: Path) -> Any:
    from diffalign.io.manifest import read_manifest
    from images import images

    images("mine", entry, None, 0, out / "png", out / "manifest.tsv", out / "dataset.json")
    rows = read_manifest(out / "manifest.tsv")
    assert sorted(path.stem for path in (out / "png").iterdir()) == [row.name for row in rows]
    return rows


def _mask(path: Path, out: Path) -> Any:
    """The mask of one image, beside parts.tsv."""
    from diffalign.stimuli.masks import folder_masks

    photo = out / "photo.png"
    _write_image(photo)
    path.with_name("parts.tsv").write_text("value\tpart\n1\thair\n")
    try:
        return folder_masks(path.parent, {path.stem: photo}, 8, "adm").read(path.stem)
    finally:
        photo.unlink()


def _parts_table(path: Path, out: Path) -> Any:
    from diffalign.stimuli.masks import folder_masks

    folder = path.parent
    _write_mask(folder / "a.png")
    path.rename(folder / "parts.tsv")
    photo = folder / "photo.png"
    _write_image(photo)
    return folder_masks(folder, {"a": photo}, 8, "adm").parts


def _archive(path: Path, out: Path) -> Any:
    from archive import archive

    archive("mine", {"url": None, "path": str(path), "sha256": None}, out / "folder", out / "archive.json")
    return sorted(file.name for file in (out / "folder").rglob("*"))


def _names(path: Path, out: Path) -> Any:
    """A names file beside features."""
    from diffalign.io.layouts.feature_tables import read_layers

    np.save(path.with_suffix(".npy"), FEATURES)
    return read_layers(path.with_suffix(".npy"), names=str(path))


def _shard_index(path: Path, out: Path) -> Any:
    """An index of shards of a checkpoint: each that it names must be there."""
    from diffalign.io.checkpoints import describe

    folder = path.parent / "checkpoint"
    folder.mkdir()
    path.rename(folder / "model.safetensors.index.json")
    _write_safetensors(folder / "a.safetensors")
    describe(out / "weights.json", folder, {"source": "folder"})


def _catalogue(path: Path, out: Path) -> Any:
    from diffalign.config.catalogue import read_catalogue

    return read_catalogue(path.parent)


def _saved(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def _pickled(content: Any) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(pickle.dumps(content)) and None


def _in_npy(content: Any) -> Callable[[Path], None]:
    """A dictionary as ``numpy.save`` pickles it."""
    return lambda path: np.save(path, np.array(content, dtype=object), allow_pickle=True)


def _write_npy(path: Path) -> None:
    np.save(path, FEATURES)


def _write_npz(path: Path) -> None:
    np.savez(path, feats=FEATURES, names=np.array(NAMES))


def _encoded(names: list[str]) -> torch.Tensor:
    from diffalign.io.latents import encode_names

    return encode_names(names)


def _write_safetensors(path: Path) -> None:
    save_file({"feats": torch.from_numpy(FEATURES), "names": _encoded(NAMES)}, path)


def _write_own_features(path: Path) -> None:
    from diffalign.io.feature_files import Features, write_features

    write_features(path, Features(FEATURES, tuple(NAMES), {"model": {}, "layer": "b0"}))


_STATE = {"blocks.0.weight": torch.ones(3, 2), "blocks.0.bias": torch.zeros(3)}
_TRANSFORM = {"weights": np.eye(3, dtype=np.float32), "mean": np.float32(0), "std": np.float32(1)}
_EMBEDDINGS = np.random.default_rng(1).standard_normal((12, 4, 3)).astype(np.float32)
_SCORES = {"scores": np.full((2, 2), 0.5), "indices": np.zeros((2, 2, 2))}


def _write_latents(path: Path) -> None:
    latents = torch.from_numpy(np.random.default_rng(2).standard_normal((12, 4, 2, 2)).astype(np.float32))
    save_file({"latents": latents, "labels": torch.zeros(12, dtype=torch.int64), "names": _encoded(NAMES)}, path)


def _write_moments(path: Path) -> None:
    np.save(path, np.ones((8, 2, 2), np.float32))


def _write_triplets(path: Path) -> None:
    np.save(path, np.array([[0, 1, 2], [1, 2, 3], [0, 2, 3], [0, 1, 3]]))


def _write_concepts(path: Path) -> None:
    head = "uniqueID\tWord\tDefinition (from WordNet, Google, or Wikipedia)\tTop-down Category (manual selection)\n"
    path.write_text(head + "".join(f"{name}\t{name}\tan animal\tanimal\n" for name in CONCEPTS))


def _similar() -> np.ndarray:
    half = np.random.default_rng(3).random((4, 4))
    return half + half.T


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


_ROWS = [{"name": name, "caption": f"a picture of {name}"} for name in NAMES]


def _separated(separator: str) -> str:
    return "".join(separator.join(row) + "\n" for row in [("name", "caption"), *(tuple(r.values()) for r in _ROWS)])


def _write_parquet(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(_ROWS), path)


def png(size: tuple[int, int] = (16, 12), mode: str = "RGB", kind: str = "PNG") -> bytes:
    """A small picture as the bytes of a file."""
    pixels = np.random.default_rng(4).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _picture(kind: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(png(kind=kind)) and None


def _write_image(path: Path) -> None:
    path.write_bytes(png())


def _write_mask(path: Path) -> None:
    Image.fromarray(np.eye(12, 16, dtype=np.uint8)).save(path)


def _write_image_table(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{"name": name, "image": {"bytes": png(), "path": f"{name}.png"}} for name in NAMES]
    parquet.write_table(pa.Table.from_pylist(rows), path)


def _write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in NAMES[:3]:
            file.writestr(f"images/{name}.png", png())


def _tarred(mode: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
            for name in NAMES[:3]:
                entry = tarfile.TarInfo(f"images/{name}.png")
                entry.size = len(png())
                file.addfile(entry, io.BytesIO(png()))

    return write


_LISTED = "".join(f"{name}\n" for name in NAMES)
_BY_IMAGE = {f"{name}.jpg": f"a picture of {name}" for name in NAMES}
_IN_MODULES = {"diffusion": {"sd2": {"mid_block": FEATURES}}}
_MATRIX = "\n".join(",".join(map(str, row)) for row in _similar()) + "\n"

IMPORTERS: Mapping[str, Importer] = {
    "features": Importer(
        _features,
        {
            ".pt": _saved({"features": torch.from_numpy(FEATURES), "names": NAMES}),
            ".npy": _write_npy,
            ".npz": _write_npz,
            ".safetensors": _write_safetensors,
        },
    ),
    "pickled features": Importer(_pickled_features, {".pkl": _pickled(_IN_MODULES), ".npy": _in_npy(_IN_MODULES)}),
    "compare": Importer(
        _compare,
        {
            ".pt": _saved({"features": torch.from_numpy(FEATURES), "names": NAMES}),
            ".npy": _write_npy,
            ".npz": _write_npz,
            ".safetensors": _write_safetensors,
        },
    ),
    "own features": Importer(_by("diffalign.io.feature_files", "read_features"), {".pt": _write_own_features}),
    "checkpoint": Importer(
        _by("diffalign.io.state_dicts", "read_state_dict"),
        {
            **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), _saved({"model": _STATE, "epoch": 3})),
            ".safetensors": _write_safetensors,
        },
    ),
    "transform": Importer(
        _by("diffalign.io.transform_files", "read_transform"),
        {
            ".npz": lambda path: np.savez(path, **_TRANSFORM),
            ".npy": lambda path: np.save(path, _TRANSFORM["weights"]),
            ".pkl": _pickled(_TRANSFORM),
        },
    ),
    "embeddings": Importer(
        _embeddings,
        {
            ".npz": lambda path: np.savez(path, names=np.array(NAMES), prompt_embeds=_EMBEDDINGS),
            ".safetensors": lambda path: save_file(
                {"names": _encoded(NAMES), "prompt_embeds": torch.from_numpy(_EMBEDDINGS)}, path
            ),
            ".npy": _in_npy({f"{name}.jpg": _EMBEDDINGS[i] for i, name in enumerate(NAMES)}),
        },
    ),
    "captions": Importer(
        _by("diffalign.stimuli.captions", "read_texts"),
        {
            ".json": _text(json.dumps({row["name"]: row["caption"] for row in _ROWS})),
            ".tsv": _text(_separated("\t").replace("caption", "text", 1)),
            ".npy": _in_npy(_BY_IMAGE),
        },
    ),
    "class names": Importer(
        _by("diffalign.stimuli.captions", "read_words"),
        {".txt": _text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")},
    ),
    "published scores": Importer(_by("diffalign.io.layouts.platonic", "read_alignment"), {".npy": _in_npy(_SCORES)}),
    "published accuracies": Importer(
        _by("diffalign.io.layouts.diffusion_alignment", "read_accuracies"),
        {".pkl": _pickled({"diffusion": {"sd2": {"mid_block": 0.5}}})},
    ),
    "bits per byte": Importer(
        _by("diffalign.io.layouts.platonic", "read_quality"),
        {".pt": _saved({"loss": torch.tensor(2.0), "bpb": torch.tensor(1.0), "num_params": 7})},
    ),
    "statistics": Importer(
        _by("diffalign.io.layouts.lightningdit", "statistics_of"),
        {".pt": _saved({"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)})},
    ),
    "own statistics": Importer(
        _by("diffalign.io.latents", "read_statistics"),
        {".pt": _saved({"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)})},
    ),
    "latents": Importer(_latents, {".safetensors": _write_latents}),
    "posteriors": Importer(_latents, {".npy": _write_moments}),
    "triplets": Importer(_triplets, {".npy": _write_triplets, ".csv": _text("0,1,2\n1,2,3\n0,2,3\n")}),
    "concepts": Importer(_by("diffalign.stimuli.kinds.things", "read_concepts"), {".tsv": _write_concepts}),
    "similarities": Importer(
        _similarities,
        {
            ".npy": lambda path: np.save(path, _similar()),
            ".csv": _text(_MATRIX),
            ".mat": lambda path: savemat(path, {"matrix": _similar()}),
        },
    ),
    "dimensions": Importer(_dimensions, {".npy": lambda path: np.save(path, np.ones((4, 3), np.float32))}),
    "quality table": Importer(_quality_table, {".csv": _text("model,step,FID\nsit,1,40.5\nsit,2,30.5\n")}),
    "table": Importer(
        _table,
        {
            ".parquet": _write_parquet,
            ".csv": _text(_separated(",")),
            ".tsv": _text(_separated("\t")),
            ".jsonl": _text("".join(json.dumps(row) + "\n" for row in _ROWS)),
        },
    ),
    "table of images": Importer(_table_of_images, {".parquet": _write_image_table}),
    "image": Importer(
        _image,
        {
            ".png": _picture("PNG"),
            ".jpg": _picture("JPEG"),
            ".webp": _picture("WEBP"),
            ".bmp": _picture("BMP"),
            ".tiff": _picture("TIFF"),
        },
    ),
    "mask": Importer(_mask, {".png": _write_mask}),
    "parts table": Importer(_parts_table, {".tsv": _text("value\tpart\n1\thair\n")}),
    "archive": Importer(_archive, {".zip": _write_zip, ".tar": _tarred("w"), ".tar.gz": _tarred("w:gz")}),
    "names file": Importer(_names, {".txt": _text(_LISTED)}),
    "shard index": Importer(_shard_index, {".json": _text(json.dumps({"weight_map": {"x": "a.safetensors"}}))}),
    "catalogue": Importer(_catalogue, {".yaml": _text("mine: {family: timm_vision}\n")}),
}


def place(folder: Path, importer: str, suffix: str, stem: str = "file") -> Path:
    """Where a file of an importer lies: in a folder of its own, of posteriors in one more."""
    at = folder / "given" / "00000" if importer == "posteriors" else folder / "given"
    at.mkdir(parents=True, exist_ok=True)
    return at / f"{'img-mean-std-00000000' if importer == 'posteriors' else stem}{suffix}"
