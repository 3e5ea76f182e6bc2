"""A layer of a vision model that reads images in memory, such as samples and states of trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffalign import models
from diffalign.devices import choose_device
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import verify
from diffalign.specs import Compute, Model


@dataclass(frozen=True)
class Reader:
    """A layer, and the recipe and checkpoint of its model."""

    recipe: Path
    weights: Path
    record: Path
    layer: str


class OpenReader:
    """A reader whose model is loaded. model: its entry. path: the module path of the layer. facts: what recipes record.

    Raises CheckpointError for a checkpoint that is not the recorded one, ValueError for a model that reads no images.
    """

    def __init__(self, reader: Reader, compute: Compute) -> None:
        content = read_settings_file(reader.recipe)
        self.model = Model.from_recipe(content["model"])
        if self.model.input is None:
            raise ValueError(f"{self.model.name} reads no images")
        self._device, self._compute, self._input = choose_device(compute.device), compute, self.model.input
        self.path = self.model.layers[reader.layer]
        weights = verify(reader.record, reader.weights)
        self._loaded = models.load(self.model, reader.weights, self._device)
        self.facts: dict[str, Any] = {
            **content,
            **self._loaded.facts,
            "layer": reader.layer,
            "weights": weights,
            "torch": torch.__version__,
        }

    def features(self, images: Mapping[str, NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Features (N, D) of images (H, W, 3), as of PNG files of them, in the order of their names."""
        dataset = inputs.ImageArrays(images, self._input)
        batches = inputs.Batches(dataset, self._compute.batch_size, self._compute.workers, self._device)
        order, pooled = pooled_features(self._loaded, {"layer": self.path}, batches)
        row_of = {name: row for row, name in enumerate(order)}
        return pooled["layer"][[row_of[name] for name in images]]
