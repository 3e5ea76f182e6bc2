"""What a loaded model is, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffalign.noise import NoiseLevel


def _without_decoder(latents: Tensor) -> Tensor:
    raise ValueError("the model was loaded without a decoder; load it with decoder=True")


def _no_parts(path: str) -> dict[str, tuple[str, ...]]:
    return {}


@dataclass(frozen=True)
class Loaded:
    """A model ready for extraction.

    module: layers are module paths within it. forward: runs one batch, a dict with ``names`` and tensors on the device:
    ``pixels`` (B, 3, S, S) float32 or, for a denoiser at a noise level, what `Denoiser.at` says. tokens: turns what a
    module returned into (B, T, D), the tokens that are averaged. facts: what the recipe says beyond the config.
    multiple: sides of inputs, of pixels or of latents, must be multiples of it, the patch or the stride. only_side: the
    only side that inputs may have, None where they may have others. `extraction.sizes` checks all sides.

    Of autoencoders alone. latent_statistics: mean and std (1, C, 1, 1) of latents that the checkpoint defines. decode:
    latents (B, C, H, W) float32 as the layer ``latent`` gives them, not normalised, to images (B, 3, S, S) float32 in
    [0, 1], without gradients; it raises ValueError where the decoder was not loaded.
    """

    module: nn.Module
    forward: Callable[[Mapping[str, Any]], object]
    tokens: Callable[[Any], Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    only_side: int | None = None
    latent_statistics: tuple[Tensor, Tensor] | None = None
    decode: Callable[[Tensor], Tensor] = _without_decoder


@dataclass(frozen=True)
class Prediction:
    """What a denoiser makes of noisy latents x_t = α x0 + σ ε: its estimates of both, of the shape of x_t, float32.

    α x0 + σ eps is x_t, to rounding. class_tokens: the same of class tokens (B, D), for a model that denoises them
    beside latents.
    """

    x0: Tensor
    eps: Tensor
    class_tokens: Prediction | None = None


@dataclass(frozen=True)
class Denoiser:
    """A diffusion model, ready at any noise level, one a call.

    Latents are those that the model reads, x_t (B, latent_channels, H, W) float32: normalised, times the entry's
    ``latent_multiplier``, and at a noise level. Conditioning is one row an image: the prompt tensors that the family's
    `embed_prompts` names, or ``labels`` (B,) int64, of which `classes` stands for none, or nothing; beside them, where
    class_token_width is a number, ``class_tokens`` (B, class_token_width) float32 at the same noise level.

    module, tokens, facts, multiple: as in `Loaded`. level: a noise level of the grammar, ``t0.5`` or ``s20``, in the
    clock of the model; raises ValueError or CheckpointError for one that it does not have. run: runs the network once,
    on latents, level and conditioning, and gives its output, whatever that is. convert: that output, with what it was
    made of, as a prediction. only_side: the only height and width of latents, None where they may be others. parts: of
    the layer at a module path, ``attention`` and ``mlp`` -> paths of the modules whose output is added to the residual
    stream, gated or not; where a module returns several streams, the first is the image's. Empty where the family knows
    none.

    scheduler: of models of diffusers; a scheduler with the time steps of this many steps for latents of this side, as
    the model's pipeline sets them, given the conditioning of one image, and the name of a class of diffusers or None
    for the checkpoint's own. It raises ValueError for a class that is not compatible. None for other models.
    """

    module: nn.Module
    level: Callable[[str], NoiseLevel]
    run: Callable[[Tensor, NoiseLevel, Mapping[str, Tensor]], Any]
    convert: Callable[[Any, Tensor, NoiseLevel, Mapping[str, Tensor]], Prediction]
    tokens: Callable[[Any], Tensor]
    latent_channels: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    multiple: int = 1
    only_side: int | None = None
    classes: int | None = None
    class_token_width: int | None = None
    parts: Callable[[str], Mapping[str, tuple[str, ...]]] = _no_parts
    scheduler: Callable[[int, int, Mapping[str, Tensor], str | None], Any] | None = None

    def predict(self, x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Prediction:
        """The model's estimates of image and noise, without gradients; `extraction.taps` see the pass.

        Raises ValueError for latents that the model does not read, and at a level where what it predicts says nothing
        of the image: noise alone where there is no image left in x_t.
        """
        import torch

        self._check(x_t)
        with torch.no_grad():
            return self.convert(self.run(x_t, level, conditioning), x_t, level, conditioning)

    def at(self, level: NoiseLevel) -> Loaded:
        """The model at one noise level, as extraction runs it: batches hold ``latents``, x_t, and the conditioning."""

        def forward(batch: Mapping[str, Any]) -> object:
            conditioning = {key: value for key, value in batch.items() if key not in ("names", "latents")}
            return self.run(batch["latents"], level, conditioning)

        facts = {**self.facts, "noise_level": level.facts()}
        return Loaded(self.module, forward, self.tokens, facts, self.multiple, self.only_side)

    def _check(self, x_t: Tensor) -> None:
        fits = x_t.ndim == 4 and x_t.shape[1] == self.latent_channels
        sides = x_t.shape[2:] if fits else ()
        if not fits or any(side % self.multiple or side != (self.only_side or side) for side in sides):
            only = "" if self.only_side is None else f" {self.only_side}"
            raise ValueError(
                f"latents of shape {tuple(x_t.shape)}; expected (B, {self.latent_channels}, H, W) with sides{only} "
                f"that are multiples of {self.multiple}"
            )


@dataclass(frozen=True)
class Trainable:
    """A network whose training begins, with the weights that its authors begin with, drawn by the model's seed.

    module: what is trained. run: what the loss needs of the network, with gradients:

    - ``classification``: pixels (B, 3, S, S) -> logits (B, classes);
    - ``reconstruction``: pixels, and a function that draws standard normals of the shape it is given -> the
      reconstruction (B, 3, S, S), mean and log-variance of the posterior, (B, C, H, W) each;
    - ``flow_matching``: x_t (B, C, H, W), the path's own time τ (B,), 0 at data, and labels (B,), of which `classes` is
      the null label -> the velocity dx_t/dτ (B, C, H, W).

    save: writes a state dict of the module, of tensors on the CPU, as a checkpoint that the family's `load` reads, into
    a folder that is there. classes: their number; None for an autoencoder. encode: of autoencoders, pixels -> the mode
    of the latent (B, C, H, W), by the module's weights; their `save` is also given mean and standard deviation of
    latents, by which those that other models read are normalised.
    """

    module: nn.Module
    run: Callable[..., Any]
    save: Callable[..., None]
    classes: int | None = None
    encode: Callable[[Tensor], Tensor] | None = None


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
