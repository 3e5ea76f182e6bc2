"""The loop that pools features: what it is fed and holds, and the mean of several passes."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from diffalign.extraction import inputs
from diffalign.extraction.passes import mean_of_passes, pooled_features
from diffalign.models import Loaded
from diffalign.specs import ImageInput

WIDTH = 256
LAYERS = {f"b{i}": str(i) for i in range(8)}


def model() -> Loaded:
    """Eight layers, of which layer i gives its input, an image's feature as a single token, plus i."""
    net = nn.Sequential(*(Plus(i) for i in range(len(LAYERS))))

    def forward(batch: Any) -> None:
        for layer in net:
            layer(batch["pixels"])

    return Loaded(net, forward, lambda output: output[:, None])


class Plus(nn.Module):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.number


def batches(values: np.ndarray, names: list[str], size: int = 50) -> list[dict[str, Any]]:
    return [
        {"names": names[at : at + size], "pixels": torch.from_numpy(values[at : at + size])}
        for at in range(0, len(names), size)
    ]


def test_the_mean_of_passes_is_that_of_their_features_in_float64() -> None:
    names = [f"image{i:03d}" for i in range(120)]
    draws = [np.random.default_rng(seed).standard_normal((120, WIDTH), np.float32) for seed in range(3)]
    order, single = mean_of_passes(model(), LAYERS, [batches(draws[0], names)], 120)
    assert order == names
    assert np.array_equal(single["b3"], draws[0] + np.float32(3))
    order, mean = mean_of_passes(model(), LAYERS, [batches(draw, names) for draw in draws], 120)
    features = [(draw + np.float32(3)).astype(np.float64) for draw in draws]
    expected = ((features[0] + features[1] + features[2]) / 3).astype(np.float32)
    assert (order, mean["b3"].dtype) == (names, np.float32)
    assert mean["b3"].tobytes() == expected.tobytes()


def test_passes_that_do_not_fit_are_refused() -> None:
    values, names = np.ones((4, WIDTH), np.float32), ["a", "b", "c", "d"]
    swapped = batches(values, ["b", "a", "c", "d"])
    with pytest.raises(ValueError, match="passes over other images cannot be averaged"):
        mean_of_passes(model(), LAYERS, [batches(values, names), swapped], 4)
    with pytest.raises(ValueError, match="batches hold more than 3 images"):
        mean_of_passes(model(), LAYERS, [batches(values, names)], 3)
    with pytest.raises(ValueError, match="batches hold 4 images, not 5"):
        mean_of_passes(model(), LAYERS, [batches(values, names, 2)], 5)
    assert pooled_features(model(), LAYERS, batches(values, names))[0] == names


@pytest.mark.parametrize(("passes", "times"), [(1, 1.1), (2, 2.3)])
def test_features_are_held_once(passes: int, times: float) -> None:
    count = 4000
    names = [f"image{i:05d}" for i in range(count)]

    def made() -> Iterator[dict[str, Any]]:
        for at in range(0, count, 50):
            yield {"names": names[at : at + 50], "pixels": torch.ones(50, WIDTH)}

    whole = count * WIDTH * 4 * len(LAYERS)
    loaded = model()
    tracemalloc.start()
    try:
        # float64 sums of several passes are twice as large, and one layer at a time becomes float32
        _, features = mean_of_passes(loaded, LAYERS, [made() for _ in range(passes)], count)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(values.nbytes for values in features.values()) == whole
    assert peak < times * whole


def test_images_in_memory_are_read_as_png_files_of_them(tmp_path: Path) -> None:
    spec = ImageInput(24, "bicubic", True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    random = np.random.default_rng(0)
    held = {name: random.integers(0, 256, (32, 32, 3)).astype(np.uint8) for name in ("b", "a", "c")}
    for name, image in held.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    files = inputs.ImageFiles({name: tmp_path / f"{name}.png" for name in held}, spec)
    of_both = [
        list(inputs.Batches(each, 2, 0, torch.device("cpu"))) for each in (files, inputs.ImageArrays(held, spec))
    ]
    assert [batch["names"] for batch in of_both[1]] == [["a", "b"], ["c"]]
    for one, other in zip(*of_both, strict=True):
        assert one["names"] == other["names"]
        assert torch.equal(one["pixels"], other["pixels"])
