"""What any model must beat: pixels and colours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_study import load

from diffalign import models
from diffalign.extraction.passes import pooled_features
from diffalign.specs import ImageInput

CPU = torch.device("cpu")
STUDY = load()


def features(name: str, pixels: torch.Tensor) -> dict[str, np.ndarray]:
    model = STUDY.models[name]
    found = models.load(model, Path("empty"), CPU)
    names = [str(i) for i in range(len(pixels))]
    return pooled_features(found, model.layers, [{"names": names, "pixels": pixels}])[1]


def test_pixels_are_means_of_areas() -> None:
    images = torch.rand(2, 3, 64, 64)
    found = features("pixels", images)
    assert {alias: values.shape for alias, values in found.items()} == {
        "p8": (2, 192),
        "p16": (2, 768),
        "p32": (2, 3072),
    }
    expected = images.reshape(2, 3, 32, 2, 32, 2).mean((3, 5)).flatten(1)
    np.testing.assert_allclose(found["p32"], expected.numpy(), atol=1e-6)


def test_colours_are_shares_of_pixels() -> None:
    images = torch.rand(3, 3, 16, 16)
    # black but for one white pixel, whose 1 is in the last bin, and values beyond [0, 1] as resampling gives them
    images[0] = 0
    images[0, :, 0, 0] = 1
    images[1] = torch.rand(3, 16, 16) * 1.2 - 0.1
    found = features("colors", images)
    assert {alias: values.shape for alias, values in found.items()} == {"c4": (3, 64), "c8": (3, 512)}
    black = np.zeros(512, np.float32)
    black[[0, -1]] = 255 / 256, 1 / 256
    np.testing.assert_allclose(found["c8"][0], black)
    for image, values in zip(images.clamp(0, 1).numpy(), found["c8"], strict=True):
        counted = np.histogramdd(image.reshape(3, -1).T, 8, [(0, 1)] * 3)[0]
        np.testing.assert_allclose(values, counted.ravel() / 256, atol=1e-7)


def test_no_image_depends_on_its_batch() -> None:
    images = torch.rand(4, 3, 40, 40)
    for name in ("pixels", "colors"):
        for alias, values in features(name, images).items():
            alone = features(name, images[2:3])[alias][0]
            np.testing.assert_allclose(alone, values[2], rtol=40 * 40 * np.finfo(np.float32).eps)


def test_what_is_no_statistic_is_refused() -> None:
    model = STUDY.models["pixels"]
    for path in ("pixels0", "colors17", "texture"):
        with pytest.raises(ValueError, match=f"pixels: no statistic '{path}'; allowed: pixels and the side of a grid"):
            models.load(replace(model, layers={"b0": path}), Path("empty"), CPU)
    normalised = ImageInput(64, "bicubic", True, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match=r"statistics are of pixels in \[0, 1\]"):
        models.load(replace(model, input=normalised), Path("empty"), CPU)
    with pytest.raises(ValueError, match="images of side 16 have no 32 x 32 areas"):
        features("pixels", torch.rand(1, 3, 16, 16))
