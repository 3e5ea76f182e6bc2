"""Feature files of other projects, read and written: VFM-VAE, platonic-rep, thingsvision, plain arrays and our own.

Rows are joined on names, never on their order: `read_layers` returns them in order of name, and a file without names is
refused unless a names file lies beside it or row numbers are asked for. Nothing is unpickled freely.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.conditions import EQUIVARIANCE
from diffalign.io.atomic import replacing, write_text
from diffalign.io.feature_files import FEATURES_FORMAT, Features, StoreError, check_format, check_same_names
from diffalign.names import unknown
from diffalign.offenders import first_five, flagged

if TYPE_CHECKING:
    from torch import Tensor

# what a file may be; `auto` takes what its suffix and keys say
LAYOUTS = ("diffalign", "vfmvae", "platonic", "thingsvision", "array")
EXPORTS = ("vfmvae", "platonic", "thingsvision")
# in place of a names file: rows are named by their numbers
ROWS = "rows"
_KEYS = {
    "diffalign": {"format", "features", "names", "recipe"},
    "vfmvae": {"features", "names"},
    "platonic": {"feats"},
}
_TORCH = (".pt", ".pth")
_SUFFIXES = (*_TORCH, ".npy", ".npz", ".safetensors")
_IMAGE_SUFFIX = re.compile(r"\.(png|jpe?g|webp|bmp|tiff?|gif|eps)$", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Layers of one file, rows in order of name.

    values: one (N, D) float32 array for each layer that was asked for. names: N names without folder and image suffix.
    layout: one of LAYOUTS. dtype: of the numbers in the file. names_from: ``inside``, ``rows`` or a path. files: the
    files that were read, the features first.
    """

    values: tuple[NDArray[np.float32], ...]
    names: tuple[str, ...]
    layout: str
    dtype: str
    names_from: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _Content:
    """What a file holds: parts, each an array or tensor of shape (N, D), by key or index; and names, if it has any."""

    layout: str
    parts: Mapping[str, Any]
    names: Sequence[object] | None
    source: Path


def read_layers(
    path: Path, layers: Sequence[str | None] = (None,), layout: str = "auto", names: str | None = None
) -> Table:
    """Read layers of a feature file of any layout, with rows in order of name.

    path: a file, or a folder of thingsvision. layers: for each, the index in a stack (negative from the end), the key
    in .npz and .safetensors, or None for the only one. layout: one of LAYOUTS, or ``auto``. names: a names file, one a
    line; ``rows`` to name rows by number; None takes the names in the file or the names file beside it. Raises
    StoreError that names the file and the first five offenders for anything that cannot be trusted, and
    FileNotFoundError for a file that is absent.
    """
    if layout not in ("auto", *LAYOUTS):
        raise StoreError(f"{path}: {unknown('layout', layout, ('auto', *LAYOUTS))}")
    content = _content(path, layout)
    parts = [_part(content, layer, path) for layer in layers]
    found, names_path = _names(content, names, len(parts[0]), path)
    cleaned = cleaned_names(found, names_path or content.source)
    for part in parts:
        _check_rows(len(part), cleaned, content.source, names_path)
    order = sorted(range(len(cleaned)), key=cleaned.__getitem__)
    dtypes = sorted({str(part.dtype).removeprefix("torch.") for part in parts})
    inside = ROWS if names == ROWS else "inside"
    return Table(
        tuple(_float32(part, cleaned, content.source)[order] for part in parts),
        tuple(cleaned[i] for i in order),
        content.layout,
        ", ".join(dtypes),
        inside if names_path is None else str(names_path),
        (content.source,) if names_path is None else (content.source, names_path),
    )


def image_name(text: str) -> str:
    """The name of an image as data sets have it: ``aardvark/aardvark_01b.jpg`` -> ``aardvark_01b``."""
    return _IMAGE_SUFFIX.sub("", PurePosixPath(text).name)


def names_beside(path: Path) -> Path | None:
    """The names file of a feature file ``x.npy``: ``x.txt``, ``names.txt`` or ``file_names.txt`` in its folder."""
    usual = (f"{path.stem}.txt", "names.txt", "file_names.txt")
    # thingsvision may write features as text too, into features.txt
    for name in reversed(usual) if path.stem == "features" else usual:
        if path.with_name(name).is_file():
            return path.with_name(name)
    return None


# --- what a file holds ----------------------------------------------------------------------------------------------


def _content(path: Path, layout: str) -> _Content:
    if path.is_dir():
        path = path / "features.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    if path.suffix not in _SUFFIXES:
        raise StoreError(f"{path}: features are read from {', '.join(_SUFFIXES)} files, not from '{path.suffix}'")
    with _readable(path):
        if path.suffix in _TORCH:
            found = _torch_content(path, layout)
        elif path.suffix == ".safetensors":
            found = _safetensors_content(path)
        else:
            found = _numpy_content(path)
    if layout == "thingsvision" and path.name == "features.npy" and found.layout == "array":
        raise StoreError(f"{path}: file_names.txt, which thingsvision writes beside it, is missing")
    if layout not in ("auto", found.layout):
        raise StoreError(f"{path}: is laid out as '{found.layout}', not as '{layout}'")
    return found


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of a file that a library cannot read what it is not."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        # torch, numpy, zipfile and safetensors have an error of their own for each way to be broken
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "allow_pickle" in str(error):
            # both libraries say the same of a damaged file and of one that would have to be unpickled
            reason = "it is damaged, or holds pickled objects and not only arrays and text; nothing of it was executed"
        raise StoreError(f"{path}: cannot be read as features ({reason})") from error


def read_platonic_quality(path: Path) -> dict[str, float]:
    """What a file of platonic-rep says of a language model: ``loss`` (nats a token), ``bits_per_byte`` (both means over
    texts) and ``parameters``. Raises FileNotFoundError or StoreError.
    """
    import torch

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    with _readable(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    keys = {"loss": "loss", "bpb": "bits_per_byte", "num_params": "parameters"}
    missing = sorted(set(keys) - set(content if isinstance(content, dict) else ()))
    if missing:
        raise StoreError(f"{path}: has no {', '.join(missing)}, so it is not of a language model")
    found = {name: content[key] for key, name in keys.items()}
    for name, value in found.items():
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise StoreError(f"{path}: {name} has the shape {tuple(value.shape)}; expected one number")
        if not math.isfinite(value) or value <= 0:
            raise StoreError(f"{path}: {name} is {float(value)}; expected a number above 0")
    return {name: float(value) for name, value in found.items()}


def _torch_content(path: Path, layout: str) -> _Content:
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, torch.Tensor):
        return _Content("array", _stack(content), None, path)
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds a {type(content).__name__}; expected a tensor or a dictionary")
    fitting = [name for name, keys in _KEYS.items() if keys <= set(content)]
    if not fitting:
        expected = " or ".join(f"{', '.join(sorted(keys))} ({name})" for name, keys in _KEYS.items())
        raise StoreError(f"{path}: has the keys {first_five(sorted(map(str, content)))}; expected {expected}")
    found = layout if layout in fitting else fitting[0]
    if found == "diffalign":
        check_format(content["format"], FEATURES_FORMAT, path)
    features = content["feats" if found == "platonic" else "features"]
    names = None if found == "platonic" else content["names"]
    if names is not None and not isinstance(names, list | tuple):
        raise StoreError(f"{path}: 'names' is a {type(names).__name__}; expected a list of text")
    if isinstance(features, list | tuple):
        parts = {str(i): part for i, part in enumerate(features)}
    else:
        parts = _stack(features)
    strange = [key or "features" for key, part in parts.items() if not isinstance(part, torch.Tensor)]
    if strange or not parts:
        raise StoreError(f"{path}: features are no tensors: {first_five(strange) or 'an empty list'}")
    return _Content(found, parts, names, path)


def _safetensors_content(path: Path) -> _Content:
    from safetensors import safe_open

    from diffalign.io.latents import decode_names

    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no mapping)
    names = tensors.pop("names", None)
    if names is None:
        return _Content("array", _tables(tensors), None, path)
    if names.ndim != 2 or str(names.dtype) != "torch.uint8":
        raise StoreError(
            f"{path}: 'names' is {tuple(names.shape)} of {names.dtype}; expected (N, L) uint8, UTF-8 padded with zeros"
        )
    return _Content("array", _tables(tensors), decode_names(names), path)


def _numpy_content(path: Path) -> _Content:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        is_thingsvision = path.name == "features.npy" and path.with_name("file_names.txt").is_file()
        return _Content("thingsvision" if is_thingsvision else "array", _stack(loaded), None, path)
    with loaded:
        arrays = {key: loaded[key] for key in loaded.files}
    names = arrays.pop("names", None)
    if names is None:
        return _Content("array", _tables(arrays), None, path)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise StoreError(f"{path}: 'names' is {names.shape} of {names.dtype}; expected (N,) text")
    decoded = np.char.decode(names, "utf-8") if names.dtype.kind == "S" else names
    return _Content("array", _tables(arrays), decoded.tolist(), path)


def _stack(array: Any) -> dict[str, Any]:
    """The layers of (N, L, D) by index; anything else is one part, under the empty key."""
    if getattr(array, "ndim", None) == 3:
        return {str(i): array[:, i] for i in range(array.shape[1])}
    return {"": array}


def _tables(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arrays of one file those with a row an image and more than one column; a single stack by index."""
    tables = {key: array for key, array in arrays.items() if array.ndim >= 2}
    only = next(iter(tables.values())) if len(tables) == 1 else None
    return tables if only is None or only.ndim != 3 else _stack(only)


def _part(content: _Content, layer: str | None, path: Path) -> Any:
    """The array or tensor of one layer, (N, D) with N >= 1 and D >= 1. Raises StoreError that lists what exists."""
    parts = content.parts
    if not parts:
        raise StoreError(f"{path}: holds no array of shape (N, D)")
    if layer is None and len(parts) > 1:
        raise StoreError(f"{path}: holds {len(parts)} layers ({first_five(list(parts))}); say which")
    if layer is None or (layer in ("0", "-1") and set(parts) == {""}):
        key = next(iter(parts))
    elif layer not in parts and re.fullmatch(r"-[0-9]+", layer) and "0" in parts:
        key = str(len(parts) + int(layer))
    else:
        key = layer
    if key not in parts:
        has = "one layer, number 0" if set(parts) == {""} else f"{len(parts)}: {first_five(list(parts))}"
        raise StoreError(f"{path}: no layer '{layer}'; it holds {has}")
    part = parts[key]
    shape = tuple(part.shape)
    if len(shape) != 2 or 0 in shape:
        raise StoreError(f"{path}: features have shape {shape}; expected (N, D)")
    return part


# --- names ----------------------------------------------------------------------------------------------------------


def _names(content: _Content, asked: str | None, rows: int, path: Path) -> tuple[Sequence[object], Path | None]:
    """The names of the rows, not yet checked, and the names file where they came from one."""
    if asked == ROWS:
        if content.names is not None:
            raise StoreError(f"{path}: has names of its own, so its rows are not named by number")
        return [f"{i:08d}" for i in range(rows)], None
    if asked is not None:
        return names_file(Path(asked).expanduser()), Path(asked).expanduser()
    if content.names is not None:
        return content.names, None
    beside = names_beside(content.source)
    if beside is None:
        raise StoreError(
            f"{path}: has no names, and rows are never joined by position; write one name a line into "
            f"{content.source.with_suffix('.txt').name} beside it, name a names file, or ask for row numbers "
            f"(names: {ROWS})"
        )
    return names_file(beside), beside


def names_file(path: Path) -> list[str]:
    """The lines of a names file. Raises FileNotFoundError, or StoreError where it is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such names file") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise StoreError(f"{path}: cannot be read as a list of names, one a line ({error})") from error
    # not splitlines: a name may hold what that takes for the end of a line
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def cleaned_names(found: Sequence[object], where: Path) -> list[str]:
    """Names without folder and image suffix. StoreError where one is no text, empty, or stands more than once."""
    strange = [f"{name!r} (row {i})" for i, name in enumerate(found) if not isinstance(name, str) or not name.strip()]
    if strange:
        raise StoreError(f"{where}: {len(strange)} names are empty or no text, first: {first_five(strange)}")
    raw = [str(name).strip() for name in found]
    twice = [name for name, count in Counter(raw).items() if count > 1]
    if twice:
        raise StoreError(f"{where}: {len(twice)} names stand more than once, first: {first_five(twice)}")
    cleaned = [image_name(name) for name in raw]
    counts = Counter(cleaned)
    alike = [name for name, short in zip(raw, cleaned, strict=True) if counts[short] > 1]
    if alike:
        raise StoreError(
            f"{where}: {len(alike)} names are the same without folder and suffix, first: {first_five(alike)}"
        )
    return cleaned


def _check_rows(rows: int, names: Sequence[str], path: Path, names_path: Path | None) -> None:
    if rows == len(names):
        return
    where = f"in {names_path}" if names_path else "inside it"
    rest = (
        f"names without a row: {first_five(names[rows:])}"
        if rows < len(names)
        else f"rows without a name: {first_five([str(i) for i in range(len(names), min(rows, len(names) + 6))])}"
    )
    raise StoreError(f"{path}: {rows} rows for {len(names)} names {where}; if the first rows agree, {rest}")


# --- numbers --------------------------------------------------------------------------------------------------------


def _float32(part: Any, names: Sequence[str], path: Path) -> NDArray[np.float32]:
    """(N, D) float32. StoreError for other numbers than floating-point ones, NaN, Inf, and what float32 cannot hold."""
    array = part if isinstance(part, np.ndarray) else _from_tensor(part, path)
    if array.dtype.kind != "f":
        raise StoreError(f"{path}: features are {array.dtype}; expected floating-point numbers")
    _refuse(~np.isfinite(array).all(axis=1), names, path, "are NaN or infinite")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    _refuse(~np.isfinite(single).all(axis=1), names, path, f"become infinite as float32 (they are {array.dtype})")
    return single


def _from_tensor(tensor: Tensor, path: Path) -> NDArray[Any]:
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized:
        raise StoreError(f"{path}: features are a sparse or quantised tensor; expected a plain one")
    # numpy has no bfloat16
    narrow = tensor.detach().float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor.detach()
    array: NDArray[Any] = narrow.numpy()
    return array


def _refuse(bad: Any, names: Sequence[str], path: Path, what: str) -> None:
    offenders = flagged(names, bad)
    if offenders:
        raise StoreError(f"{path}: {len(offenders)} of {len(names)} rows {what}, first: {first_five(offenders)}")


# --- writing --------------------------------------------------------------------------------------------------------


def write_vfmvae(
    path: Path, features: Features, condition: str, transforms: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write one layer as VFM-VAE's scripts do: ``features``, ``names`` and ``transformations``, or, for a model with a
    noise level, the keys of its diffusion features.

    transforms: name -> ``rotation`` and ``scale``, for the condition equivariance. Raises StoreError for a condition
    that its files have no words for.
    """
    import torch

    content: dict[str, Any] = {"features": torch.from_numpy(features.values), "names": list(features.names)}
    level = features.recipe.get("noise_level")
    if level is not None:
        content |= {
            "num_images": len(features.names),
            "sorted": True,
            "sorted_by": "name",
            "timestep": float(level["t"]),
            "feature_name": _published_name(features.recipe["layer"]),
            "feature_dim": int(features.values.shape[1]),
        }
    elif condition == EQUIVARIANCE and transforms is not None:
        content["transformations"] = [{**transforms[name], "mode": EQUIVARIANCE} for name in features.names]
    else:
        content["transformations"] = [_transformation(condition, path)] * len(features.names)
    _save(path, content)


def _published_name(layer: str) -> str:
    """``b8`` -> ``block_8``, ``embed`` -> ``embedder``, ``final`` -> ``final_layer``; other aliases stay."""
    block = re.fullmatch(r"b([0-9]+)", layer)
    return f"block_{block[1]}" if block else {"embed": "embedder", "final": "final_layer"}.get(layer, layer)


def _transformation(condition: str, path: Path) -> dict[str, Any]:
    noise = re.fullmatch(r"noise_([0-9.]+)", condition)
    if noise:
        return {"mode": "noise", "noise_level": float(noise[1])}
    if condition != "clean":
        raise StoreError(
            f"{path}: VFM-VAE's layout is written for clean, noise_* and, where rotations and scales are known, "
            f"equivariance, not for '{condition}'"
        )
    return {"mode": "clean"}


def write_thingsvision(features_path: Path, names_path: Path, features: Features) -> None:
    """Write one layer as thingsvision does: ``features.npy``, (N, D) float32, and ``file_names.txt``, one a line."""
    with replacing(features_path) as temporary:
        np.save(temporary, features.values, allow_pickle=False)
    _write_names(names_path, features.names)


def write_platonic(path: Path, names_path: Path, layers: Sequence[Features]) -> None:
    """Write layers, in order of depth, as platonic-rep does: ``feats`` (N, L, D), or a list of (N, D) where widths
    differ. Its layout has no names, so they go to `names_path`. Raises StoreError where layers are of other images.
    """
    import torch

    for layer in layers:
        check_same_names(layers[0].names, layer.names, path, path)
    tensors = [torch.from_numpy(layer.values) for layer in layers]
    same = len({tensor.shape[1] for tensor in tensors}) == 1
    _save(path, {"feats": torch.stack(tensors, dim=1) if same else tensors})
    _write_names(names_path, layers[0].names)


def write_platonic_alignment(path: Path, grid: Sequence[Sequence[NDArray[np.float64]]]) -> None:
    """Write the best scores of matrices as platonic-rep does: a pickled dictionary of ``scores`` (X, Y) and
    ``indices`` (X, Y, 2), the layers in the order (y, x).

    grid: X lists of Y matrices, layers of A x layers of B. platonic-rep calls its metrics as (y, x), so the As stand
    for y and the Bs for x. Raises StoreError where a matrix has no defined score.
    """
    scores = np.empty((len(grid), len(grid[0])))
    indices = np.empty((*scores.shape, 2))
    for x, y in np.ndindex(scores.shape):
        values = grid[x][y]
        if not np.isfinite(values).any():
            raise StoreError(f"{path}: no score of the matrix ({x}, {y}) is defined, so there is no best one to write")
        indices[x, y] = np.unravel_index(np.nanargmax(values), values.shape)
        scores[x, y] = np.nanmax(values)
    best = {"scores": scores, "indices": indices}
    with replacing(path) as temporary:
        # the pickle is their layout: their readers call np.load(..., allow_pickle=True).item()
        np.save(temporary, best, allow_pickle=True)  # type: ignore[arg-type]


def read_platonic_alignment(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (X, Y) and indices (X, Y, 2) of an alignment file of platonic-rep, the layers in the order (y, x).

    Only NumPy arrays of numbers and a dictionary are unpickled. Raises StoreError for anything else.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            if shape != () or dtype != np.dtype(object):
                raise StoreError(f"holds {dtype} of shape {shape}, not a dictionary")
            content = _ArraysOnly(io.BytesIO(file.read())).load().item()
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreError(f"{path}: cannot be read as an alignment of platonic-rep ({error})") from error
    if not isinstance(content, dict) or not {"scores", "indices"} <= set(content):
        raise StoreError(f"{path}: no alignment of platonic-rep; it needs the keys indices, scores")
    scores, indices = content["scores"], content["indices"]
    if any(not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" for array in (scores, indices)):
        raise StoreError(f"{path}: scores and indices are not arrays of numbers")
    if scores.ndim != 2 or indices.shape != (*scores.shape, 2):
        raise StoreError(f"{path}: scores {scores.shape} and indices {indices.shape}; expected (X, Y) and (X, Y, 2)")
    return scores.astype(np.float64), indices.astype(np.float64)


class _ArraysOnly(pickle.Unpickler):
    """Builds NumPy arrays and built-in containers and refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        # older NumPy wrote numpy.core
        module = module.replace("numpy.core.", "numpy._core.")
        if (module, name) in {
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no array; nothing of it was executed")


def _save(path: Path, content: Mapping[str, Any]) -> None:
    import torch

    # through a file object: torch would write the name of a path into the archive, and that name is temporary
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def _write_names(path: Path, names: Sequence[str]) -> None:
    write_text(path, "".join(f"{name}\n" for name in names))
