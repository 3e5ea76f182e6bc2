"""DiT (Peebles and Xie 2023) through diffusers: a class-conditional transformer with a clock of discrete steps."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel

from diffalign.io.checkpoint_errors import CheckpointError, check_there
from diffalign.io.state_dicts import read_state_dict
from diffalign.models import Loaded
from diffalign.models.latent_transformers import unchanged as all_tokens
from diffalign.noise import NoiseLevel, nearest_step
from diffalign.specs import Model

# what a batch of this family holds
READS = "latents"
CONDITIONED_ON = "labels"
TAKES = ("interpolate_positions",)
# an untrained twin needs the configuration alone
UNTRAINED = "configuration"

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """The step of the checkpoint's schedule whose σ/(α + σ) is nearest to t. Raises ValueError for a strength, which
    nobody published for DiT.
    """
    if noise[0] != "t":
        raise ValueError(f"{model.name}: family '{model.family}' has no img2img strength '{noise}'; write t0.2")
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    return nearest_step(scheduler.alphas_cumprod.tolist(), float(noise[1:]))


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the transformer of a pipeline folder, from safetensors or from the ``.bin`` of older ones; all tokens are
    averaged. Raises CheckpointError.
    """
    assert noise is not None  # the config is checked
    where = folder / "transformer"
    check_there(where / "config.json")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    config = json.loads((where / "config.json").read_text(encoding="utf-8"))
    if config.get("norm_type") != "ada_norm_zero" or not config.get("num_embeds_ada_norm"):
        raise CheckpointError(f"{where / 'config.json'}: norm_type is not 'ada_norm_zero', so this is no DiT")
    if model.initial_seed is not None:
        torch.manual_seed(model.initial_seed)
    net = DiTTransformer2DModel.from_config(config)
    if model.initial_seed is None:
        weights = next((where / name for name in _WEIGHTS if (where / name).is_file()), None)
        if weights is None:
            raise CheckpointError(f"{where}: neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}")
        read_state_dict(weights).load_into(net)
    net.eval().to(device)
    level = noise_level(model, folder, noise)

    def forward(batch: Mapping[str, Any]) -> object:
        latents = batch["latents"]
        steps = torch.full((len(latents),), int(level.timestep), device=latents.device)
        return net(hidden_states=latents, timestep=steps, class_labels=batch["labels"])

    facts = {"diffusers": diffusers.__version__, "tokens": "all", "pooling": "mean", "noise_level": level.facts()}
    return Loaded(
        net,
        forward,
        all_tokens,
        facts,
        latent_channels=int(net.config.in_channels),
        latent_size=None if model.interpolate_positions else int(net.config.sample_size),
        multiple=int(net.config.patch_size),
        classes=int(net.config.num_embeds_ada_norm),
    )


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow DiT from ``miniature``, the keys of its configuration, and the published schedule."""
    torch.manual_seed(seed)
    DiTTransformer2DModel(**miniature).save_pretrained(folder / "transformer")
    DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").save_pretrained(folder / "scheduler")
