"""Images of a training, batch by batch, in an order that the seed, the epoch and the names give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from diffalign.randomness import shuffled

if TYPE_CHECKING:
    from torch import Tensor

# images that are read at a time
_BLOCK = 256


@dataclass(frozen=True)
class Batch:
    """Images of a step. names: theirs. tensors: ``pixels`` or ``latents`` (B, C, H, W), ``labels`` (B,) int64 where
    they have any, ``teacher`` (B, T, D) where a layer is aligned; on the device, rows in the order of names.
    """

    names: Sequence[str]
    tensors: Mapping[str, Tensor]


class Images(Protocol):
    """Where images come from: one of `HeldImages` and `StreamedImages`."""

    @property
    def names(self) -> Sequence[str]:
        """Of all images, sorted."""

    def batches(self, order: Iterable[Sequence[int]], device: torch.device) -> Iterator[Batch]:
        """The batches of these rows, numbers of `names`."""


@dataclass(frozen=True)
class HeldImages:
    """Images in memory. tensors: (N, …) each, rows in the order of names."""

    names: Sequence[str]
    tensors: Mapping[str, Tensor]

    def batches(self, order: Iterable[Sequence[int]], device: torch.device) -> Iterator[Batch]:
        """The batches of these rows, numbers of `names`."""
        for rows in order:
            chosen = torch.as_tensor(rows)
            on_device = {key: tensor[chosen].to(device) for key, tensor in self.tensors.items()}
            yield Batch([self.names[row] for row in rows], on_device)


@dataclass(frozen=True)
class StreamedImages:
    """Images that are read when they are needed, by `workers` processes, or by this one where there are none.

    dataset: row -> ``name``, and tensors as in `Batch`, without the batch. Batches are those of `HeldImages`.
    """

    names: Sequence[str]
    dataset: Dataset[Mapping[str, Any]]
    workers: int = 0

    def batches(self, order: Iterable[Sequence[int]], device: torch.device) -> Iterator[Batch]:
        """The batches of these rows, numbers of `names`."""
        loader = DataLoader(
            self.dataset,
            batch_sampler=(list(rows) for rows in order),
            num_workers=self.workers,
            collate_fn=_stacked,
            pin_memory=device.type == "cuda",
        )
        for names, tensors in loader:
            yield Batch(names, {key: tensor.to(device, non_blocking=True) for key, tensor in tensors.items()})


def held(images: StreamedImages) -> HeldImages:
    """The same images in memory, each read once."""
    blocks = [range(i, min(i + _BLOCK, len(images.names))) for i in range(0, len(images.names), _BLOCK)]
    read = list(images.batches(blocks, torch.device("cpu")))
    return HeldImages(images.names, {key: torch.cat([each.tensors[key] for each in read]) for key in read[0].tensors})


def _stacked(items: Sequence[Mapping[str, Any]]) -> tuple[list[str], dict[str, Tensor]]:
    keys = [key for key in items[0] if key != "name"]
    return [item["name"] for item in items], {key: torch.stack([item[key] for item in items]) for key in keys}


def order_of(names: Sequence[str], batch_size: int, seed: int, steps: int, made: int = 0) -> Iterator[list[int]]:
    """The rows of the batch of each step, from the first to the last, without those of the first `made` steps.

    In each epoch every image has its place by the hash of (seed, epoch, name); whole batches are taken, and the few
    images that are left are not seen in it. Raises ValueError for a batch larger than the data.
    """
    if batch_size > len(names):
        raise ValueError(f"a batch of {batch_size} images is larger than the data set, which has {len(names)}")
    return _order(names, batch_size, seed, steps, made)


def _order(names: Sequence[str], batch_size: int, seed: int, steps: int, made: int) -> Iterator[list[int]]:
    per_epoch = len(names) // batch_size
    epoch, rows = -1, list[int]()
    for step in range(made, steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            rows = shuffled(names, seed, f"training order\x00{epoch}")
        first = step % per_epoch * batch_size
        yield rows[first : first + batch_size]
