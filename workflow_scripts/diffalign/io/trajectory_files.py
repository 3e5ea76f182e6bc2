"""Trajectories of a model from noise to image, of one seed: a folder of chunks, each a safetensors file.

``trajectories.json`` holds names, groups, noise levels and the recipe, and comes last: a folder is whole or absent. A
chunk holds, of its samples, states 0 … S in order from noise to image; the last is the result, at t = 0:

- ``latents``, ``x0`` (n, S + 1, C, h, w) float32: x_t and the model's estimate of the image, as the model reads them;
- ``images``, ``x0_images`` (n, S + 1, H, W, 3) float16 in [0, 1]: both, decoded;
- ``class_tokens`` (n, S + 1, D) float32: of models that denoise class tokens beside latents, and of no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing_folder
from diffalign.io.headers import FileKind, StoreError
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five

KIND = FileKind("a folder of trajectories", 1)
TENSORS = ("latents", "x0", "images", "x0_images")
CLASS_TOKENS = "class_tokens"
_MANIFEST = "trajectories.json"
# (dtype, dimensions) of each tensor
_LAYOUTS: Mapping[str, tuple[type[np.floating[Any]], int]] = {
    "latents": (np.float32, 5),
    "x0": (np.float32, 5),
    "images": (np.float16, 5),
    "x0_images": (np.float16, 5),
    CLASS_TOKENS: (np.float32, 3),
}


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some samples of a seed. arrays: tensors of the module's docstring by name, rows in the order of names."""

    names: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """All samples of one seed, on disk. names: ascending. groups: of each name, its class, prompt or photograph.

    levels: of states 0 … S, t falling to 0. tensors: what chunks hold. recipe: what they are made of, with ``seed``.
    """

    folder: Path
    names: tuple[str, ...]
    groups: tuple[str, ...]
    levels: tuple[NoiseLevel, ...]
    tensors: tuple[str, ...]
    recipe: Mapping[str, Any]
    members: tuple[tuple[str, int], ...]

    def chunks(self, *tensors: str) -> Iterator[Chunk]:
        """One chunk after the other, in order of name; of its tensors only the named ones are read, or all of them.

        Raises ValueError for a tensor that is not there, StoreError for a broken file.
        """
        asked = self._asked(tensors)
        yield from self._parts(asked, slice(None))

    def final_images(self) -> NDArray[np.float32]:
        """The decoded results (N, H, W, 3) float32 in [0, 1], in the order of names."""
        return self._final("images")

    def final_latents(self) -> NDArray[np.float32]:
        """The results (N, C, h, w) float32, as the model reads latents, in the order of names."""
        return self._final("latents")

    def _asked(self, tensors: Sequence[str]) -> Sequence[str]:
        absent = [each for each in tensors if each not in self.tensors]
        if absent:
            raise ValueError(f"{self.folder}: no tensor '{absent[0]}'; there are {', '.join(self.tensors)}")
        return tensors or self.tensors

    def _final(self, tensor: str) -> NDArray[np.float32]:
        last = len(self.levels) - 1
        parts = self._parts([tensor], slice(last, last + 1))
        return np.concatenate([np.asarray(part.arrays[tensor][:, 0], np.float32) for part in parts])

    def _parts(self, tensors: Sequence[str], states: slice) -> Iterator[Chunk]:
        from safetensors import safe_open

        at = 0
        for file_name, count in self.members:
            path = self.folder / file_name
            KIND.read_metadata(path)
            with KIND.reading(path), safe_open(path, "np") as file:
                arrays = {each: file.get_slice(each)[:, states] for each in tensors}
                for each, array in arrays.items():
                    if len(array) != count or array.dtype != _LAYOUTS[each][0]:
                        raise StoreError(f"{path}: {each} is {array.dtype} of {len(array)} samples, not of {count}")
            yield Chunk(self.names[at : at + count], arrays)
            at += count


def write_trajectories(
    folder: Path,
    chunks: Iterable[Chunk],
    groups: Mapping[str, str],
    levels: Sequence[NoiseLevel],
    recipe: Mapping[str, Any],
) -> None:
    """Write the trajectories of one seed, chunk by chunk. groups: name -> group, of all samples; chunks hold each of
    them once, in ascending order.

    Nothing stands in the place of `folder` until all is written. Raises StoreError for chunks of other samples, tensors
    or shapes, and ValueError that names the tensor, the step and the samples where numbers are NaN or infinite.
    """
    names = sorted(groups)
    if not names:
        raise StoreError(f"{folder}: no samples, so there are no trajectories to write")
    if len(levels) < 2 or levels[-1].t != 0:
        raise StoreError(f"{folder}: {len(levels)} noise levels; expected at least 2, of which the last is t = 0")
    with replacing_folder(folder) as temporary:
        written, members, tensors = _write_chunks(temporary, chunks, levels)
        if written != names:
            wrong = sorted(set(names) ^ set(written)) or written
            raise StoreError(
                f"{folder}: chunks hold {len(written)} samples, not the {len(names)} of groups once and in order, "
                f"first: {first_five(wrong)}"
            )
        KIND.write_json(
            temporary / _MANIFEST,
            names=names,
            groups=[groups[name] for name in names],
            levels=[level.facts() for level in levels],
            tensors=list(tensors),
            chunks=[{"file": file_name, "samples": count} for file_name, count in members],
            recipe=dict(recipe),
        )


def read_trajectories(folder: Path) -> Trajectories:
    """What `write_trajectories` wrote, with no chunk read yet. Raises StoreError for a folder that is not whole."""
    manifest = folder / _MANIFEST
    if not manifest.is_file():
        raise StoreError(f"{manifest}: missing, so the folder is not whole; delete it and rerun")
    content = KIND.read_json(manifest)
    with KIND.reading(manifest):
        keys = ("alpha", "sigma", "timestep", "strength")
        found = Trajectories(
            folder,
            tuple(content["names"]),
            tuple(content["groups"]),
            tuple(NoiseLevel(**{key: level[key] for key in keys}) for level in content["levels"]),
            tuple(content["tensors"]),
            content["recipe"],
            tuple((member["file"], member["samples"]) for member in content["chunks"]),
        )
        counts = {len(found.names), len(found.groups), sum(count for _, count in found.members)}
    if len(counts) > 1:
        raise StoreError(f"{manifest}: names, groups and chunks are of {', '.join(map(str, sorted(counts)))} samples")
    absent = [file_name for file_name, _ in found.members if not (folder / file_name).is_file()]
    if absent:
        raise StoreError(f"{folder / absent[0]}: missing, so the folder is not whole; delete it and rerun")
    return found


def _write_chunks(
    folder: Path, chunks: Iterable[Chunk], levels: Sequence[NoiseLevel]
) -> tuple[list[str], list[tuple[str, int]], tuple[str, ...]]:
    """Names in the order of chunks, files with their numbers of samples, and the tensors that all of them hold."""
    from diffalign.io.safetensors_files import save_file

    names: list[str] = []
    members: list[tuple[str, int]] = []
    shapes: dict[str, tuple[int, ...]] = {}
    for number, chunk in enumerate(chunks):
        path = folder / f"chunk_{number:04d}.safetensors"
        _check(chunk, levels)
        here = {key: array.shape[1:] for key, array in chunk.arrays.items()}
        if shapes and here != shapes:
            raise StoreError(f"{path.name}: tensors of shapes {here}, but {shapes} before")
        shapes = here
        save_file({key: np.ascontiguousarray(array) for key, array in chunk.arrays.items()}, path, KIND.metadata())
        names.extend(chunk.names)
        members.append((path.name, len(chunk.names)))
    return names, members, tuple(key for key in _LAYOUTS if key in shapes)


def _check(chunk: Chunk, levels: Sequence[NoiseLevel]) -> None:
    """Raise StoreError for arrays of another layout, ValueError for numbers that are NaN or infinite."""
    unknown = sorted(set(chunk.arrays) - set(_LAYOUTS)) + [key for key in TENSORS if key not in chunk.arrays]
    if unknown:
        raise StoreError(
            f"tensors {', '.join(sorted(chunk.arrays))}; expected {', '.join(TENSORS)} and perhaps {CLASS_TOKENS}"
        )
    for key, array in chunk.arrays.items():
        dtype, dimensions = _LAYOUTS[key]
        begins = (len(chunk.names), len(levels))
        if array.dtype != dtype or array.ndim != dimensions or array.shape[:2] != begins:
            raise StoreError(
                f"{key} is {array.dtype} of shape {array.shape}; expected {np.dtype(dtype)}, {dimensions} dimensions "
                f"that begin with {begins}: samples and states"
            )
        finite = np.isfinite(array).reshape(*begins, -1).all(axis=2)
        if not finite.all():
            step = int(np.flatnonzero(~finite.all(axis=0))[0])
            bad = [name for name, good in zip(chunk.names, finite[:, step], strict=True) if not good]
            raise ValueError(
                f"{key} is NaN or infinite at step {step} of {len(levels) - 1}, t = {levels[step].t:.3f}, "
                f"for {first_five(bad)}"
            )


def first_of_groups(names: Sequence[str], groups: Sequence[str], count: int) -> list[str]:
    """`count` samples: the first name of every group, in order of groups, then the second of every group, and so on."""
    members: dict[str, list[str]] = {}
    for name, group in sorted(zip(names, groups, strict=True)):
        members.setdefault(group, []).append(name)
    turns = sorted((turn, group, name) for group, listed in members.items() for turn, name in enumerate(listed))
    return [name for _, _, name in turns[:count]]
