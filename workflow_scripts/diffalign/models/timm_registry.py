"""What timm knows of a checkpoint's architecture: input, layers, default layer, for entries that leave them out.

The answer depends on the architecture and the version of timm alone, and asking imports timm, which takes seconds in
every dry run. It is therefore kept in the user's cache, in a file named for both and for this module.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffalign.io.atomic import write_json
from diffalign.names import UnknownName, expand_layers, nearest
from diffalign.provenance import file_sha256

_INPUT = ("size", "interpolation", "mean", "std")
_SAY = "say input (size, interpolation, mean, std), layers and default_layer"
# where a checkpoint is not looked at before its job runs
_UNREAD = ("folder", "file", "url", "package")
_FILES = ("config.json", "model.safetensors")


def complete(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of family timm_vision with the keys that it leaves out: files, input, layers, default layer.

    timm is asked only where one of the last three is missing. Raises ValueError for a hub id or an architecture that
    timm does not know, and where the entry says neither.
    """
    completed = dict(entry)
    weights, given = entry.get("weights"), entry.get("input") or {}
    if not isinstance(weights, Mapping) or not isinstance(given, Mapping):
        return completed
    if weights.get("from") == "hub" and "files" not in weights:
        completed["weights"] = {**weights, "files": list(_FILES)}
    if "layers" in entry and "default_layer" in entry and all(key in given for key in _INPUT):
        return completed
    asked = _asked(entry, weights)
    if asked is None:
        if weights.get("from") == "miniature":
            raise ValueError("weights from 'miniature' need the key 'miniature': its architecture and its widths")
        # the rest of an input has defaults
        is_said = "layers" in entry and "default_layer" in entry and "size" in given
        if weights.get("from") in _UNREAD and not is_said:
            raise ValueError(
                f"weights from '{weights['from']}' do not say which model they are of before they are read: write "
                f"architecture: {{architecture: vit_small_patch16_224}}, as timm calls it, or {_SAY}"
            )
        return completed
    about = _known(asked)
    completed["input"] = {**about["input"], **_miniature_size(entry, weights), **given}
    layers = completed.setdefault("layers", about["layers"])
    # layers of another form are refused where the entry is read
    with suppress(UnknownName, AttributeError, TypeError):
        if about["default_layer"] in expand_layers(layers):
            completed.setdefault("default_layer", about["default_layer"])
    return completed


def _asked(entry: Mapping[str, Any], weights: Mapping[str, Any]) -> str | None:
    """The architecture or the hub id that says which model is meant; None where the entry says neither."""
    miniature, architecture = _mapping(entry.get("miniature")), _mapping(entry.get("architecture"))
    if weights.get("from") == "miniature" and "architecture" in miniature:
        return str(miniature["architecture"])
    if "architecture" in architecture:
        return str(architecture["architecture"])
    return weights.get("hub") or miniature.get("architecture")


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping of an entry; anything else is refused where the entry is read."""
    return value if isinstance(value, Mapping) else {}


def _miniature_size(entry: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    miniature = _mapping(entry.get("miniature"))
    side = miniature.get("img_size") if weights.get("from") == "miniature" else None
    return {} if side is None else {"size": side}


def _known(asked: str) -> dict[str, Any]:
    """What `describe` says, from the cache where it has been asked before."""
    key = f"{asked} {importlib.metadata.version('timm')} {file_sha256(Path(__file__))}"
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffalign" / f"timm-{name}.json"
    with suppress(OSError, ValueError):
        kept: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8"))
        return kept
    about = describe(asked)
    # a home that cannot be written to costs time, nothing else
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, about)
    return about


def describe(asked: str) -> dict[str, Any]:
    """Input, layers and default layer of an architecture or a hub id (owner/name), from timm's own configuration.

    Layers are ``embed`` (patches with positions, or the stem), ``b0`` … (blocks) or ``down0`` … (the stages of a
    network that has no list of blocks), and ``final``, after the last norm or the last hidden layer of a classifier,
    where there is one before pooling.
    Raises ValueError for one that timm does not know.
    """
    import timm
    import torch

    name = _architecture(asked)
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None:
        raise ValueError(f"timm has no configuration of '{asked}'; {_SAY}")
    with torch.device("meta"):
        net = timm.create_model(name.partition(".")[0], pretrained=False, num_classes=0)
    layers = _layers(net)
    return {
        "input": {
            "size": int(config.input_size[-1]),
            "interpolation": "bilinear" if config.interpolation == "bilinear" else "bicubic",
            "mean": list(config.mean),
            "std": list(config.std),
        },
        "layers": layers,
        "default_layer": list(expand_layers(layers))[-1],
    }


def _architecture(asked: str) -> str:
    """The name of an architecture, with the tag of its weights, for a name or a hub id."""
    import timm

    names = timm.list_models(pretrained=True, include_tags=True)
    name = asked.rpartition("/")[2]
    if "/" not in asked:
        if timm.is_model(name.partition(".")[0]):
            return name
        raise ValueError(f"timm knows no architecture '{asked}'{_near(asked, timm.list_models())}")
    ids = {each: timm.get_pretrained_cfg(each).hf_hub_id for each in names}
    if ids.get(name) == asked:
        return name
    named = [each for each, hub in ids.items() if hub == asked]
    if not named:
        known = sorted({hub for hub in ids.values() if hub})
        raise ValueError(f"timm knows no hub id '{asked}'{_near(asked, known)} Or {_SAY}")
    return str(named[0])


def _near(word: str, allowed: list[str]) -> str:
    """The nearest allowed word, never the list of a thousand."""
    return near if "did you mean" in (near := nearest(word, allowed)) else "."


def _layers(net: Any) -> dict[str, str]:
    import torch

    children = [name for name, _ in net.named_children()]
    blocks = getattr(net, "blocks", None)
    before = children[: children.index("blocks")] if blocks is not None else []
    embed = next((name for name in ("norm_pre", "pos_drop") if name in before), children[0])
    if blocks is not None:
        layers = {"embed": embed, f"b{{0..{len(blocks) - 1}}}": "blocks.{}"}
    else:
        stages = [each["module"] for each in net.feature_info]
        # the child that holds the stages is no stem
        is_stem = not any(stage == embed or stage.startswith(f"{embed}.") for stage in stages)
        layers = {"embed": embed} if is_stem else {}
        layers |= {f"down{i}": path for i, path in enumerate(stages)}
    final = next((name for name in ("norm", "neck", "pre_logits") if name in children), None)
    if final is not None and not isinstance(getattr(net, final), torch.nn.Identity):
        layers["final"] = final
    return layers
