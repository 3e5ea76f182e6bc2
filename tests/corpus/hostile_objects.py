"""Objects that run code when they are unpickled or read, in every kind of file."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from case import Case, Make
from importers import FEATURES, IMPORTERS, NAMES


class Harm:
    """Pickled, it calls a function of any module with any arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def harms(canary: Path) -> Mapping[str, Any]:
    import os
    import subprocess

    touch = f"import pathlib; pathlib.Path({str(canary)!r}).touch()"
    return {
        "os.system": Harm(os.system, f"touch '{canary}'"),
        "exec": Harm(exec, touch),
        "subprocess": Harm(subprocess.check_call, ["touch", str(canary)]),
        "open": Harm(open, str(canary), "w"),
        "numpy": Harm(np.save, str(canary), 1),
        "numpy runstring": Harm(np.testing.runstring, touch, {}),
        "torch": Harm(torch.save, 1, str(canary)),
        # nested in what is allowed
        "in a scalar": Harm(np._core.multiarray.scalar, np.dtype(object), Harm(os.system, f"touch '{canary}'")),
    }


def raw_pickles(canary: Path) -> Mapping[str, bytes]:
    """Pickles that no library writes: each finds a function in another way."""
    command = f"touch '{canary}'".encode()
    text = b"S" + repr(command.decode()).encode() + b"\n"
    short = (
        b"\x8c" + bytes([len(command)]) + command
        if len(command) < 256
        else b"X" + struct.pack("<I", len(command)) + command
    )

    def global_of(module: bytes, name: bytes) -> bytes:
        return b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"

    return {
        "GLOBAL": b"cos\nsystem\n(" + text + b"tR.",
        "INST": b"(" + text + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + global_of(b"posix", b"system") + short + b"\x85R.",
        # a dotted name below a module that is allowed
        "dotted": b"\x80\x04" + global_of(b"numpy._core.multiarray", b"sys.modules") + b".",
        "dotted class": b"\x80\x04" + global_of(b"collections", b"OrderedDict.__subclasses__") + b")R.",
        "builtins": b"\x80\x04" + global_of(b"builtins", b"getattr") + b"N\x8c\x01xN\x87R.",
        "persistent": b"Pevil\n.",
        "extension": b"\x82\x01.",
    }


def zipped_pickle(content: bytes, path: Path, more: Mapping[str, bytes] | None = None) -> None:
    """An archive of ``torch.save`` around any pickle."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for name, data in (more or {}).items():
            file.writestr(name, data)


def _like_valid(importer: str, harm: Any) -> Any:
    """What an importer of ``torch.save`` expects, and an object beside it."""
    content: dict[str, Any] = {
        "features": {"features": torch.from_numpy(FEATURES), "names": NAMES},
        "compare": {"features": torch.from_numpy(FEATURES), "names": NAMES},
        "own features": {"format": 1, "features": torch.from_numpy(FEATURES), "names": NAMES, "recipe": "{}"},
        "checkpoint": {"model": {"weight": torch.ones(2)}},
        "bits per byte": {"loss": 1.0, "bpb": 1.0, "num_params": 1},
    }.get(importer, {"mean": torch.zeros(4), "std": torch.ones(4)})
    return {**content, "extra": harm}


TORCH = (".pt", ".pth", ".ckpt", ".bin")
# importers that hold to a layout of pickles, and unpickle nothing but arrays
PICKLED = (
    ("pickled features", ".pkl"),
    ("pickled features", ".npy"),
    ("transform", ".pkl"),
    ("published accuracies", ".pkl"),
    ("published scores", ".npy"),
    ("captions", ".npy"),
    ("embeddings", ".npy"),
)


def objects() -> Iterator[Case]:
    """Pickled objects and tagged YAML in every kind of file."""
    sample = Path("canary")
    for importer, kinds in IMPORTERS.items():
        for suffix in kinds.suffixes:
            if suffix in TORCH:
                yield from _torch_objects(importer, suffix, sample)
            elif suffix == ".npy":
                for harm in ("os.system", "in a scalar"):
                    yield Case("objects", f"object array, {harm}", importer, suffix, _object_array(harm))
            elif suffix == ".npz":
                yield Case("objects", "object member", importer, suffix, _object_members("os.system"))
                yield Case("objects", "pickle as a member", importer, suffix, _raw_member)
            elif suffix == ".safetensors":
                yield Case("objects", "a pickle", importer, suffix, _raw("GLOBAL"))
                yield Case("objects", "a pickle in its header", importer, suffix, _pickle_header)
    for importer, suffix in PICKLED:
        for harm in harms(sample):
            yield Case("objects", f"pickled {harm}", importer, suffix, _pickle_of(harm))
        for way in raw_pickles(sample):
            yield Case("objects", f"pickle by {way}", importer, suffix, _raw(way))
    for suffix in (".mat", ".csv", ".npy"):
        yield Case("objects", "a pickle", "similarities", suffix, _raw("GLOBAL"))
    for suffix in (".parquet", ".jsonl", ".csv", ".tsv"):
        yield Case("objects", "a pickle", "table", suffix, _raw("STACK_GLOBAL"))
    for suffix in IMPORTERS["image"].suffixes:
        yield Case("objects", "a pickle", "image", suffix, _raw("GLOBAL"))
    yield Case("objects", "EPS", "image", ".png", _postscript)
    for tag in YAML_TAGS:
        yield Case("objects", f"tag {tag}", "catalogue", ".yaml", _tagged(tag))


def _torch_objects(importer: str, suffix: str, sample: Path) -> Iterator[Case]:
    # what reads files of torch has a few ways to do so
    every = importer in ("features", "checkpoint", "own features")
    for harm in harms(sample) if every else ("os.system",):
        yield Case("objects", f"torch.save, {harm}", importer, suffix, _torch_of(importer, harm, True))
    yield Case("objects", "legacy torch.save", importer, suffix, _torch_of(importer, "os.system", False))
    for way in raw_pickles(sample) if every else ("STACK_GLOBAL",):
        yield Case("objects", f"archive with {way}", importer, suffix, _torch_raw(way))
    yield Case("objects", "bare pickle", importer, suffix, _raw("GLOBAL"))
    yield Case("objects", "two pickles", importer, suffix, _two_pickles)
    yield Case("objects", "TorchScript", importer, suffix, _script)
    yield Case("objects", "storage of objects", importer, suffix, _storage_of_objects)
    yield Case("objects", "storage of a class", importer, suffix, _storage_of_class)


def _torch_of(importer: str, harm: str, new: bool) -> Make:
    return lambda path, canary: torch.save(
        _like_valid(importer, harms(canary)[harm]), path, _use_new_zipfile_serialization=new
    )


def _torch_raw(way: str) -> Make:
    return lambda path, canary: zipped_pickle(raw_pickles(canary)[way], path)


def _two_pickles(path: Path, canary: Path) -> None:
    harmless = pickle.dumps({"features": 1})
    zipped_pickle(harmless, path, {"other/data.pkl": raw_pickles(canary)["GLOBAL"]})


def _script(path: Path, canary: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)


def tensor_pickle(storage: bytes, count: int = 4) -> bytes:
    """A pickle of one tensor whose storage has any type."""
    location = b"\x8c\x07storage" + storage + b"\x8c\x010\x8c\x03cpu" + b"J" + struct.pack("<i", count)
    rebuild = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93"
    shape = b"K\x04\x85K\x01\x85"
    return b"\x80\x04" + rebuild + b"((" + location + b"tQK\x00" + shape + b"\x89N" + b"tR."


def _storage_of_objects(path: Path, canary: Path) -> None:
    zipped_pickle(tensor_pickle(b"\x8c\x01O"), path, {"archive/data/0": b"A" * 32})


def _storage_of_class(path: Path, canary: Path) -> None:
    zipped_pickle(tensor_pickle(b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93"), path, {"archive/data/0": b"A" * 32})


def _object_array(harm: str) -> Make:
    return lambda path, canary: np.save(path, np.array([harms(canary)[harm]] * 4, dtype=object), allow_pickle=True)


def _object_members(harm: str) -> Make:
    def make(path: Path, canary: Path) -> None:
        member = np.array([harms(canary)[harm]] * 12, dtype=object)
        members = dict.fromkeys(("feats", "names", "prompt_embeds", "weights", "arr_0"), member)
        np.savez(path, allow_pickle=True, **members)

    return make


def _raw_member(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("feats", "names", "prompt_embeds", "weights"):
            file.writestr(f"{name}.npy", raw_pickles(canary)["GLOBAL"])


def _raw(way: str) -> Make:
    return lambda path, canary: path.write_bytes(raw_pickles(canary)[way])


def _pickle_header(path: Path, canary: Path) -> None:
    content = raw_pickles(canary)["GLOBAL"]
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def _pickle_of(harm: str) -> Make:
    def make(path: Path, canary: Path) -> None:
        content = {"weights": harms(canary)[harm], "mean": 0.0}
        if path.suffix == ".npy":
            np.save(path, np.array(content, dtype=object), allow_pickle=True)
        else:
            path.write_bytes(pickle.dumps(content))

    return make


def _postscript(path: Path, canary: Path) -> None:
    """A program, which Pillow hands to ghostscript where that is installed."""
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        + f"(%pipe%touch '{canary}') (w) file closefile\n".encode()
        + b"showpage\n%%EOF\n"
    )


YAML_TAGS = {
    "object/apply": "!!python/object/apply:os.system [\"touch '{canary}'\"]",
    "object/new": "!!python/object/new:os.system [\"touch '{canary}'\"]",
    "name": "!!python/name:os.system",
    "module": "!!python/module:os",
    "tuple": "!!python/tuple [1, 2]",
}


def _tagged(tag: str) -> Make:
    return lambda path, canary: path.write_text(f"mine: {YAML_TAGS[tag].format(canary=canary)}\n")
