"""Multimodal diffusion transformers of diffusers (SD3, SD3.5): the image stream of each joint block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.registry import Family
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.models.protocol import Denoiser, Prediction
    from diffalign.noise import NoiseLevel


def load(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load the transformer; every image token is averaged, text tokens never are.

    ``t0.5``: α = 1 - t, σ = t, and the model's clock is at 1000 t. ``s20``: what 100 img2img steps at strength 20 %
    start from on the checkpoint's own schedule, with its shift. Raises CheckpointError.
    """
    import diffusers
    import torch

    from diffalign.models import schedules
    from diffalign.models.diffusers_checkpoints import from_diffusers
    from diffalign.models.pipelines import set_by
    from diffalign.models.protocol import Denoiser
    from diffalign.models.residual_parts import named
    from diffalign.models.text_encoders import without_encoders

    net = from_diffusers(diffusers.SD3Transformer2DModel, folder / "transformer", model.initial_seed)
    net.eval().to(device)
    as_prediction = schedules.conversion(schedules.scheduler_of(folder), folder)

    def run(x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Any:
        return net(
            hidden_states=x_t,
            timestep=torch.full((len(x_t),), level.timestep, device=x_t.device),
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
        )

    def convert(output: Any, x_t: Tensor, level: NoiseLevel, _: Mapping[str, Tensor]) -> Prediction:
        return as_prediction(output.sample, x_t, level)

    def scheduler(steps: int, side: int, conditioning: Mapping[str, Tensor], name: str | None) -> Any:
        like = schedules.scheduler_like(schedules.scheduler_of(folder), name, folder)
        pipeline = without_encoders(folder, {"transformer": net, "scheduler": like})
        size = side * pipeline.vae_scale_factor
        call = {"num_inference_steps": steps, "guidance_scale": 1.0, "output_type": "latent", **conditioning}
        return set_by(pipeline, pipeline.scheduler, {"height": size, "width": size, **call})

    def image_stream(output: Tensor | tuple[Tensor | None, Tensor]) -> Tensor:
        # a joint block returns (text stream, image stream); the text stream of the last one is None
        return output[1] if isinstance(output, tuple) else output

    return Denoiser(
        net,
        partial(schedules.noise_level, folder, steps=model.strength_steps),
        run,
        convert,
        image_stream,
        int(net.config.in_channels),
        {"diffusers": diffusers.__version__, "tokens": "image stream", "pooling": "mean"},
        # the table of positions is large and cropped around its centre for every size
        multiple=int(net.config.patch_size),
        scheduler=scheduler,
        # ff_context is the text's; attn returns the image stream first, attn2 of SD3.5 it alone
        parts=named(net, {"attention": ["attn", "attn2"], "mlp": ["ff"]}),
    )


def embed_prompts(model: Model, folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the SD3 pipeline: ``prompt_embeds`` (M, 333, D) and ``pooled_prompt_embeds`` (M, P), float32.

    ``text`` (M, P), what stands for a text without an image, is the latter: the end tokens of both CLIP encoders.
    """
    import torch

    from diffalign.models.text_encoders import encoding_pipeline, tell_cut_texts

    pipeline = encoding_pipeline(folder, device, model.initial_seed)
    tell_cut_texts(pipeline, texts)
    rows: dict[str, list[Tensor]] = {"prompt_embeds": [], "pooled_prompt_embeds": []}
    with torch.inference_mode():
        for text in texts:
            embeds, _, pooled, _ = pipeline.encode_prompt(
                prompt=text, prompt_2=text, prompt_3=text, do_classifier_free_guidance=False, device=device
            )
            rows["prompt_embeds"].append(embeds[0].float().cpu())
            rows["pooled_prompt_embeds"].append(pooled[0].float().cpu())
    tensors = {key: torch.stack(value) for key, value in rows.items()}
    return {**tensors, "text": tensors["pooled_prompt_embeds"].clone()}


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow SD3 pipeline without autoencoder: transformer, scheduler, and text encoders at their real depth
    (CLIP-L 12, CLIP-G 32, T5-XXL 24 layers) with tokenizers built here.
    """
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    from diffalign.models.text_encoders import write_clip, write_index, write_t5

    torch.manual_seed(seed)
    width, text_width = 32, 64
    SD3Transformer2DModel(
        **miniature,
        joint_attention_dim=text_width,
        caption_projection_dim=miniature["num_attention_heads"] * miniature["attention_head_dim"],
        pooled_projection_dim=2 * width,
        out_channels=miniature["in_channels"],
    ).save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        **write_clip(folder, "", 12, width=width, projection=True),
        **write_clip(folder, "_2", 32, width=width, projection=True),
        **write_t5(folder, "_3", width=text_width),
    }
    write_index(folder, "StableDiffusion3Pipeline", parts)


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
