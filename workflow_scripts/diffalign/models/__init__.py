"""Model families: one module each, found by its name, behind one small protocol.

A family is a module of this package with a constant, READS = "pixels", "latents" or "texts", and two functions:

    load(model, folder, noise, device) -> Loaded      read a checkpoint in `folder`; of "texts" a LoadedLanguage
    make_miniature(widths, folder, seed) -> None      write a narrow checkpoint that `load` reads

A family of diffusion models has a third, and a fourth where it is told texts:

    noise_level(model, folder, noise) -> NoiseLevel                 translate t0.5 or s20 to its own clock
    embed_prompts(model, folder, texts, device) -> dict[str, Tensor]    one row a text; `text` stands for it alone

UNTRAINED says what a twin without training is made of: "configuration", the files of the checkpoint that hold no
weights, from which `load` builds the architecture where model.initial_seed is a number; or "architecture", the entry's,
of which make_miniature writes a checkpoint of full size.

HAS_WEIGHTS = False says that nothing of it is learned: its models have no checkpoint, and it has no make_miniature.

CONDITIONED_ON = "labels": its models take class labels in place of prompts. NEEDS and TAKES name the keys of a model's
entry that only some families know (`study.FAMILY_KEYS`): those that it cannot do without, and those that it may have.
A family with a fixed table of positions sets `Loaded.latent_size`; where it takes interpolate_positions and is asked to
interpolate the table to other sizes, it does not. COMPLETED_BY names a module of this package whose function
`complete(entry)` fills in what an entry of the config leaves out.

Another kind, READS = "features", runs no model: `precomputed` takes files of features in the place of an extraction.

Modules are imported when a job needs them, so a job of one family never imports another's libraries.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError, check_keys, check_there

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from diffalign.specs import Model


@dataclass(frozen=True)
class Loaded:
    """A model ready for extraction.

    module: layers are module paths within it. forward: runs one batch (a dict with ``names`` and tensors on the
    device). tokens: turns what a module returned into (B, T, D), the tokens that are averaged. facts: what the
    recipe says beyond the config. latent_channels: of the latents that a diffusion model reads. latent_size: their only
    height and width, where positions are a fixed table. classes: how many a class-conditional model knows; the next
    label means none of them. class_token_width: of the class tokens that it reads beside latents. latent_statistics:
    for autoencoders, mean and std (1, C, 1, 1) that the checkpoint defines. multiple: sides of inputs, of pixels or of
    latents, must be multiples of it, the patch or the stride. input_size: the only side in pixels that a model takes,
    None where it takes others. `extraction.sizes` checks all sides.
    """

    module: nn.Module
    forward: Callable[[Mapping[str, Any]], object]
    tokens: Callable[[Any], Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    latent_channels: int | None = None
    latent_size: int | None = None
    classes: int | None = None
    class_token_width: int | None = None
    latent_statistics: tuple[Tensor, Tensor] | None = None
    multiple: int = 1
    input_size: int | None = None


@dataclass(frozen=True)
class Tokenized:
    """A text as its model reads it. ids: with special tokens, cut to the context. length: number of tokens before the
    cut. size: bytes (UTF-8) of the part of the text that is read.
    """

    ids: tuple[int, ...]
    length: int
    size: int


@dataclass(frozen=True)
class LoadedLanguage:
    """A language model ready for extraction.

    tokenize: texts to tokens. forward: of ids and mask (B, T), int64, 1 where there is a token, the hidden states in
    order of depth, each (B, T, D), and the logits (B, T, V) of the next token, None for a model that predicts none.
    pad: the id that stands for no token. skip: an id that is no part of averages where a text begins with it, or None.
    facts: what the recipe says beyond the config. parameters: their number.
    """

    tokenize: Callable[[Sequence[str]], list[Tokenized]]
    forward: Callable[[Tensor, Tensor], tuple[Sequence[Tensor], Tensor | None]]
    pad: int
    skip: int | None
    parameters: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """What a family declares.

    reads: ``pixels``, ``latents``, ``texts`` or ``features``. conditioned_on: ``prompts``, ``labels`` or
    None. needs, takes: keys of a model's entry that only some families know.
    untrained: ``configuration`` or ``architecture``, what untrained twins are made of, or None where there are none.
    has_weights: False where nothing is learned.
    complete: fills in what an entry leaves out, for families that can; it raises ValueError that says what is unknown.
    """

    reads: str
    conditioned_on: str | None = None
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    untrained: str | None = None
    has_weights: bool = True
    complete: Callable[[Mapping[str, Any]], dict[str, Any]] | None = field(default=None, compare=False)


@cache
def families() -> Mapping[str, Kind]:
    """The families that exist, the modules of this package with READS, and what each declares.

    Taken from the source, so that no family's libraries are imported.
    """
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        said = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in ("READS", "CONDITIONED_ON", "NEEDS", "TAKES", "UNTRAINED", "HAS_WEIGHTS", "COMPLETED_BY"):
                    said[name] = ast.literal_eval(node.value)
        if "READS" in said:
            conditioned_on = said.get("CONDITIONED_ON", "prompts" if said["READS"] == "latents" else None)
            declared = (said.get("NEEDS", ()), said.get("TAKES", ()), said.get("UNTRAINED"))
            complete = partial(_complete, said["COMPLETED_BY"]) if "COMPLETED_BY" in said else None
            found[path.stem] = Kind(said["READS"], conditioned_on, *declared, said.get("HAS_WEIGHTS", True), complete)
    return found


def _complete(module: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    completed: dict[str, Any] = importlib.import_module(f"{__name__}.{module}").complete(entry)
    return completed


def family(name: str) -> ModuleType:
    """Import one family. Raises ValueError for an unknown one."""
    if name not in families():
        raise ValueError(f"unknown family '{name}'; allowed: {', '.join(families())}")
    return importlib.import_module(f"{__name__}.{name}")


def module_path(name: str) -> Path:
    """The file of a family."""
    return Path(__file__).parent / f"{name}.py"


def load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Loaded:
    """Load a model through its family, to run at its precision.

    Raises CheckpointError that names the folder, whatever a library says of a corrupted file or a wrong shape.
    """
    from diffalign.models.precision import at_precision

    loaded: Loaded = _load(model, folder, noise, device)
    return at_precision(loaded, model.precision, device)


def load_language(model: Model, folder: Path, device: torch.device) -> LoadedLanguage:
    """Load a language model through its family, which holds it in its precision. Raises CheckpointError as `load`."""
    loaded: LoadedLanguage = _load(model, folder, None, device)
    return loaded


def _load(model: Model, folder: Path, noise: str | None, device: torch.device) -> Any:
    found = family(model.family)
    if model.untrained and not families()[model.family].untrained:
        raise CheckpointError(f"{model.name}: family '{model.family}' has no untrained twins")
    try:
        return found.load(model, folder, noise, device)
    except CheckpointError:
        raise
    except Exception as error:
        # safetensors, torch, diffusers and transformers have an error of their own for each way to be broken
        raise CheckpointError(f"{folder}: {model.name} cannot be loaded: {error}") from error


def from_diffusers(kind: Any, where: Path, initial_seed: int | None = None) -> Any:
    """Load a model of diffusers from a folder in float32, every key of it, or only its configuration.

    initial_seed: for a model with the weights that it begins with, drawn by this seed. Raises CheckpointError.
    """
    import torch

    check_there(where / "config.json")
    if initial_seed is not None:
        torch.manual_seed(initial_seed)
        return kind.from_config(kind.load_config(where, local_files_only=True))
    net, info = kind.from_pretrained(
        where,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    )
    check_keys(set(info["missing_keys"]), set(info["unexpected_keys"]), str(where))
    return net


def spatial_tokens(output: Tensor) -> Tensor:
    """A (B, C, H, W) map as (B, HW, C) tokens."""
    if output.ndim != 4:
        raise ValueError(f"expected a map of shape (B, C, H, W), got {tuple(output.shape)}")
    return output.flatten(2).transpose(1, 2)


def map_tokens(output: Tensor, channels_last: bool | None = None) -> Tensor:
    """A map as (B, HW, C) tokens, of (B, H, W, C) or (B, C, H, W). Without being told which, the two equal sides are
    those of the map. Raises ValueError where they do not tell.
    """
    if output.ndim != 4:
        raise ValueError(f"expected a map, got shape {tuple(output.shape)}")
    if channels_last is None:
        _, first, second, third = output.shape
        if (first == second) == (second == third):
            raise ValueError(f"which axis of shape {tuple(output.shape)} is that of the channels cannot be told")
        channels_last = first == second
    return output.flatten(1, 2) if channels_last else spatial_tokens(output)
