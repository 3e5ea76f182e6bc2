"""Small files that become large ones, files that announce more than they hold, long texts and deep nesting."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from case import Case, Make
from hostile_objects import PICKLED, TORCH, tensor_pickle, zipped_pickle
from importers import IMPORTERS, NAMES
from odd_names import write_parquet


def bombs() -> Iterator[Case]:
    """Small files that become large ones, and numbers of bytes that are announced and not there."""
    for importer in ("features", "compare", "transform", "embeddings"):
        yield Case("bombs", "zeros", importer, ".npz", _npz_bomb)
        yield Case("bombs", "a shape", importer, ".npz", _npz_shape)
    for importer in ("features", "transform", "triplets", "similarities", "posteriors", "dimensions"):
        yield Case("bombs", "a shape", importer, ".npy", _npy_shape)
    for importer, kinds in IMPORTERS.items():
        for suffix in kinds.suffixes:
            if suffix in TORCH:
                yield Case("bombs", "a storage", importer, suffix, _storage_bomb)
                # shapes of a checkpoint are compared with those of its model before anything is copied
                if importer != "checkpoint":
                    yield Case("bombs", "a stride of zero", importer, suffix, _stride_bomb)
                yield Case("bombs", "a deflated pickle", importer, suffix, _pickle_bomb)
            elif suffix == ".safetensors":
                yield Case("bombs", "a header", importer, suffix, _header_bomb)
                yield Case("bombs", "a shape", importer, suffix, _safetensors_shape)
    for importer, suffix in PICKLED:
        yield Case("bombs", "a long text", importer, suffix, _long_pickle)
        yield Case("bombs", "a shape", importer, suffix, _pickled_shape)
    yield Case("bombs", "20000 x 20000", "image", ".png", _png_bomb(20000, 20000))
    yield Case("bombs", "600000 x 1", "image", ".png", _png_bomb(600000, 1))
    yield Case("bombs", "12000 x 12000", "image", ".png", _png_bomb(12000, 12000))
    yield Case("bombs", "2 x 100000000", "image", ".png", _png_bomb(2, 10**8))
    yield Case("bombs", "a text chunk", "image", ".png", _text_chunk)
    yield Case("bombs", "20000 x 20000", "mask", ".png", _png_bomb(20000, 20000))
    yield Case("bombs", "20000 x 20000", "table of images", ".parquet", _image_cell_bomb)
    for suffix in (".zip", ".tar.gz"):
        yield Case("bombs", "zeros", "archive", suffix, _archive_bomb)
    yield Case("bombs", "an announced size", "archive", ".tar", _tar_size)


def _deflated(begin: bytes, megabytes: int) -> bytes:
    """A raw deflate stream of some bytes and this many megabytes of zeros, whose block is packed once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(begin) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * megabytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def _swollen_zip(path: Path, members: dict[str, bytes], megabytes: int = 2048) -> None:
    """A zip archive whose members begin with some bytes and go on with zeros; checksums are wrong."""
    body, listing = b"", b""
    for name, begin in members.items():
        packed = _deflated(begin, megabytes)
        sizes = struct.pack("<III", 0, len(packed), len(begin) + megabytes * 2**20)
        facts = struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", len(name), 0)
        listing += b"PK\x01\x02" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        listing += name.encode()
        body += b"PK\x03\x04" + facts + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(listing), len(body), 0)
    path.write_bytes(body + listing + b"PK\x05\x06" + end)


def _npz_bomb(path: Path, canary: Path) -> None:
    """2 GB of zeros a member."""
    _swollen_zip(path, {f"{name}.npy": _shape_header((2**15, 2**14)) for name in ("feats", "weights", "prompt_embeds")})


def _shape_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def _npz_shape(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("feats", "weights", "prompt_embeds", "names"):
            file.writestr(f"{name}.npy", _shape_header((2**40, 2**10)) + bytes(64))


def _npy_shape(path: Path, canary: Path) -> None:
    path.write_bytes(_shape_header((2**40, 2**10)) + bytes(64))


def _storage_bomb(path: Path, canary: Path) -> None:
    storage = b"\x8c\x05torch\x8c\x0cFloatStorage\x93"
    zipped_pickle(tensor_pickle(storage, 2**31 - 1), path, {"archive/data/0": bytes(16)})


def _stride_bomb(path: Path, canary: Path) -> None:
    """A tensor of a few bytes that says it has 12 x 10^12 numbers."""
    wide = torch.as_strided(torch.zeros(4), (12, 10**12), (0, 0))
    content = {"format": 1, "features": wide, "names": NAMES, "recipe": "{}"}
    torch.save(
        {**content, "model": {"w": wide}, "mean": wide, "std": wide, "loss": wide, "bpb": wide, "num_params": 1}, path
    )


def _pickle_bomb(path: Path, canary: Path) -> None:
    """A text of 2 GB in a pickle."""
    _swollen_zip(path, {"archive/data.pkl": b"\x80\x04\x8d" + struct.pack("<Q", 2**31), "archive/version": b"3\n"})


def _header_bomb(path: Path, canary: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")


def _safetensors_shape(path: Path, canary: Path) -> None:
    head = json.dumps({"feats": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(16))


def _long_pickle(path: Path, canary: Path) -> None:
    content = b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc."
    path.write_bytes(_object_header() + content if path.suffix == ".npy" else content)


def _object_header() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": ()})
    return buffer.getvalue()


def _pickled_shape(path: Path, canary: Path) -> None:
    """``numpy.ndarray((2**40, 2**10))``, a call that is allowed."""
    shape = b"\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x8a\x02" + (2**10).to_bytes(2, "little") + b"\x86"
    content = b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93" + shape + b"\x85R."
    path.write_bytes(_object_header() + content if path.suffix == ".npy" else content)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes, more: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _png_bomb(width: int, height: int) -> Make:
    def make(path: Path, canary: Path) -> None:
        packer = zlib.compressobj(9)
        row = bytes(width + 1) * max(1, 2**20 // (width + 1))
        rows = len(row) // (width + 1)
        parts = [packer.compress(row) for _ in range(-(-height // rows))]
        path.write_bytes(_png(width, height, b"".join([*parts, packer.flush()])))

    return make


def _text_chunk(path: Path, canary: Path) -> None:
    text = b"Comment\x00\x00" + zlib.compress(bytes(200 * 2**20), 9)
    path.write_bytes(_png(4, 4, zlib.compress(bytes(20)), _chunk(b"zTXt", text)))


def _image_cell_bomb(path: Path, canary: Path) -> None:
    _png_bomb(20000, 20000)(path, canary)
    write_parquet(path, [{"name": "a", "image": {"bytes": path.read_bytes(), "path": None}}])


def _archive_bomb(path: Path, canary: Path) -> None:
    """2 GB of zeros in 2 MB."""
    if path.suffix == ".zip":
        _swollen_zip(path, {"a.png": b""})
        return
    entry = tarfile.TarInfo("a.png")
    entry.size = 2**31
    packed = _deflated(entry.tobuf(tarfile.GNU_FORMAT), 2049)
    path.write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + packed + bytes(8))


def _tar_size(path: Path, canary: Path) -> None:
    entry = tarfile.TarInfo("a.png")
    entry.size = 2**60
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(1024))


LONG = 100 * 2**20


def texts() -> Iterator[Case]:
    """Texts of 100 MB: holes in a file, one line, one cell."""
    for importer, suffix in (
        ("captions", ".json"),
        ("captions", ".tsv"),
        ("class names", ".txt"),
        ("concepts", ".tsv"),
        ("triplets", ".csv"),
        ("similarities", ".csv"),
        ("quality table", ".csv"),
        ("parts table", ".tsv"),
        ("table", ".csv"),
        ("table", ".jsonl"),
        ("names file", ".txt"),
        ("shard index", ".json"),
        ("catalogue", ".yaml"),
    ):
        yield Case("texts", "holes", importer, suffix, _holes)
    yield Case("texts", "one caption", "captions", ".json", _long_json)
    yield Case("texts", "one caption", "captions", ".tsv", _long_row("name\ttext\nimage00\t", "\n"))
    yield Case("texts", "one caption", "table", ".jsonl", _long_row('{"name": "image00", "caption": "', '"}\n'))
    yield Case("texts", "one caption", "table", ".csv", _long_row("name,caption\nimage00,", "\n"))
    yield Case("texts", "one name", "names file", ".txt", _long_row("", "\n"))
    yield Case("texts", "one name", "class names", ".txt", _long_row("", "\n"))


def _holes(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LONG)


def _long_row(before: str, after: str) -> Make:
    def make(path: Path, canary: Path) -> None:
        with path.open("w") as file:
            file.write(before)
            for _ in range(LONG // 2**20):
                file.write("a" * 2**20)
            file.write(after)

    return make


def _long_json(path: Path, canary: Path) -> None:
    _long_row('{"image00": "', '"}')(path, canary)


DEPTH = 200_000


def nested() -> Iterator[Case]:
    """JSON, YAML and pickles that are nested deeply, and aliases that double."""
    for importer in ("captions", "shard index"):
        yield Case("nested", "lists", importer, ".json", lambda path, canary: path.write_text("[" * DEPTH))
        yield Case("nested", "closed lists", importer, ".json", _closed("[", "]"))
        yield Case("nested", "mappings", importer, ".json", _closed('{"a":', "}"))
    yield Case("nested", "lists", "table", ".jsonl", _closed("[", "]"))
    yield Case("nested", "lists", "catalogue", ".yaml", _closed("[", "]"))
    yield Case("nested", "mappings", "catalogue", ".yaml", _closed("{a: ", "}"))
    yield Case("nested", "aliases", "catalogue", ".yaml", lambda path, canary: path.write_text(aliases()))
    for importer, suffix in PICKLED:
        yield Case("nested", "tuples", importer, suffix, _nested_pickle)
    for importer, kinds in IMPORTERS.items():
        for suffix in kinds.suffixes:
            if suffix in TORCH:
                yield Case("nested", "tuples", importer, suffix, _nested_torch)
            elif suffix == ".safetensors":
                yield Case("nested", "a header", importer, suffix, _nested_header)
            elif suffix == ".npy":
                yield Case("nested", "a header", importer, suffix, _nested_npy)


def aliases() -> str:
    """YAML of 700 bytes that stands for 2^40 values."""
    lines = ["mine:", "  a0: &a0 [1, 2]", *(f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    return "\n".join(lines) + "\n"


def _closed(begin: str, end: str) -> Make:
    return lambda path, canary: path.write_text(begin * DEPTH + "1" + end * DEPTH + "\n")


def _nested_bytes() -> bytes:
    return b"\x80\x04N" + b"\x85" * 10**6 + b"."


def _nested_pickle(path: Path, canary: Path) -> None:
    path.write_bytes((_object_header() if path.suffix == ".npy" else b"") + _nested_bytes())


def _nested_torch(path: Path, canary: Path) -> None:
    zipped_pickle(_nested_bytes(), path)


def _nested_header(path: Path, canary: Path) -> None:
    head = b'{"a":' * DEPTH + b"1" + b"}" * DEPTH
    path.write_bytes(struct.pack("<Q", len(head)) + head)


def _nested_npy(path: Path, canary: Path) -> None:
    head = ("(" * 4000 + ")" * 4000 + "\n").encode()
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
