"""What a model is fed: images from files, or noisy latents. Every item is keyed by its image's name alone."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffalign.extraction.sizes import buckets, scaled_side
from diffalign.io.latents import Latents
from diffalign.noise import NoiseLevel
from diffalign.randomness import NoiseKey, keyed, normal
from diffalign.specs import ImageInput
from diffalign.stimuli.squares import read_rgb

Item = dict[str, Any]


def pixels(image: NDArray[np.uint8], spec: ImageInput) -> Tensor:
    """An (H, W, 3) uint8 image as the (3, S, S) float32 input of a model: resized in [0, 1], cropped to its centre as
    ``spec.crop`` says, then (x - mean) / std.

    S is ``spec.size``.
    """
    unit = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32) / 255
    return normalised(resized(unit[None], spec)[0], spec)


def resized(images: Tensor, spec: ImageInput) -> Tensor:
    """(B, 3, H, W) in [0, 1] as (B, 3, S, S) in [0, 1]; an image of the side ``spec.resized`` is not resampled."""
    if images.shape[-2:] != (spec.resized, spec.resized):
        images = _interpolated(images, spec).clamp(0, 1)
    # half of an odd rest is rounded as in torchvision's CenterCrop
    start = round((spec.resized - spec.size) / 2)
    return images[..., start : start + spec.size, start : start + spec.size]


def _interpolated(images: Tensor, spec: ImageInput) -> Tensor:
    side = (spec.resized, spec.resized)
    if spec.interpolation == "nearest":
        return torch.nn.functional.interpolate(images, side, mode="nearest")
    return torch.nn.functional.interpolate(
        images, side, mode=spec.interpolation, antialias=spec.antialias, align_corners=False
    )


def noise_gain(side: int, spec: ImageInput) -> float:
    """What is left of the standard deviation of independent noise of pixels when images of this side are resized.

    Measured on three planes of noise alone, before values are clamped. It is 1 where nothing is resized.
    """
    if side == spec.resized:
        return 1.0
    drawn = torch.from_numpy(keyed(0, "gain", str(side)).standard_normal((1, 3, side, side), dtype=np.float32))
    return float(_interpolated(drawn, spec).std() / drawn.std())


def normalised(images: Tensor, spec: ImageInput) -> Tensor:
    """(…, 3, S, S) in [0, 1] as (x - mean) / std."""
    mean = torch.tensor(spec.mean).view(3, 1, 1)
    std = torch.tensor(spec.std).view(3, 1, 1)
    return (images - mean) / std


class ImageFiles(Dataset[Item]):
    """Images by name: ``{"name", "pixels"}``. scales: name -> share of the input's side; without it all have the whole
    side.
    """

    def __init__(self, files: Mapping[str, Path], spec: ImageInput, scales: Mapping[str, float] | None = None) -> None:
        self._names = sorted(files)
        self._files = dict(files)
        self._spec = spec
        self.sides = {name: scaled_side(spec.size, scales[name] if scales else 1.0) for name in self._names}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        image, _ = read_rgb(self._files[name])
        return {"name": name, "pixels": pixels(np.asarray(image), replace(self._spec, size=self.sides[name]))}


class ImageArrays(Dataset[Item]):
    """Images by name that are held in memory, (H, W, 3) uint8: what `ImageFiles` makes of PNG files of them."""

    def __init__(self, images: Mapping[str, NDArray[np.uint8]], spec: ImageInput) -> None:
        self._names = sorted(images)
        self._images = images
        self._spec = spec
        self.sides = dict.fromkeys(self._names, spec.size)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        return {"name": name, "pixels": pixels(self._images[name], self._spec)}


class NoisyLatents(Dataset[Item]):
    """Latents by name at one noise level, and the conditioning of each: ``{"name", "latents", <conditioning>}``.

    latents: name -> (C, H, W) normalised, H of several sizes. key: what noise is keyed by beside the name.
    conditioning: tensors of prompts, one row a text, or class labels. conditioning_rows: name -> row. class_tokens:
    name -> (D,), noised alike as ``class_tokens``, for models that read them beside latents. index: which of several
    draws of noise.
    """

    def __init__(
        self,
        latents: Mapping[str, Tensor],
        level: NoiseLevel,
        key: NoiseKey,
        conditioning: Mapping[str, Tensor],
        conditioning_rows: Mapping[str, int],
        class_tokens: Mapping[str, Tensor] | None = None,
        index: int = 0,
    ) -> None:
        self._names = sorted(latents)
        self._latents = latents
        self._level = level
        self._key = key
        self._conditioning = dict(conditioning)
        self._rows = conditioning_rows
        self._class_tokens = class_tokens
        self._index = index
        sides = latents.sides if isinstance(latents, Latents) else {key: z.shape[-1] for key, z in latents.items()}
        self.sides = {name: sides[name] for name in self._names}

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Item:
        name = self._names[index]
        row = self._rows[name]
        item = {"name": name, "latents": self._noisy(self._latents[name], name, "noise")}
        if self._class_tokens is not None:
            item["class_tokens"] = self._noisy(self._class_tokens[name], name, "class_token")
        return {**item, **{key: value[row] for key, value in self._conditioning.items()}}

    def _noisy(self, clean: Tensor, name: str, draw: str) -> Tensor:
        drawn = normal(tuple(clean.shape), self._key, name, draw, self._index)
        noise = torch.from_numpy(drawn)
        return self._level.alpha * clean + self._level.sigma * noise


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Stack items: ``names`` is a list, everything else a tensor."""
    batch: dict[str, Any] = {key: torch.stack([item[key] for item in items]) for key in items[0] if key != "name"}
    batch["names"] = [item["name"] for item in items]
    return batch


class Batches(Iterable[dict[str, Any]]):
    """Batches of inputs of one side each, tensors on the device; their number is its length.

    rows: which items, in order of name; all where it is None. images: their number. Larger sides come first; those of
    one side are in order of name. With workers, processes read two batches ahead each; copies to a GPU are from pinned
    memory and do not wait.
    """

    def __init__(
        self,
        dataset: ImageFiles | ImageArrays | NoisyLatents,
        batch_size: int,
        workers: int,
        device: torch.device,
        rows: range | None = None,
    ) -> None:
        sides = list(dataset.sides.values())
        rows = range(len(sides)) if rows is None else rows
        self.images = len(rows)
        grouped = buckets([sides[row] for row in rows], batch_size)
        self._members = [[rows[i] for i in members] for members in grouped]
        self._dataset = dataset
        self._workers = workers
        self._device = device

    def after(self, count: int) -> Batches:
        """The same batches without the first `count`."""
        rest = copy.copy(self)
        rest._members = self._members[count:]
        rest.images = sum(map(len, rest._members))
        return rest

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loader = DataLoader(
            self._dataset,
            batch_sampler=self._members,
            num_workers=self._workers,
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
            persistent_workers=False,
        )
        for batch in loader:
            yield {
                key: value.to(self._device, non_blocking=True) if isinstance(value, Tensor) else value
                for key, value in batch.items()
            }
