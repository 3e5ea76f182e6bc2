"""Pipelines of diffusers that run their denoiser once, at any noise level.

The pipeline itself packs latents, converts the clock, and builds ids, shapes and masks. In the place of its scheduler
stands one that has a single step, and keeps what the pipeline hands over as the prediction. The pipeline itself sets
the time steps of a scheduler, too: with its own spacing, and a shift that depends on the size of the image.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import diffusers
import torch
from torch import Tensor

from diffalign.models.tokens import spatial_tokens
from diffalign.noise import NoiseLevel


class OneStep:
    """In the place of a scheduler: a single step that begins at a given time, with the configuration of the own one.

    timesteps: that time, (1,). prediction: what the step was given, in the pipeline's layout; None before it.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.timesteps = torch.zeros(1)
        self.prediction: Tensor | None = None

    def begin(self, timestep: float) -> None:
        """Stand at a time, before the pipeline is called."""
        self.timesteps = torch.tensor([timestep])
        self.prediction = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | None = None,
        sigmas: object = None,
        timesteps: object = None,
        mu: float | None = None,
    ) -> None:
        """Stay where it is, whatever schedule the pipeline asks for."""
        del num_inference_steps, sigmas, timesteps, mu
        self.timesteps = self.timesteps.to(device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """There is only one."""

    def scale_model_input(self, sample: Tensor, *_: object) -> Tensor:
        """Latents come as the model reads them."""
        return sample

    def step(self, model_output: Tensor, timestep: object, sample: Tensor, **_: object) -> tuple[Tensor, Tensor]:
        """Keep the prediction; latents stay what they are, twice."""
        del timestep
        self.prediction = model_output
        return sample, sample


class _TimeStepsAreSet(Exception):
    """Ends a call of a pipeline."""


def set_by(pipeline: Any, scheduler: Any, call: Mapping[str, Any]) -> Any:
    """The scheduler with the time steps that a call of the pipeline sets, which goes no further than that.

    call: its arguments. Raises ValueError for a scheduler that the pipeline cannot set.
    """
    of_scheduler, own = scheduler.set_timesteps, pipeline.scheduler

    @functools.wraps(of_scheduler)
    def setting(*given: Any, **named: Any) -> None:
        of_scheduler(*given, **named)
        raise _TimeStepsAreSet

    scheduler.set_timesteps = setting
    pipeline.scheduler = scheduler
    pipeline.set_progress_bar_config(disable=True)
    names = f"{type(pipeline).__name__} and {type(scheduler).__name__}"
    try:
        pipeline(**call)
    except _TimeStepsAreSet:
        return scheduler
    except ValueError as error:
        raise ValueError(f"{names} do not go together: {error}") from error
    finally:
        del scheduler.set_timesteps
        pipeline.scheduler = own
    raise ValueError(f"{names} do not go together: the pipeline sets no time steps")


class PipelineRun:
    """One call of a pipeline, and where the tokens of the image stand in what a module of its denoiser returned.

    pipeline: its scheduler is a `OneStep`. settings: arguments of every call. is_packed: whether it packs latents into
    tokens. step: the side of the patches that latents are cut into, by the pipeline or by its denoiser.
    """

    def __init__(self, pipeline: Any, net: Any, settings: Mapping[str, Any]) -> None:
        self.is_packed = hasattr(pipeline, "_pack_latents")
        self._pipeline = pipeline
        self._settings = dict(settings)
        self.step = 2 if self.is_packed else int(net.config.get("patch_size") or 1)
        # a UNet has no text among its tokens, and as many as its stage has positions
        self._is_map = isinstance(net, diffusers.UNet2DConditionModel)
        self._order = _stream_order(net)
        self._mask: Tensor | None = None
        self._tokens = 0

    def output(self, x_t: Tensor, level: NoiseLevel, conditioning: Mapping[str, Tensor]) -> Tensor:
        """What the pipeline hands to its scheduler for latents (B, C, H, W) at a level, in their layout."""
        count, channels, height, width = x_t.shape
        step = self.step
        self._tokens = (height // step) * (width // step)
        self._mask = next((value for key, value in conditioning.items() if key.endswith("mask")), None)
        scheduler = self._pipeline.scheduler
        scheduler.begin(level.timestep)
        self._pipeline(**self._call(x_t, 1, conditioning))
        predicted: Tensor = scheduler.prediction
        scheduler.prediction = None
        if not self.is_packed:
            return predicted
        # packing moves numbers around: the places of all say where each belongs
        places = torch.arange(channels * height * width, device=x_t.device).view(1, channels, height, width)
        unpacked = torch.empty_like(predicted).view(count, -1)
        unpacked[:, self._packed(places).flatten()] = predicted.reshape(count, -1)
        return unpacked.view(count, channels, height, width)

    def scheduled(self, scheduler: Any, steps: int, latents: Tensor, conditioning: Mapping[str, Tensor]) -> Any:
        """A scheduler with the time steps that the pipeline sets for latents of this shape. Raises as `set_by`."""
        return set_by(self._pipeline, scheduler, self._call(latents, steps, conditioning))

    def _call(self, latents: Tensor, steps: int, conditioning: Mapping[str, Tensor]) -> dict[str, Any]:
        height, width = latents.shape[2:]
        scale = self._pipeline.vae_scale_factor
        return {
            "latents": self._packed(latents) if self.is_packed else latents,
            "height": height * scale,
            "width": width * scale,
            "num_inference_steps": steps,
            "output_type": "latent",
            **self._settings,
            **conditioning,
        }

    def _packed(self, latents: Tensor) -> Tensor:
        packed: Tensor = self._pipeline._pack_latents(latents, *latents.shape)
        return packed

    def image_tokens(self, output: Tensor | tuple[object, ...]) -> Tensor:
        """(B, T, D). Of two streams the image's; of a joint sequence what follows the text. Raises ValueError."""
        if isinstance(output, tuple):
            output = self._stream([part for part in output if isinstance(part, Tensor)])
        if output.ndim == 4:
            return spatial_tokens(output)
        if output.ndim != 3:
            raise ValueError(f"expected tokens (B, T, D) or a map (B, C, H, W), got {tuple(output.shape)}")
        surplus = output.shape[1] - self._tokens
        if self._is_map or surplus == 0:
            return output
        if surplus < 0:
            raise ValueError(f"{output.shape[1]} tokens are fewer than the {self._tokens} of the image")
        if self._mask is None or surplus == self._mask.shape[1]:
            return output[:, surplus:]
        # the text of each image without its padding, then the image: rows begin at different places
        at = self._mask.sum(1)[:, None] + torch.arange(self._tokens, device=output.device)
        return output.gather(1, at[..., None].expand(-1, -1, output.shape[2]))

    def _stream(self, streams: Sequence[Tensor]) -> Tensor:
        if len(streams) == 1 or self._is_map:
            return streams[0]
        fitting = [stream for stream in streams if stream.ndim == 3 and stream.shape[1] == self._tokens]
        if len(fitting) == 1:
            return fitting[0]
        if len(streams) == 2 and self._order is not None:
            return streams[self._order]
        raise ValueError(f"which of {len(streams)} streams is the image's is ambiguous")


def _stream_order(net: Any) -> int | None:
    """Which of two streams that blocks return is ``hidden_states``, by their source; None where they disagree."""
    orders = set()
    for kind in {type(module) for module in net.modules() if type(module).__module__.startswith("diffusers.")}:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                names = [getattr(part, "id", "") for part in node.value.elts]
                if sorted(names) == ["encoder_hidden_states", "hidden_states"] and "Block" in kind.__name__:
                    orders.add(names.index("hidden_states"))
    return orders.pop() if len(orders) == 1 else None
