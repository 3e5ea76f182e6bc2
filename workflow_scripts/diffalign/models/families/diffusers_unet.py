"""Latent diffusion UNets of diffusers (Stable Diffusion 1.5, 2.1, turbo): maps of their stages, averaged over space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.registry import Family
from diffalign.models.tokens import spatial_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.models.protocol import Denoiser, Prediction
    from diffalign.noise import NoiseLevel


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the UNet. Latents have α² + σ² = 1, as scale_model_input makes them for an Euler step.

    ``t0.5`` and ``s20`` are on the checkpoint's schedule: PNDM, DDIM or Euler steps. Raises CheckpointError.
    """
    import diffusers
    import torch

    from diffalign.models import schedules
    from diffalign.models.diffusers_checkpoints import from_diffusers
    from diffalign.models.pipelines import set_by
    from diffalign.models.protocol import Denoiser
    from diffalign.models.residual_parts import named
    from diffalign.models.text_encoders import without_encoders

    net = from_diffusers(diffusers.UNet2DConditionModel, folder / "unet", model.initial_seed)
    net.eval().to(device)
    as_prediction = schedules.conversion(schedules.scheduler_of(folder), folder)

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Any:
        steps = torch.full((len(x_t),), level.timestep, device=x_t.device)
        return net(x_t, steps, encoder_hidden_states=conditioning["prompt_embeds"])

    def convert(output: Any, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return as_prediction(output.sample, x_t, level)

    def scheduler(steps: int, side: int, conditioning: Mapping[str, Tensor], name: str | None) -> Any:
        like = schedules.scheduler_like(schedules.scheduler_of(folder), name, folder)
        pipeline = without_encoders(folder, {"unet": net, "scheduler": like})
        size = side * pipeline.vae_scale_factor
        call = {"num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "latent", **conditioning}
        return set_by(pipeline, pipeline.scheduler, {"height": size, "width": size, **call})

    return Denoiser(
        net,
        partial(schedules.noise_level, folder, steps=model.strength_steps),
        run,
        convert,
        first_map,
        int(net.config.in_channels),
        {"diffusers": diffusers.__version__, "tokens": "all positions", "pooling": "mean"},
        scheduler=scheduler,
        # transformer blocks stand beside the resnets of a stage
        parts=named(net, {"attention": ["attn1", "attn2"], "mlp": ["ff"]}, r"(down|up)_blocks\.\d+|mid_block"),
    )


def first_map(output: Any) -> Tensor:
    """The tokens of what a module of a UNet returned: of a stage the map, without what it hands to the way up."""
    output = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    tokens: Tensor = spatial_tokens(output) if output.ndim == 4 else output
    return tokens


def embed_prompts(model: Model, folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the pipeline: ``prompt_embeds`` (M, 77, D), and ``text`` (M, D), the last token, float32."""
    import torch

    from diffalign.models.text_encoders import encoding_pipeline, end_tokens, tell_cut_texts

    pipeline = encoding_pipeline(folder, device, model.initial_seed)
    tell_cut_texts(pipeline, texts)
    with torch.inference_mode():
        embeds = [pipeline.encode_prompt(text, device, 1, do_classifier_free_guidance=False)[0][0] for text in texts]
        ends = end_tokens(pipeline.tokenizer, texts)
        rows = torch.stack(embeds).float().cpu()
    return {"prompt_embeds": rows, "text": rows[torch.arange(len(texts)), ends]}


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow pipeline without autoencoder from ``miniature``: the keys of the UNet's configuration, and
    ``scheduler`` and ``text_encoder_layers``.
    """
    import diffusers
    import torch

    from diffalign.models.text_encoders import write_clip, write_index

    torch.manual_seed(seed)
    widths = dict(miniature)
    scheduler = dict(widths.pop("scheduler"))
    layers = widths.pop("text_encoder_layers")
    kind = getattr(diffusers, scheduler.pop("class"))
    kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **scheduler).save_pretrained(
        folder / "scheduler"
    )
    diffusers.UNet2DConditionModel(**widths).save_pretrained(folder / "unet")
    parts = write_clip(folder, "", layers, width=widths["cross_attention_dim"], projection=False)
    write_index(
        folder,
        "StableDiffusionPipeline",
        {**parts, "scheduler": ["diffusers", kind.__name__], "unet": ["diffusers", "UNet2DConditionModel"]},
    )


FAMILY = Family(
    reads="latents",
    conditioned_on="prompts",
    untrained="configuration",
    schedulers=True,
    load=load,
    make_miniature=make_miniature,
    embed_prompts=embed_prompts,
    takes=("strength_steps",),
)
