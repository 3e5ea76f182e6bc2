"""Inputs that are the centre of an image, as timm's transforms make them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, read_yaml
from PIL import Image
from skimage import data
from test_study import load, mistakes
from timm.data import create_transform, resolve_data_config

from diffalign.extraction.inputs import ImageArrays, noise_gain, pixels, resized
from diffalign.specs import ImageInput

PHOTOGRAPH = np.ascontiguousarray(data.astronaut()[:, :512])
# the published vision models
CLS = [name for name in load().models if name.endswith(".cls") and name != "dinov2.cls"]


def entry(crop: float, size: int) -> ImageInput:
    return ImageInput(size, "bicubic", True, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), crop=crop)


@pytest.mark.parametrize(("crop", "size"), [(0.9, 224), (0.875, 224), (0.95, 64), (0.9, 63), (1.0, 224), (0.9, 256)])
def test_the_centre_is_what_the_published_transform_gives(crop: float, size: int) -> None:
    spec = entry(crop, size)
    config = {"input_size": (3, size, size), "interpolation": "bicubic", "crop_pct": crop}
    transform: Any = create_transform(**resolve_data_config({**config, "mean": spec.mean, "std": spec.std}))
    theirs, ours = transform(Image.fromarray(PHOTOGRAPH)), pixels(PHOTOGRAPH, spec)
    assert ours.shape == theirs.shape == (3, size, size)
    apart = (ours - theirs).abs() * torch.tensor(spec.std).view(3, 1, 1) * 255
    # theirs are rounded to bytes, and cut to their range, after each direction of resizing
    assert float(apart.max()) < 10
    assert float(apart.mean()) < 0.4
    # another crop would be far away
    if crop < 1:
        other = pixels(PHOTOGRAPH, replace(spec, crop=1.0))
        assert float((other - theirs).abs().mean()) > 10 * float((ours - theirs).abs().mean())


def test_an_image_of_the_resized_side_is_only_cropped() -> None:
    spec = ImageInput(9, "bicubic", True, (0, 0, 0), (1, 1, 1), crop=0.75)
    assert spec.resized == 12
    image = torch.rand(1, 3, 12, 12)
    # half of the odd rest is rounded as torchvision does, 1.5 to 2
    assert torch.equal(resized(image, spec), image[..., 2:11, 2:11])
    assert noise_gain(12, spec) == 1.0
    assert noise_gain(24, spec) < 0.8
    # an image of the input's own side is enlarged first
    assert not torch.equal(resized(image[..., :9, :9], spec), image[..., :9, :9])
    dataset = ImageArrays({"a": np.zeros((24, 24, 3), np.uint8)}, spec)
    assert (dataset[0]["pixels"].shape, dataset.sides) == ((3, 9, 9), {"a": 9})


def test_the_profile_has_the_crop_of_every_published_model() -> None:
    profile = read_yaml(ROOT / "profiles/platonic/study.yaml")["models"]
    models = load({"models": {name: changes for name, changes in profile.items() if name in CLS}}).models
    assert len(CLS) == 17
    for name in CLS:
        model = models[name]
        hub = (model.weights.hub or "").removeprefix("timm/")
        if not hub:
            # the demo's study has miniatures
            hub = str(model.miniature["architecture"])
        config = timm.get_pretrained_cfg(hub)
        assert config is not None
        assert model.input is not None
        assert model.input.crop == config.crop_pct, name
        assert (config.crop_mode, config.interpolation) == ("center", model.input.interpolation)
    assert sum(models[name].input.crop < 1 for name in CLS) == 8  # type: ignore[union-attr]


def test_the_default_stands_in_no_recipe() -> None:
    model = load().models["dinov2"]
    assert model.input is not None
    assert "crop" not in model.recipe()["input"]
    assert replace(model, input=replace(model.input, crop=0.9)).recipe()["input"]["crop"] == 0.9
    # a change of one entry is none of those that inherit from it
    changed = load({"models": {"vit.t.cls": {"input": {"crop": 0.9}}}}).models
    assert (changed["vit.t.cls"].input.crop, changed["dinov2.s.cls"].input.crop) == (0.9, 1.0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        (1.1, "models.dinov2.input.crop: 1.1 is greater than the maximum of 1"),
        (90, "models.dinov2.input.crop: 90 is greater than the maximum of 1"),
        (0, "models.dinov2.input.crop: 0 must be greater than 0"),
        (-0.5, "models.dinov2.input.crop: -0.5 must be greater than 0"),
        ("90%", "models.dinov2.input.crop: '90%' is not of type 'number'"),
    ],
)
def test_crops_that_are_no_share_of_the_side(crop: object, message: str) -> None:
    assert message in mistakes({"models": {"dinov2": {"input": {"crop": crop}}}})


def test_whole_images_where_places_matter() -> None:
    overlay = {
        "models": {"dinov2": {"input": {"crop": 0.9}}, "sdvae": {"input": {"crop": 0.9}}},
        "shared_space": {"spaces": {"x": {"dataset": "photographs", "layers": ["dinov2_b3", "siglip2_b3"]}}},
    }
    found = mistakes(overlay)
    assert "models.sdvae.input.crop: latents are of whole images" in found
    assert "shared_space.spaces.x.layers[0]: the tokens of 'dinov2_b3' are of the centre of images" in found
    # a training of REPA's loss aligns tokens place by place
    trained = read_yaml(ROOT / "tests/plan/every_rule.yaml")
    trained = {key: trained[key] for key in ("datasets", "models")}
    load(trained)
    trained["models"]["own.vit"]["input"]["crop"] = 0.9
    found = mistakes(trained)
    assert "models.own.repa.training.teacher: the tokens of 'own.vit' are of the centre of images (input.crop)" in found
