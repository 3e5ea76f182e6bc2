"""From a checkpoint to a model that runs, through the model's family and at its precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.protocol import Denoiser, Loaded, LoadedLanguage, Trainable
from diffalign.models.registry import all_families, find_family
from diffalign.reasons import reason

if TYPE_CHECKING:
    import torch

    from diffalign.specs import Model


def load(model: Model, folder: Path, device: torch.device, decoder: bool = False) -> Loaded:
    """Load a model of images.

    decoder: whether `Loaded.decode` is needed, too; it takes memory that encoding does not. Raises CheckpointError that
    names the folder, whatever a library says of a corrupted file or a wrong shape, and where a decoder is asked of a
    family without one.
    """
    from diffalign.models.precision import at_precision

    if decoder and not find_family(model.family).decodes:
        known = ", ".join(name for name, family in all_families().items() if family.decodes)
        raise CheckpointError(f"{model.name}: family '{model.family}' has no decoder here; families with one: {known}")
    loaded = _load(model, folder, device, **({"decoder": True} if decoder else {}))
    assert isinstance(loaded, Loaded)
    return at_precision(loaded, model.precision, device)


def load_denoiser(model: Model, folder: Path, device: torch.device) -> Denoiser:
    """Load a diffusion model, which runs at any noise level. Raises CheckpointError as `load`."""
    from diffalign.models.precision import at_precision

    denoiser = _load(model, folder, device)
    assert isinstance(denoiser, Denoiser)
    return at_precision(denoiser, model.precision, device)


def load_language(model: Model, folder: Path, device: torch.device) -> LoadedLanguage:
    """Load a language model, which its family holds in its precision. Raises CheckpointError as `load`."""
    loaded = _load(model, folder, device)
    assert isinstance(loaded, LoadedLanguage)
    return loaded


def trainable(model: Model, device: torch.device) -> Trainable:
    """The network of a model as its training begins, drawn by ``model.seed`` on the CPU, on the device.

    Raises ValueError for a family without such a loss, CheckpointError for an architecture that does not exist.
    """
    assert model.training is not None
    loss, family = model.training.loss, find_family(model.family)
    if loss not in family.trains:
        known = ", ".join(name for name, each in all_families().items() if loss in each.trains)
        raise ValueError(f"{model.name}: family '{model.family}' has no loss '{loss}'; families with it: {known}")
    begun = family.trainable(model, device)
    assert isinstance(begun, Trainable)
    return begun


def _load(model: Model, folder: Path, device: torch.device, **options: bool) -> Any:
    family = find_family(model.family)
    if model.untrained and not family.untrained:
        raise CheckpointError(f"{model.name}: family '{model.family}' has no untrained twins")
    try:
        return family.load(model, folder, device, **options)
    except CheckpointError:
        raise
    except Exception as error:
        # safetensors, torch, diffusers and transformers have an error of their own for each way to be broken
        raise CheckpointError(f"{folder}: {model.name} cannot be loaded: {reason(error)}") from error
