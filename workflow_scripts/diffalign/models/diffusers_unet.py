"""Latent diffusion UNets of diffusers (Stable Diffusion 1.5, 2.1, turbo): maps of their stages, averaged over space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffalign.models import Loaded, from_diffusers, schedules, spatial_tokens
from diffalign.models.text_encoders import encoding_pipeline, end_tokens, write_clip, write_index
from diffalign.noise import NoiseLevel
from diffalign.specs import Model

# what a batch of this family holds
READS = "latents"

# an untrained twin needs the configuration alone
UNTRAINED = "configuration"


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """``t0.5`` or ``s20`` on the checkpoint's schedule: PNDM, DDIM or Euler steps. Raises CheckpointError."""
    return schedules.noise_level(folder, noise)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the UNet. Latents at the noise level have α² + σ² = 1, as scale_model_input makes them for an Euler step.

    Raises CheckpointError.
    """
    assert noise is not None  # the config is checked
    net = from_diffusers(UNet2DConditionModel, folder / "unet", model.initial_seed)
    net.eval().to(device)
    level = noise_level(model, folder, noise)

    def forward(batch: Mapping[str, Any]) -> object:
        latents = batch["latents"]
        return net(
            latents,
            torch.full((len(latents),), level.timestep, device=latents.device),
            encoder_hidden_states=batch["prompt_embeds"],
        )

    return Loaded(
        net,
        forward,
        first_map,
        {
            "diffusers": diffusers.__version__,
            "tokens": "all positions",
            "pooling": "mean",
            "noise_level": level.facts(),
        },
        latent_channels=int(net.config.in_channels),
    )


def first_map(output: Any) -> Tensor:
    """The tokens of what a module of a UNet returned: of a stage the map, without what it hands to the way up."""
    output = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    tokens: Tensor = spatial_tokens(output) if output.ndim == 4 else output
    return tokens


def embed_prompts(model: Model, folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the pipeline: ``prompt_embeds`` (M, 77, D), and ``text`` (M, D), the last token, float32."""
    pipeline = encoding_pipeline(folder, device, model.initial_seed)
    with torch.inference_mode():
        embeds = [pipeline.encode_prompt(text, device, 1, do_classifier_free_guidance=False)[0][0] for text in texts]
        ends = end_tokens(pipeline.tokenizer, texts)
        rows = torch.stack(embeds).float().cpu()
    return {"prompt_embeds": rows, "text": rows[torch.arange(len(texts)), ends]}


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow pipeline without autoencoder from ``miniature``: the keys of the UNet's configuration, and
    ``scheduler`` and ``text_encoder_layers``.
    """
    torch.manual_seed(seed)
    widths = dict(miniature)
    scheduler = dict(widths.pop("scheduler"))
    layers = widths.pop("text_encoder_layers")
    kind = getattr(diffusers, scheduler.pop("class"))
    kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **scheduler).save_pretrained(
        folder / "scheduler"
    )
    UNet2DConditionModel(**widths).save_pretrained(folder / "unet")
    parts = write_clip(folder, "", layers, width=widths["cross_attention_dim"], projection=False)
    write_index(
        folder,
        "StableDiffusionPipeline",
        {**parts, "scheduler": ["diffusers", kind.__name__], "unet": ["diffusers", "UNet2DConditionModel"]},
    )
