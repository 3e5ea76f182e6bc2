"""Vision models of timm: a folder with config.json and model.safetensors, as timm keeps them on the hub."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError, check_keys
from diffalign.models.protocol import Loaded, Trainable
from diffalign.models.registry import Family
from diffalign.models.tokens import map_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# arguments of timm's create_model that lead to other files than those of the checkpoint
_ELSEWHERE = frozenset({"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"})
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def load(model: Model, folder: Path, device: torch.device) -> Loaded:
    """Build the architecture that config.json names and load its weights, every key of them.

    ``architecture`` of the entry, with timm's arguments, overrides what config.json says. Patch tokens are averaged,
    not the class token and not registers; a ConvNet's map over its positions. With ``tokens: class`` the class token is
    taken alone. Positions of a transformer are interpolated to the input size (timm's ``dynamic_img_size``).
    ``num_classes`` in ``architecture`` keeps the classifier, so that its logits can be a layer, one token an image;
    without it there is none. Keys of older layouts are converted as timm does. Raises CheckpointError.
    """
    import timm

    if model.input is None:
        raise ValueError(f"{model.name}: family timm_vision needs 'input'")
    config = _read_config(folder)
    arguments = dict(config.get("model_args", {}))
    if model.weights.source != "miniature":
        arguments |= model.architecture
    architecture = arguments.pop("architecture", config["architecture"])
    classes = 0 if model.weights.source == "miniature" else int(model.architecture.get("num_classes", 0))
    net: Any = _build(architecture, arguments, model.initial_seed, classes)
    if not model.untrained:
        _load_weights(net, folder / _WEIGHTS)
    net.eval().to(device)
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    patches = 0
    if model.tokens == "class" and getattr(net, "cls_token", None) is None:
        raise ValueError(f"{model.name}: tokens 'class' asked for, but {architecture} has no class token")
    channels_last = _channels_last(net)

    def patch_tokens(output: Tensor) -> Tensor:
        if classes and output.ndim == 2:
            return output[:, None]
        if output.ndim == 4:
            return map_tokens(output, channels_last)
        if output.ndim != 3 or (patches and output.shape[1] not in (patches, patches + prefix)):
            raise ValueError(
                f"{model.name}: a layer gave shape {tuple(output.shape)}; expected (B, {patches} patches + {prefix}, D)"
            )
        return output[:, -patches:] if patches else output[:, prefix:]

    def class_token(output: Tensor) -> Tensor:
        if classes and output.ndim == 2:
            return output[:, None]
        if output.ndim != 3 or output.shape[1] != patches + prefix:
            raise ValueError(
                f"{model.name}: a layer gave shape {tuple(output.shape)}, which has no class token; "
                f"expected (B, {patches} patches + {prefix}, D)"
            )
        return output[:, :1]

    def forward(batch: Mapping[str, Any]) -> object:
        nonlocal patches
        patches = _patches(net, batch["pixels"].shape[-1])
        return net(batch["pixels"]) if classes else net.forward_features(batch["pixels"])

    facts = {
        "timm": timm.__version__,
        "architecture": architecture,
        "tokens": "class" if model.tokens == "class" else "patch" if prefix else "all",
        "pooling": "none" if model.tokens == "class" else "mean",
    }
    tokens = class_token if model.tokens == "class" else patch_tokens
    multiple, only_side = _sides(net)
    return Loaded(net, forward, tokens, facts, multiple, only_side)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow model of the architecture named in ``miniature.architecture``, in timm's own layout."""
    from timm.models._hub import save_for_hf

    widths = dict(miniature)
    architecture = widths.pop("architecture")
    net = _build(architecture, widths, seed)
    save_for_hf(net, str(folder), model_args=widths, safe_serialization=True)


def trainable(model: Model, device: torch.device) -> Trainable:
    """The classifier of the entry's architecture as its training begins, with the weights that timm draws.

    Raises ValueError without ``num_classes``.
    """
    from timm.models._hub import save_for_hf

    arguments = dict(model.built)
    classes = int(arguments.get("num_classes", 0))
    if classes < 1 or "architecture" not in arguments:
        raise ValueError(f"models.{model.name}.architecture: a classifier needs 'architecture' and 'num_classes'")
    architecture = arguments.pop("architecture")
    net = _build(architecture, arguments, model.seed, classes).to(device)

    def save(state: Mapping[str, Tensor], folder: Path) -> None:
        saved = _build(architecture, arguments, None, classes)
        saved.load_state_dict(state)
        save_for_hf(saved, str(folder), model_args=arguments, safe_serialization=True)

    return Trainable(net, net.__call__, save, classes)


def _build(architecture: str, arguments: Mapping[str, Any], seed: int | None, classes: int = 0) -> torch.nn.Module:
    """A model, without classifier if there are no classes; a transformer takes any input size, where timm can
    interpolate its positions.
    """
    import timm
    import torch

    arguments = {**arguments, "num_classes": classes}
    with torch.device("meta"):
        kind = type(timm.create_model(architecture, pretrained=False, **arguments))
    if "dynamic_img_size" in inspect.signature(kind.__init__).parameters:
        arguments["dynamic_img_size"] = True
    if seed is not None:
        torch.manual_seed(seed)
    built: torch.nn.Module = timm.create_model(architecture, pretrained=False, **arguments)
    return built


def _load_weights(net: Any, path: Path) -> None:
    """Load every key of a checkpoint but its classifier, converting older layouts. Raises CheckpointError."""
    from safetensors.torch import load_file

    weights = load_file(path)
    missing, unexpected = _misfits(net, weights)
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    if (missing or unexpected) and convert is not None:
        weights = convert(weights, net)
        missing, unexpected = _misfits(net, weights)
    check_keys(missing, unexpected, str(path))
    net.load_state_dict({key: weights[key] for key in net.state_dict()})


def _misfits(net: Any, weights: Mapping[str, Tensor]) -> tuple[set[str], set[str]]:
    """Missing and unexpected keys; a classifier, which num_classes=0 leaves out, is expected."""
    named = net.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ("head", "fc", *((named,) if isinstance(named, str) else named)))
    expected = set(net.state_dict())
    return expected - set(weights), {key for key in set(weights) - expected if not key.startswith(heads)}


def _channels_last(net: torch.nn.Module) -> bool | None:
    """Whether maps are (B, H, W, C); None for a transformer whose layers may give either."""
    if getattr(net, "output_fmt", "NCHW") == "NHWC":
        return True
    return None if hasattr(net, "patch_embed") else False


def _patches(net: torch.nn.Module, size: int) -> int:
    """Number of patches of a transformer at an input of size x size pixels; 0 where timm does not say."""
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
    """config.json. Raises CheckpointError for what is no architecture of timm with its arguments."""
    import timm

    path = folder / _CONFIG
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; a timm checkpoint is a folder with {_CONFIG} and {_WEIGHTS}")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or "architecture" not in config:
        raise CheckpointError(f"{path}: no key 'architecture', so this is no timm checkpoint")
    if not timm.is_model(str(config["architecture"]).partition(".")[0]):
        raise CheckpointError(f"{path}: timm {timm.__version__} has no architecture '{config['architecture']}'")
    arguments = config.get("model_args", {})
    elsewhere = sorted(_ELSEWHERE & set(arguments)) if isinstance(arguments, dict) else ["no mapping"]
    if elsewhere:
        raise CheckpointError(
            f"{path}: model_args holds {', '.join(elsewhere)}, which would read weights from elsewhere; leave it out"
        )
    return config


FAMILY = Family(
    reads="pixels",
    takes=("tokens", "architecture"),
    untrained="configuration",
    trains=("classification",),
    weights_file=_WEIGHTS,
    completed_by="timm_registry",
    load=load,
    make_miniature=make_miniature,
    trainable=trainable,
)
