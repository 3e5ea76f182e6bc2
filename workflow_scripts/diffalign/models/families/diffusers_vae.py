"""Autoencoders of diffusers: the encoder's stages and the latent itself; images from latents on request."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.models.images import unit_range
from diffalign.models.protocol import Loaded, Trainable
from diffalign.models.registry import Family
from diffalign.models.tokens import spatial_tokens
from diffalign.specs import Model

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class AutoencoderClass:
    """How one class of diffusers differs from another.

    moments: the posterior is a Gaussian; without, the latent is what the encoder gives. video: images are films of one
    frame, (B, C, 1, H, W). channels: the key of the configuration that says how many channels a latent has.
    """

    moments: bool = True
    video: bool = False
    channels: str = "latent_channels"


CLASSES = {
    "AutoencoderKL": AutoencoderClass(),
    "AutoencoderDC": AutoencoderClass(moments=False),
    "AutoencoderTiny": AutoencoderClass(moments=False),
    "AutoencoderKLQwenImage": AutoencoderClass(video=True, channels="z_dim"),
    "AutoencoderKLWan": AutoencoderClass(video=True, channels="z_dim"),
}


def load(model: Model, folder: Path, device: torch.device, decoder: bool = False) -> Loaded:
    """Load an autoencoder from `folder` or its subfolder ``vae``; ``_class_name`` of its config.json says which class.

    Raises CheckpointError for an unknown class, for keys that do not fit, and where a sample is asked of an autoencoder
    without a posterior.
    """
    import diffusers
    import torch
    from torch import nn

    from diffalign.models.diffusers_checkpoints import from_diffusers
    from diffalign.models.networks.posterior import Posterior

    spec = model.input
    if spec is None:
        raise ValueError(f"{model.name}: family diffusers_vae needs 'input'")
    where = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    name = _class_name(where)
    kind = CLASSES[name]
    if model.posterior == "sample" and not kind.moments:
        raise CheckpointError(
            f"{where}: an {name} has no posterior to sample from; set models.{model.name}.posterior: mode"
        )
    vae = from_diffusers(getattr(diffusers, name), where, model.initial_seed)
    # the latent becomes a module beside the encoder, so that it can be tapped
    vae.posterior = Posterior(model) if kind.moments else nn.Identity()
    if not decoder:
        vae.decoder = nn.Identity()
    vae.eval().to(device)

    def forward(batch: Mapping[str, Any]) -> object:
        images = batch["pixels"].unsqueeze(2) if kind.video else batch["pixels"]
        encoded = vae.encode(images, return_dict=False)[0]
        if not kind.moments:
            return vae.posterior(encoded)
        moments = encoded.parameters.squeeze(2) if kind.video else encoded.parameters
        return vae.posterior(moments, batch["names"])

    def tokens(output: Tensor) -> Tensor:
        return spatial_tokens(output.squeeze(2) if output.ndim == 5 else output)

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            decoded = vae.decode(latents.unsqueeze(2) if kind.video else latents, return_dict=False)[0]
        return unit_range(decoded.squeeze(2) if kind.video else decoded, spec)

    facts = {
        "diffusers": diffusers.__version__,
        "class": name,
        "pooling": "mean",
        "posterior": model.posterior,
        "latent_scaling": "none",
    }
    statistics = _fixed_statistics(vae.config, kind)
    loaded = Loaded(vae, forward, tokens, facts, _stride(vae), latent_statistics=statistics)
    return replace(loaded, decode=decode) if decoder else loaded


def _stride(vae: Any) -> int:
    """Pixels a position of the latent."""
    for key in ("spatial_compression_ratio", "spatial_scale_factor"):
        if hasattr(vae, key):
            return int(getattr(vae, key))
    # every stage but the last halves the side
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _class_name(folder: Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: neither config.json nor vae/config.json; an autoencoder of diffusers is a folder with "
            "config.json and safetensors"
        )
    name = str(json.loads(path.read_text(encoding="utf-8")).get("_class_name"))
    if name not in CLASSES:
        raise CheckpointError(f"{path}: _class_name '{name}' is not known here; known: {', '.join(CLASSES)}")
    return name


def _fixed_statistics(config: Mapping[str, Any], kind: AutoencoderClass) -> tuple[Tensor, Tensor]:
    """Mean and std (1, C, 1, 1) that the configuration defines: per channel, or one shift and one scale."""
    import torch

    channels = int(config[kind.channels])
    scale = float(config.get("scaling_factor") or 1.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    else:
        mean, std = torch.full((channels,), float(config.get("shift_factor") or 0.0)), torch.ones(channels)
    return mean.float().view(1, channels, 1, 1), (std.float() / scale).view(1, channels, 1, 1)


def make_miniature(miniature: Mapping[str, Any], folder: Path, seed: int) -> None:
    """Write a narrow autoencoder from ``miniature``: ``class`` and the keys of its configuration."""
    import torch

    torch.manual_seed(seed)
    _built(miniature, "miniature").save_pretrained(folder)


def _built(architecture: Mapping[str, Any], place: str) -> Any:
    """An autoencoder of ``class`` with the keys of its configuration, its weights drawn. Raises ValueError."""
    import diffusers

    widths = dict(architecture)
    name = widths.pop("class", "AutoencoderKL")
    if name not in CLASSES:
        raise ValueError(f"{place}: unknown class '{name}'; known: {', '.join(CLASSES)}")
    if name == "AutoencoderKL":
        stages = len(widths["block_out_channels"])
        widths = {
            "down_block_types": ["DownEncoderBlock2D"] * stages,
            "up_block_types": ["UpDecoderBlock2D"] * stages,
            **widths,
        }
    return getattr(diffusers, name)(**widths)


def trainable(model: Model, device: torch.device) -> Trainable:
    """The autoencoder of the entry's architecture as its training begins, with the weights that diffusers draws.

    Its ``save`` writes ``scaling_factor``, one over the standard deviation of latents, and ``shift_factor``, their
    mean, into config.json. Raises ValueError for a class without a posterior, whose divergence could be trained.
    """
    import torch

    place = f"models.{model.name}.architecture"
    kind = CLASSES.get(model.built.get("class", "AutoencoderKL"))
    if kind is not None and (kind.video or not kind.moments):
        allowed = ", ".join(name for name, each in CLASSES.items() if each.moments and not each.video)
        raise ValueError(f"{place}: an {model.built['class']} is not trained here; allowed: {allowed}")
    torch.manual_seed(model.seed)
    vae = _built(model.built, place).to(device)

    def moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = vae.encode(pixels, return_dict=False)[0].parameters.chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)

    def run(pixels: Tensor, draws: Callable[[tuple[int, ...]], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = moments(pixels)
        latents = mean + torch.exp(0.5 * log_variance) * draws(tuple(mean.shape))
        return vae.decode(latents, return_dict=False)[0], mean, log_variance

    def save(state: Mapping[str, Tensor], folder: Path, mean: float, std: float) -> None:
        saved = type(vae).from_config(vae.config)
        saved.load_state_dict(state)
        saved.register_to_config(scaling_factor=1 / std, shift_factor=mean)
        saved.save_pretrained(folder)

    return Trainable(vae, run, save, encode=lambda pixels: moments(pixels)[0])


FAMILY = Family(
    reads="pixels",
    untrained="configuration",
    decodes=True,
    trains=("reconstruction",),
    load=load,
    make_miniature=make_miniature,
    trainable=trainable,
)
