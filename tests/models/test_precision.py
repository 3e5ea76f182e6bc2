"""Precision and compilation: how a model runs, and what stays the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_models import STUDY, batch, checkpoints, load_any, loaded
from torch import nn

from diffalign import models
from diffalign.extraction.passes import compile_layers, pooled_features
from diffalign.specs import Model

__all__ = ["checkpoints"]


def at(name: str, folder: Path, precision: str) -> models.Loaded:
    entry = STUDY.models[name]
    return load_any(Model(**{**vars(entry), "precision": precision}), folder)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["dinov2", "convnext", "siglip2", "sam", "sdvae", "sd3"])
def test_lower_precision_is_autocast(name: str, precision: str, checkpoints: dict[str, Path]) -> None:
    layers = STUDY.models[name].layers
    plain = loaded(name, checkpoints[name])
    _, full = pooled_features(plain, layers, [batch(name)])
    with torch.autocast("cpu", getattr(torch, precision)):
        _, cast = pooled_features(plain, layers, [batch(name)])
    _, found = pooled_features(at(name, checkpoints[name], precision), layers, [batch(name)])
    for alias in layers:
        assert found[alias].dtype == np.float32
        scale = np.abs(full[alias]).max()
        # oneDNN may choose another kernel for weights that are cast once than for weights that are cast in each call
        assert np.abs(found[alias] - cast[alias]).max() <= torch.finfo(getattr(torch, precision)).eps * scale
        assert np.abs(found[alias] - full[alias]).max() < 0.1 * scale
    assert any(not np.array_equal(found[alias], full[alias]) for alias in layers)


def test_norms_and_sums_stay_float32(checkpoints: dict[str, Path]) -> None:
    net: Any = at("dinov2", checkpoints["dinov2"], "bfloat16").module
    assert net.blocks[0].attn.qkv.weight.dtype == net.patch_embed.proj.weight.dtype == torch.bfloat16
    assert net.norm.weight.dtype == net.pos_embed.dtype == torch.float32
    # the mean over tokens of a layer in half precision is not: 1000 and 1000 halves of a thousandth
    tokens = torch.cat([torch.full((1, 1000, 1), 1000.0), torch.full((1, 1000, 1), 0.5)], 1).half()
    module = nn.Sequential(nn.Identity())
    found = models.Loaded(module, lambda given: module(given["pixels"]), lambda output: output)
    _, features = pooled_features(found, {"b0": "0"}, [{"names": ["a"], "pixels": tokens}])
    assert features["b0"].item() == pytest.approx(500.25)


@pytest.mark.parametrize("name", ["dinov2", "sam2", "sd3"])
def test_compiled_layers_give_the_same_features(name: str, checkpoints: dict[str, Path]) -> None:
    layers = STUDY.models[name].layers
    _, expected = pooled_features(loaded(name, checkpoints[name]), layers, [batch(name)])
    found = loaded(name, checkpoints[name])
    compile_layers(found, layers, backend="aot_eager")
    names, features = pooled_features(found, layers, [batch(name), batch(name, 2)])
    assert len(names) == 5
    for alias in layers:
        assert np.abs(features[alias][:3] - expected[alias]).max() <= 1e-5
