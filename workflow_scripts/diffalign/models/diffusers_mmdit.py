"""Multimodal diffusion transformers of diffusers (SD3, SD3.5): the image stream of each joint block."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from diffalign.models import CheckpointError, Loaded, from_diffusers
from diffalign.noise import NoiseLevel, linear
from diffalign.study import Model

# what a batch of this family holds
READS = "latents"

# the published img2img features run 100 steps whatever the strength
_PUBLISHED_STEPS = 100


def noise_level(model: Model, folder: Path, noise: str) -> NoiseLevel:
    """``t0.5``: α = 1 - t, σ = t, and the model is told 1000 t. ``s20``: what 100 img2img steps at strength 20 % start
    from on the checkpoint's own schedule, with its shift.
    """
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    if noise[0] == "t":
        alpha, sigma = linear(float(noise[1:]))
        return NoiseLevel(alpha, sigma, sigma * scheduler.config.num_train_timesteps)
    strength = int(noise[1:])
    scheduler.set_timesteps(_PUBLISHED_STEPS)
    start = _PUBLISHED_STEPS - _PUBLISHED_STEPS * strength // 100
    sigma = float(scheduler.sigmas[start])
    return NoiseLevel(1 - sigma, sigma, float(scheduler.timesteps[start]), strength)


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the transformer; every image token is averaged, text tokens never are. Raises CheckpointError."""
    where = folder / "transformer"
    if noise is None:
        raise ValueError(f"{model.name}: family diffusers_mmdit needs a noise level")
    if not (where / "config.json").is_file():
        raise CheckpointError(f"{where / 'config.json'}: missing; not a pipeline folder of diffusers")
    net = from_diffusers(SD3Transformer2DModel, where)
    net.eval().to(device)
    level = noise_level(model, folder, noise)

    def forward(batch: Mapping[str, Any]) -> object:
        latents = batch["latents"]
        return net(
            hidden_states=latents,
            timestep=torch.full((len(latents),), level.timestep, device=latents.device),
            encoder_hidden_states=batch["prompt_embeds"],
            pooled_projections=batch["pooled_prompt_embeds"],
        )

    def image_stream(output: Tensor | tuple[Tensor | None, Tensor]) -> Tensor:
        # a joint block returns (text stream, image stream); the text stream of the last one is None
        return output[1] if isinstance(output, tuple) else output

    return Loaded(
        net,
        forward,
        image_stream,
        {
            "diffusers": diffusers.__version__,
            "tokens": "image stream",
            "pooling": "mean",
            "noise_level": level.facts(),
        },
        latent_channels=int(net.config.in_channels),
        # the table of positions is large and cropped around its centre for every size
        multiple=int(net.config.patch_size),
    )


def embed_prompts(folder: Path, texts: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """Embed texts as the SD3 pipeline: ``prompt_embeds`` (M, 333, D) and ``pooled_prompt_embeds`` (M, P), float32."""
    from diffusers import StableDiffusion3Pipeline

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder,
        transformer=None,
        vae=None,
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    ).to(device)
    rows: dict[str, list[Tensor]] = {"prompt_embeds": [], "pooled_prompt_embeds": []}
    with torch.inference_mode():
        for text in texts:
            embeds, _, pooled, _ = pipeline.encode_prompt(
                prompt=text, prompt_2=text, prompt_3=text, do_classifier_free_guidance=False, device=device
            )
            rows["prompt_embeds"].append(embeds[0].float().cpu())
            rows["pooled_prompt_embeds"].append(pooled[0].float().cpu())
    return {key: torch.stack(value) for key, value in rows.items()}


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow SD3 pipeline without autoencoder: transformer, scheduler, and text encoders at their real depth
    (CLIP-L 12, CLIP-G 32, T5-XXL 24 layers) with tokenizers built here.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

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

    # byte-level BPE without merges for CLIP: every byte is a token, alone and at the end of a word
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    clip = CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], model_max_length=77)
    for name, tokenizer, layers in (("", "tokenizer", 12), ("_2", "tokenizer_2", 32)):
        clip.save_pretrained(folder / tokenizer)
        config = CLIPTextConfig(
            vocab_size=len(pieces),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=2,
            projection_dim=width,
            bos_token_id=len(pieces) - 2,
            eos_token_id=len(pieces) - 1,
            pad_token_id=len(pieces) - 1,
        )
        CLIPTextModelWithProjection(config).save_pretrained(folder / f"text_encoder{name}")

    # a Unigram of characters for T5
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = special + [(chr(code), -3.0) for code in range(33, 127)]
    t5 = T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=512)
    t5.save_pretrained(folder / "tokenizer_3")
    t5_config = T5Config(
        vocab_size=len(t5),
        d_model=text_width,
        d_kv=16,
        d_ff=2 * text_width,
        num_layers=24,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    T5EncoderModel(t5_config).save_pretrained(folder / "text_encoder_3")
    _write_index(folder)


def _write_index(folder: Path) -> None:
    """model_index.json: which class of which library each part of the pipeline is."""
    import json

    parts = {
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "tokenizer_3": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
    }
    index = {"_class_name": "StableDiffusion3Pipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
