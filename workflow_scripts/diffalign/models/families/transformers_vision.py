"""Vision models of transformers (SigLIP2, SAM, I-JEPA, …): a folder with config.json and safetensors."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError, check_keys
from diffalign.models.protocol import Loaded
from diffalign.models.registry import Family
from diffalign.models.tokens import map_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ModelType:
    """How a checkpoint of one model type is read.

    vision: the class of transformers that is loaded. others: what a checkpoint carries beside it, left out by name.
    inside: what the keys of the vision half begin with in the whole checkpoint, where transformers does not know.
    fixed: whether positions are a table that is never interpolated.
    """

    vision: str
    others: tuple[str, ...] = ()
    inside: str = ""
    fixed: bool = False


_SIGLIP = ModelType("SiglipVisionModel", ("text_model.", "logit_scale", "logit_bias"))
_CLIP = ModelType("CLIPVisionModel", ("text_model.", "logit_scale", "visual_projection.", "text_projection."))
_SAM = ModelType("SamVisionModel", ("shared_image_embedding.", "prompt_encoder.", "mask_decoder."), fixed=True)
# the video model's memory is left out by transformers itself
_SAM2 = ModelType(
    "Sam2VisionModel",
    ("shared_image_embedding.", "prompt_encoder.", "mask_decoder.", "no_memory_embedding"),
    "vision_encoder.",
)
_AIMV2 = ModelType("Aimv2VisionModel", _CLIP.others, "vision_model.", fixed=True)
# vision-language and segmentation models, of which a half is read; any other type is read whole
MODEL_TYPES = {
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "sam": _SAM,
    "sam_vision_model": _SAM,
    "sam2": _SAM2,
    "sam2_video": _SAM2,
    "sam2_vision_model": _SAM2,
    "aimv2": _AIMV2,
    "aimv2_vision_model": _AIMV2,
}
# classifiers of models that are read whole
_HEADS = ("classifier.", "head.")


def load(model: Model, folder: Path, device: torch.device) -> Loaded:
    """Load the vision half of a checkpoint; patch tokens are averaged, not the class token and not registers, and maps
    over their positions.

    Positions are interpolated to the input size where transformers can. Raises CheckpointError for an unknown model
    type and for missing or unexpected keys; what a checkpoint carries beside the vision half is left out by name.
    """
    import transformers

    if model.input is None:
        raise ValueError(f"{model.name}: family transformers_vision needs 'input'")
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: missing; a transformers checkpoint is a folder with config.json and safetensors"
        )
    name = str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    kind = _kind(name, str(path))
    net = _read(folder, kind, model.initial_seed)
    net.eval().to(device)
    accepted = inspect.signature(net.forward).parameters
    interpolates = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}
    prefix = _prefix(net)
    patch = _patch(net.config)
    patches = 0

    def forward(batch: Mapping[str, Any]) -> object:
        nonlocal patches
        height, width = batch["pixels"].shape[-2:]
        patches = (height // patch) * (width // patch)
        return net(pixel_values=batch["pixels"], **interpolates)

    def patch_tokens(output: Tensor | tuple[Tensor, ...]) -> Tensor:
        states = output[0] if isinstance(output, tuple) else output
        if states.ndim == 4:
            return map_tokens(states)
        if states.ndim == 3 and not prefix:
            return states
        if states.ndim != 3 or states.shape[1] not in (patches, patches + prefix):
            raise ValueError(
                f"{model.name}: a layer gave shape {tuple(states.shape)}; expected (B, {patches} patches + {prefix}, D)"
            )
        return states[:, -patches:]

    return Loaded(
        net,
        forward,
        patch_tokens,
        {"transformers": transformers.__version__, "model_type": name, "tokens": "patch", "pooling": "mean"},
        multiple=patch,
        only_side=int(net.config.image_size) if kind.fixed else None,
    )


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow model from ``miniature``: model_type and the keys of its configuration class."""
    import torch
    import transformers

    widths = dict(miniature)
    name = widths.pop("model_type")
    kind = _kind(name, "miniature")
    torch.manual_seed(seed)
    net = _vision(kind)(transformers.AutoConfig.for_model(name, **widths))
    net.save_pretrained(folder)


def _kind(name: str, where: str) -> ModelType:
    """How this type is read. Raises CheckpointError for one that transformers does not feed with images alone."""
    import transformers

    if name in MODEL_TYPES:
        return MODEL_TYPES[name]
    known = name in transformers.CONFIG_MAPPING and transformers.CONFIG_MAPPING[name] in transformers.MODEL_MAPPING
    network = transformers.MODEL_MAPPING[transformers.CONFIG_MAPPING[name]] if known else None
    if network is None or network.main_input_name != "pixel_values":
        raise CheckpointError(
            f"{where}: model_type '{name}' is no vision model of transformers {transformers.__version__}; "
            f"known here beside its vision models: {', '.join(MODEL_TYPES)}"
        )
    return ModelType(network.__name__, _HEADS)


def _vision(kind: ModelType) -> Any:
    import transformers

    return getattr(transformers, kind.vision)


def _read(folder: Path, kind: ModelType, seed: int | None) -> Any:
    """The vision half with every key of it, or, with a seed, with the weights that it begins with.

    Raises CheckpointError.
    """
    import torch

    network = _vision(kind)
    # a pooler has no say in tokens, and many checkpoints lack it
    bare = "add_pooling_layer" in inspect.signature(network.__init__).parameters
    if seed is not None:
        torch.manual_seed(seed)
        config = network.config_class.from_pretrained(folder, local_files_only=True)
        return network(config, **({"add_pooling_layer": False} if bare else {}))
    net, info = network.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        dtype=torch.float32,
        key_mapping={f"^{re.escape(kind.inside)}": ""} if kind.inside else None,
        **({"add_pooling_layer": False} if bare else {}),
    )
    others = (*kind.others, "pooler.") if bare else kind.others
    unexpected = {key for key in info["unexpected_keys"] if not key.startswith(others)}
    check_keys(set(info["missing_keys"]), unexpected, str(folder))
    return net


def _prefix(net: torch.nn.Module) -> int:
    """How many tokens stand before the patches: class, distillation and register tokens."""
    count = 0
    for name, value in net.named_parameters():
        # an attention pooler's query is called a class token, too
        if name.startswith(("head.", "pooler.")):
            continue
        if name.endswith(("cls_token", "distillation_token", "register_tokens")):
            count += value.shape[1]
        elif name.endswith("class_embedding"):
            count += 1
    return count


def _patch(config: Any) -> int:
    """The side of a patch in pixels; 1 for networks that make none, or several."""
    size = getattr(config, "patch_size", None)
    return 1 if size is None else int(size[0] if isinstance(size, list | tuple) else size)


FAMILY = Family(reads="pixels", untrained="configuration", load=load, make_miniature=make_miniature)
