"""Features of any layout as tables of floats: layers chosen, rows joined on names and in order of name.

A file without names is refused unless a names file lies beside it or row numbers are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.headers import StoreError, reading
from diffalign.io.layouts import array, diffusion_alignment, own, platonic, thingsvision, vfmvae
from diffalign.io.layouts.content import NO_KEYS, Content, Keys, TensorFile, read_torch, single
from diffalign.io.layouts.row_names import ROWS, check_rows, cleaned_names, names_of
from diffalign.names import unknown
from diffalign.offenders import first_five

# layouts of torch.save, the one with the most keys first; a file without another wish is of the first that fits
_DICTIONARIES: Mapping[str, TensorFile] = {
    "diffalign": own.FILE,
    "vfmvae": vfmvae.FILE,
    "platonic": platonic.FILE,
}
# what a file may be; `auto` takes what its suffix and keys say
LAYOUTS = (*_DICTIONARIES, "thingsvision", array.LAYOUT, diffusion_alignment.LAYOUT)
_TORCH = (".pt", ".pth")
_SUFFIXES = (*_TORCH, ".npy", ".npz", ".safetensors")


class SeveralLayers(StoreError):
    """A file has several layers, and none of them was asked for."""


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


def read_layers(
    path: Path,
    layers: Sequence[str | None] = (None,),
    layout: str = "auto",
    names: str | None = None,
    keys: Keys = NO_KEYS,
) -> Table:
    """Read layers of a feature file of any layout, with rows in order of name.

    path: a file, or a folder of thingsvision. layers: for each, the index in a stack (negative from the end), the key
    in .npz, .safetensors and pickles, or None for the only one. layout: one of LAYOUTS, or ``auto``. names: a names
    file, one a line; ``rows`` to name rows by number; None takes the names in the file or the names file beside it.
    keys: of a dictionary of no known layout, what its features and names are called.
    Raises StoreError that names the file and the first five offenders for anything that cannot be trusted, and
    FileNotFoundError for a file that is absent.
    """
    if layout not in ("auto", *LAYOUTS):
        raise StoreError(f"{path}: {unknown('layout', layout, ('auto', *LAYOUTS))}")
    content = _content(path, layout, keys)
    parts = [_part(content, layer, path) for layer in layers]
    given, names_path = names_of(content, names, len(parts[0]), path)
    cleaned = cleaned_names(given, names_path or content.source)
    for part in parts:
        check_rows(len(part), cleaned, content.source, names_path)
    order = sorted(range(len(cleaned)), key=cleaned.__getitem__)
    dtypes = sorted({str(part.dtype).removeprefix("torch.") for part in parts})
    inside = ROWS if names == ROWS else "inside"
    with reading(content.source, "features"):
        values = tuple(single(part, cleaned, content.source)[order] for part in parts)
    return Table(
        values,
        tuple(cleaned[i] for i in order),
        content.layout,
        ", ".join(dtypes),
        inside if names_path is None else str(names_path),
        (content.source,) if names_path is None else (content.source, names_path),
    )


def layer_keys(path: Path, layout: str = "auto", keys: Keys = NO_KEYS) -> tuple[str, ...]:
    """What `read_layers` takes for each layer of a feature file, in the order of the file. Raises as it does."""
    return tuple(_content(path, layout, keys).parts)


def _content(path: Path, layout: str, keys: Keys) -> Content:
    if path.is_dir():
        path = path / thingsvision.FEATURES
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    if layout == diffusion_alignment.LAYOUT:
        # its files are pickles whatever they are called, so nothing else is taken for one
        return diffusion_alignment.read_file(path)
    if path.suffix not in _SUFFIXES:
        raise StoreError(f"{path}: features are read from {', '.join(_SUFFIXES)} files, not from '{path.suffix}'")
    with reading(path, "features"):
        if path.suffix in _TORCH:
            content = _torch_content(path, layout, keys)
        elif path.suffix == ".safetensors":
            content = array.read_safetensors(path, keys)
        else:
            content = array.read_numpy(path, keys)
    if layout == "thingsvision" and path.name == thingsvision.FEATURES and content.layout == array.LAYOUT:
        raise StoreError(f"{path}: {thingsvision.NAMES}, which thingsvision writes beside it, is missing")
    if layout not in ("auto", content.layout):
        raise StoreError(f"{path}: is laid out as '{content.layout}', not as '{layout}'")
    return content


def _torch_content(path: Path, layout: str, keys: Keys) -> Content:
    content = read_torch(path)
    if not isinstance(content, dict):
        return array.read_tensor(content, path)
    if keys.given:
        return array.read_dictionary(content, keys, path)
    fitting = [name for name, file in _DICTIONARIES.items() if file.keys <= set(content)]
    if not fitting:
        expected = " or ".join(f"{', '.join(sorted(file.keys))} ({name})" for name, file in _DICTIONARIES.items())
        raise StoreError(
            f"{path}: has the keys {first_five(sorted(map(str, content)))}; expected {expected}, or say which keys are "
            "meant"
        )
    name = layout if layout in fitting else fitting[0]
    return _DICTIONARIES[name].read(content, name, path)


def _part(content: Content, layer: str | None, path: Path) -> Any:
    """The array or tensor of one layer, (N, D) with N >= 1 and D >= 1. Raises StoreError that lists what exists."""
    parts = content.parts
    if not parts:
        raise StoreError(f"{path}: holds no array of shape (N, D)")
    if layer is None and len(parts) > 1:
        raise SeveralLayers(f"{path}: holds {len(parts)} layers ({first_five(list(parts))}); say which")
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
