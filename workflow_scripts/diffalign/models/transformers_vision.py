"""Vision models of transformers (SigLIP2 and its kin): a folder with config.json and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from diffalign.models import CheckpointError, Loaded, check_keys
from diffalign.study import Model

# what a batch of this family holds
READS = "pixels"

# an untrained twin needs the configuration alone
UNTRAINED = "configuration"

# checkpoints of vision-language models: the configuration's model_type -> the class of its vision half
_VISION_CLASSES = {
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
# what such a checkpoint carries beside the vision half
_OTHER_HALF = ("text_model.", "logit_scale", "logit_bias")


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load the vision half of a checkpoint; all of its tokens are patches and are averaged.

    Positions are interpolated to the input size. Raises CheckpointError for an unknown model type and for missing or
    unexpected keys; the text half of a vision-language checkpoint is left out by name.
    """
    if model.input is None:
        raise ValueError(f"{model.name}: family transformers_vision needs 'input'")
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; a transformers checkpoint is a folder with config.json and safetensors"
        )
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if kind not in _VISION_CLASSES:
        raise CheckpointError(f"{path}: model_type '{kind}' is not known here; known: {', '.join(_VISION_CLASSES)}")
    found = getattr(transformers, _VISION_CLASSES[kind])
    if model.initial_seed is not None:
        torch.manual_seed(model.initial_seed)
        net = found(found.config_class.from_pretrained(folder, local_files_only=True))
    else:
        net, info = found.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
        unexpected = {key for key in info["unexpected_keys"] if not key.startswith(_OTHER_HALF)}
        check_keys(set(info["missing_keys"]), unexpected, str(folder))
    net.eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        return net(pixel_values=batch["pixels"], interpolate_pos_encoding=True)

    def patch_tokens(output: Tensor | tuple[Tensor, ...]) -> Tensor:
        return output[0] if isinstance(output, tuple) else output

    return Loaded(
        net,
        forward,
        patch_tokens,
        {"transformers": transformers.__version__, "model_type": kind, "tokens": "patch", "pooling": "mean"},
        multiple=int(net.config.patch_size),
    )


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow model from ``miniature``: model_type and the keys of its configuration class."""
    widths = dict(miniature)
    kind = widths.pop("model_type")
    if kind not in _VISION_CLASSES:
        raise ValueError(f"miniature: unknown model_type '{kind}'; known: {', '.join(_VISION_CLASSES)}")
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(kind, **widths)
    getattr(transformers, _VISION_CLASSES[kind])(config).save_pretrained(folder)
