"""Autoencoders of diffusers: one path for every class."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_stimuli import rows
from test_study import load

from diffalign import models
from diffalign.extraction.passes import pooled_features
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.latents import Latents, unnormalised, write_shard
from diffalign.models import Loaded
from diffalign.models.families import diffusers_vae
from diffalign.specs import Model

CPU = torch.device("cpu")
STUDY = load()
TINY = {"class": "AutoencoderTiny", "encoder_block_out_channels": [16] * 4, "decoder_block_out_channels": [16] * 4}
WAN = {"class": "AutoencoderKLWan", "base_dim": 16, "z_dim": 16}


# catalogue name, miniature, shape of the latents of two images of 64 x 64 pixels
CLASSES = [
    ("sdvae", None, (2, 4, 8, 8)),
    ("fluxvae", None, (2, 16, 8, 8)),
    ("sanavae", None, (2, 32, 2, 2)),
    ("qwenimagevae", None, (2, 16, 8, 8)),
    ("qwenimagevae", WAN, (2, 16, 8, 8)),
    ("sanavae", TINY, (2, 4, 8, 8)),
]


def made(name: str, folder: Path, decoder: bool = False, **changes: Any) -> Loaded:
    model: Model = replace(STUDY.models[name], **changes)
    diffusers_vae.make_miniature(model.miniature, folder, 0)
    return models.load(model, folder, CPU, decoder)


def pixels(side: int = 64) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(2, 3, side, side).clamp(-1, 1)


@pytest.mark.parametrize(("name", "miniature", "shape"), CLASSES)
def test_the_latent_is_what_diffusers_encodes(
    name: str, miniature: dict[str, Any] | None, shape: tuple[int, ...], tmp_path: Path
) -> None:
    found = made(name, tmp_path, **({} if miniature is None else {"miniature": miniature}))
    kind = json.loads((tmp_path / "config.json").read_text())["_class_name"]
    vae = getattr(diffusers, kind).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        images = pixels()
        encoded = vae.encode(images.unsqueeze(2) if diffusers_vae.CLASSES[kind].video else images, return_dict=False)[0]
        expected = encoded.mode() if diffusers_vae.CLASSES[kind].moments else encoded
        latent = found.forward({"pixels": images, "names": ["a", "b"]})
    assert isinstance(latent, torch.Tensor)
    assert latent.shape == shape
    # the tolerances of torch for float32
    torch.testing.assert_close(latent, expected.reshape(shape))
    _, pooled = pooled_features(found, {"latent": "posterior"}, [{"pixels": images, "names": ["a", "b"]}])
    assert np.allclose(pooled["latent"], latent.mean((2, 3)).numpy(), atol=1e-6)


@pytest.mark.parametrize(("name", "miniature", "shape"), CLASSES)
def test_an_image_is_what_diffusers_decodes(
    name: str, miniature: dict[str, Any] | None, shape: tuple[int, ...], tmp_path: Path
) -> None:
    changes = {} if miniature is None else {"miniature": miniature}
    found = made(name, tmp_path, decoder=True, **changes)
    kind = json.loads((tmp_path / "config.json").read_text())["_class_name"]
    vae = getattr(diffusers, kind).from_pretrained(tmp_path).eval()
    batch = {"pixels": pixels(), "names": ["a", "b"]}
    with torch.no_grad():
        latents: Any = found.forward(batch)
    # as they come, and larger ones, whose images leave the range
    for z in (latents.reshape(shape), 5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))):
        with torch.no_grad():
            expected = vae.decode(z.unsqueeze(2) if diffusers_vae.CLASSES[kind].video else z, return_dict=False)[0]
        image = found.decode(z)
        assert image.shape == (2, 3, 64, 64)
        assert (image.dtype, image.requires_grad) == (torch.float32, False)
        assert torch.equal(image, (expected.reshape(image.shape) * 0.5 + 0.5).clamp(0, 1))
        assert image.std() > 0
    # the decoder is loaded where it is asked for, and changes no latent
    plain = models.load(replace(STUDY.models[name], **changes), tmp_path, CPU)
    with torch.no_grad():
        assert torch.equal(plain.forward(batch), latents)
    assert sum(each.numel() for each in plain.module.parameters()) < sum(
        each.numel() for each in found.module.parameters()
    )
    with pytest.raises(ValueError, match="loaded without a decoder; load it with decoder=True"):
        plain.decode(latents)


def test_latents_of_a_diffusion_model_become_those_of_its_autoencoder_again(tmp_path: Path) -> None:
    encoded = torch.randn(3, 4, 8, 8) * 5 + 2
    mean, std = torch.randn(1, 4, 1, 1), torch.rand(1, 4, 1, 1) + 0.5
    write_shard(tmp_path / "shard.safetensors", rows("a", "b", "c"), [encoded])
    torch.save({"mean": mean, "std": std}, tmp_path / "stats.pt")
    read = Latents([tmp_path / "shard.safetensors"], tmp_path / "stats.pt", multiplier=0.3)
    normalised = torch.stack([read[name] for name in "abc"])
    assert not torch.allclose(normalised, encoded, atol=1)
    assert torch.allclose(unnormalised(normalised, (mean, std), 0.3), encoded, atol=1e-4)


@pytest.mark.parametrize(
    ("configuration", "mean", "std"),
    [
        ({"scaling_factor": 0.25, "shift_factor": 0.5}, [0.5] * 4, [4.0] * 4),
        (
            {"scaling_factor": 0.5, "latents_mean": [1, 2, 3, 4], "latents_std": [1, 1, 2, 2]},
            [1, 2, 3, 4],
            [2, 2, 4, 4],
        ),
    ],
)
def test_statistics_are_those_of_the_configuration(
    configuration: dict[str, Any], mean: list[float], std: list[float], tmp_path: Path
) -> None:
    miniature = {**STUDY.models["sdvae"].miniature, **configuration}
    found = made("sdvae", tmp_path, miniature=miniature).latent_statistics
    assert found is not None
    assert [part.shape for part in found] == [(1, 4, 1, 1)] * 2
    assert found[0].flatten().tolist() == mean
    assert found[1].flatten().tolist() == std


def test_statistics_of_a_film_autoencoder_are_per_channel(tmp_path: Path) -> None:
    found = made("qwenimagevae", tmp_path).latent_statistics
    config = diffusers.AutoencoderKLQwenImage.load_config(tmp_path)
    assert found is not None
    assert torch.allclose(found[0].flatten(), torch.tensor(config["latents_mean"]))
    assert torch.allclose(found[1].flatten(), torch.tensor(config["latents_std"]))


def test_a_sample_of_an_autoencoder_without_posterior_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"AutoencoderDC has no posterior.*models.sanavae.posterior: mode"):
        made("sanavae", tmp_path, posterior="sample")


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    made("sdvae", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "VQModel"}))
    with pytest.raises(
        CheckpointError, match=rf"{path}: _class_name 'VQModel' is not known here; known: AutoencoderKL"
    ):
        models.load(STUDY.models["sdvae"], tmp_path, CPU)
    with pytest.raises(ValueError, match="miniature: unknown class 'VQModel'; known: AutoencoderKL"):
        diffusers_vae.make_miniature({"class": "VQModel"}, tmp_path, 0)


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    made("qwenimagevae", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_dim": 32}))
    assert load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=f"{tmp_path}.*qwenimagevae cannot be loaded"):
        models.load(STUDY.models["qwenimagevae"], tmp_path, CPU)
