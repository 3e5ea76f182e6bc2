"""VFM-VAE: a frozen SigLIP2 encoder and an adapter that turns three of its layers into a latent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.models.protocol import Loaded
from diffalign.models.registry import Family
from diffalign.models.tokens import spatial_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffalign.io.state_dicts import StateDict

# what the published checkpoint carries beside encoder and adapter
_NOT_THE_ENCODER = (
    *("synthesis.", "mapping.", "ldm_adapter.post_quant.", "ldm_adapter.linear_proj."),
    "vfm_encoder.encoder.text_model.",
)
_VISION = "vfm_encoder.encoder.vision_model."


def load(model: Model, folder: Path, device: torch.device) -> Loaded:
    """Load encoder and adapter of a checkpoint; the decoder and the text half of SigLIP2 are left out by name.

    Tokens of all layers are patches and are averaged. Raises CheckpointError for a wrong architecture, and for missing
    or unexpected keys.
    """
    import transformers

    from diffalign.io.layouts.lightningdit import statistics_in
    from diffalign.models.architectures import fill, read_fields, read_weights
    from diffalign.models.networks.posterior import Posterior
    from diffalign.models.networks.vfmvae import Architecture, VfmVae, checked

    place = f"models.{model.name}.architecture"
    shape = checked(read_fields(Architecture, model.built, place), place)
    net = VfmVae(shape, Posterior(model))
    state = read_weights(model, folder)
    fill(model, net, _one_level(state.without(_NOT_THE_ENCODER)))
    net.eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        return net(batch["pixels"], batch["names"])

    def tokens(output: Tensor) -> Tensor:
        return spatial_tokens(output) if output.ndim == 4 else output

    facts = {
        "transformers": transformers.__version__,
        "nesting": state.nesting,
        "tokens": "patch",
        "pooling": "mean",
        "posterior": model.posterior,
        "latent_scaling": "none",
    }
    return Loaded(net, forward, tokens, facts, shape.compression, latent_statistics=statistics_in(folder)[0])


def _one_level(state: StateDict) -> StateDict:
    """Keys as transformers 5 has them; before, a vision model held another one."""
    inner = f"{_VISION}vision_model."
    return replace(state, tensors={key.replace(inner, _VISION, 1): tensor for key, tensor in state.tensors.items()})


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write random weights of this architecture."""
    import torch

    from diffalign.io.safetensors_files import save_file
    from diffalign.models.architectures import read_fields
    from diffalign.models.networks.vfmvae import Architecture, VfmVae, checked

    torch.manual_seed(seed)
    shape = checked(read_fields(Architecture, miniature, "miniature"), "miniature")
    net = VfmVae(shape, torch.nn.Identity())
    save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, folder / "model.safetensors")


FAMILY = Family(
    reads="pixels", needs=("architecture",), untrained="architecture", load=load, make_miniature=make_miniature
)
