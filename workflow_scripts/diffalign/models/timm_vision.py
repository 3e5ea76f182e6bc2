"""Vision models of timm: a folder with config.json and model.safetensors, as timm keeps them on the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models._hub import save_for_hf
from torch import Tensor

from diffalign.models import CheckpointError, Loaded, check_keys, spatial_tokens
from diffalign.study import Model

# what a batch of this family holds
READS = "pixels"
TAKES = ("tokens",)

# an untrained twin needs the configuration alone
UNTRAINED = "configuration"

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Build the architecture that config.json names and load its weights, every key of them.

    Patch tokens are averaged, not the class token and not registers; a ConvNet's map over its positions. With ``tokens:
    class`` the class token is taken alone. Positions of a transformer are interpolated to the input size (timm's
    ``dynamic_img_size``). Raises CheckpointError.
    """
    if model.input is None:
        raise ValueError(f"{model.name}: family timm_vision needs 'input'")
    config = _read_config(folder)
    arguments = {**config.get("model_args", {}), "num_classes": 0}
    if model.initial_seed is not None:
        torch.manual_seed(model.initial_seed)
    net = timm.create_model(config["architecture"], pretrained=False, **_dynamic(config["architecture"], arguments))
    if not model.untrained:
        found = load_file(folder / _WEIGHTS)
        expected = set(net.state_dict())
        # timm checkpoints may carry the classifier that num_classes=0 leaves out
        extra = {key for key in set(found) - expected if not key.startswith(("head.", "fc."))}
        check_keys(expected - set(found), extra, str(folder / _WEIGHTS))
        net.load_state_dict({key: found[key] for key in expected})
    net.eval().to(device)
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    patches = 0
    if model.tokens == "class" and getattr(net, "cls_token", None) is None:
        raise ValueError(f"{model.name}: tokens 'class' asked for, but {config['architecture']} has no class token")
    channels_last = getattr(net, "output_fmt", "NCHW") == "NHWC"

    def patch_tokens(output: Tensor) -> Tensor:
        if output.ndim == 4:
            # a patch embedding at any input size, and hierarchical transformers such as Swin, keep channels last
            last = channels_last or (patches > 0 and output.shape[1] * output.shape[2] == patches)
            return output.flatten(1, 2) if last else spatial_tokens(output)
        if output.ndim != 3 or output.shape[1] not in (patches, patches + prefix):
            raise ValueError(
                f"{model.name}: a layer gave shape {tuple(output.shape)}; expected (B, {patches} patches + {prefix}, D)"
            )
        return output[:, -patches:]

    def class_token(output: Tensor) -> Tensor:
        if output.ndim != 3 or output.shape[1] != patches + prefix:
            raise ValueError(
                f"{model.name}: a layer gave shape {tuple(output.shape)}, which has no class token; "
                f"expected (B, {patches} patches + {prefix}, D)"
            )
        return output[:, :1]

    def forward(batch: Mapping[str, Any]) -> object:
        nonlocal patches
        patches = _patches(net, batch["pixels"].shape[-1])
        return net.forward_features(batch["pixels"])

    facts = {
        "timm": timm.__version__,
        "architecture": config["architecture"],
        "tokens": "class" if model.tokens == "class" else "patch" if prefix else "all",
        "pooling": "none" if model.tokens == "class" else "mean",
    }
    tokens = class_token if model.tokens == "class" else patch_tokens
    multiple, input_size = _sides(net)
    return Loaded(net, forward, tokens, facts, multiple=multiple, input_size=input_size)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow model of the architecture named in ``miniature.architecture``, in timm's own layout."""
    widths = dict(miniature)
    architecture = widths.pop("architecture")
    torch.manual_seed(seed)
    arguments = {**widths, "num_classes": 0}
    net = timm.create_model(architecture, pretrained=False, **_dynamic(architecture, arguments))
    save_for_hf(net, str(folder), model_args=widths, safe_serialization=True)


def _dynamic(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Ask vision transformers for positions at any input size; other architectures have no such argument."""
    if architecture.startswith(("vit_", "deit", "eva")):
        return {**arguments, "dynamic_img_size": True}
    return dict(arguments)


def _patches(net: torch.nn.Module, size: int) -> int:
    """Number of patches of a transformer at an input of size x size pixels; 0 for a ConvNet."""
    embedding = getattr(net, "patch_embed", None)
    if embedding is None or not hasattr(embedding, "dynamic_feat_size"):
        return 0
    rows, columns = embedding.dynamic_feat_size((size, size))
    return int(rows * columns)


def _sides(net: torch.nn.Module) -> tuple[int, int | None]:
    """What the side of an input must be a multiple of, and the only one there is for a transformer of fixed size."""
    embedding = getattr(net, "patch_embed", None)
    if embedding is None or not hasattr(embedding, "strict_img_size"):
        return 1, None
    return int(embedding.patch_size[0]), int(embedding.img_size[0]) if embedding.strict_img_size else None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; a timm checkpoint is a folder with {_CONFIG} and {_WEIGHTS}")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "architecture" not in config:
        raise CheckpointError(f"{path}: no key 'architecture', so this is no timm checkpoint")
    return config
