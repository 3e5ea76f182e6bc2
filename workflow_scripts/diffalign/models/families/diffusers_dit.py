"""DiT (Peebles and Xie 2023) through diffusers: a class-conditional transformer with a clock of discrete steps."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError, check_there
from diffalign.models.registry import Family
from diffalign.noise import NoiseLevel, nearest_step
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.models.protocol import Denoiser, Prediction

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the transformer of a pipeline folder, from safetensors or from the ``.bin`` of older ones; all tokens are
    averaged, and the learned variance, half of the output's channels, is no part of predictions.

    A level is the step of the checkpoint's schedule whose σ/(α + σ) is nearest to t; nobody published a strength for
    DiT. Raises CheckpointError.
    """
    import diffusers
    import torch

    from diffalign.models import schedules
    from diffalign.models.networks.latent_transformers import unchanged
    from diffalign.models.protocol import Denoiser
    from diffalign.models.residual_parts import named

    net = _transformer(model, folder / "transformer").eval().to(device)
    own = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    as_prediction = schedules.conversion(own, folder)
    kept, channels = own.alphas_cumprod.tolist(), int(net.config.in_channels)

    def level(noise: str) -> NoiseLevel:
        if noise[0] != "t":
            raise ValueError(f"{model.name}: family '{model.family}' has no img2img strength '{noise}'; write t0.2")
        return nearest_step(kept, float(noise[1:]))

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Any:
        # schedulers may stand between two steps
        steps = torch.full((len(x_t),), level.timestep, device=x_t.device)
        return net(hidden_states=x_t, timestep=steps, class_labels=conditioning["labels"])

    def convert(output: Any, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return as_prediction(output.sample[:, :channels], x_t, level)

    def scheduler(steps: int, side: int, conditioning: Mapping[str, Tensor], name: str | None) -> Any:
        like = schedules.scheduler_like(schedules.scheduler_of(folder), name, folder)
        like.set_timesteps(steps)
        return like

    return Denoiser(
        net,
        level,
        run,
        convert,
        unchanged,
        channels,
        {"diffusers": diffusers.__version__, "tokens": "all", "pooling": "mean"},
        multiple=int(net.config.patch_size),
        only_side=None if model.interpolate_positions else int(net.config.sample_size),
        classes=int(net.config.num_embeds_ada_norm),
        scheduler=scheduler,
        parts=named(net, {"attention": ["attn1"], "mlp": ["ff"]}),
    )


def _transformer(model: Model, where: Path) -> Any:
    import torch
    from diffusers import DiTTransformer2DModel

    from diffalign.io.state_dicts import read_state_dict

    check_there(where / "config.json")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    config = json.loads((where / "config.json").read_text(encoding="utf-8"))
    if config.get("norm_type") != "ada_norm_zero" or not config.get("num_embeds_ada_norm"):
        raise CheckpointError(f"{where / 'config.json'}: norm_type is not 'ada_norm_zero', so this is no DiT")
    if model.initial_seed is not None:
        torch.manual_seed(model.initial_seed)
        return DiTTransformer2DModel.from_config(config)
    net = DiTTransformer2DModel.from_config(config)
    weights = next((where / name for name in _WEIGHTS if (where / name).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{where}: neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}")
    read_state_dict(weights).load_into(net)
    return net


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow DiT from ``miniature``, the keys of its configuration, and the published schedule."""
    import torch
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    torch.manual_seed(seed)
    DiTTransformer2DModel(**miniature).save_pretrained(folder / "transformer")
    DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").save_pretrained(folder / "scheduler")


FAMILY = Family(
    reads="latents",
    conditioned_on="labels",
    takes=("interpolate_positions",),
    untrained="configuration",
    schedulers=True,
    load=load,
    make_miniature=make_miniature,
)
