"""Noise levels on the schedules of diffusers: flow matching, and variance-preserving steps by their alphas_cumprod."""

from __future__ import annotations

import json
import math
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from diffalign.io.checkpoint_errors import CheckpointError, check_there
from diffalign.models.predictions import CONVERSIONS, Conversion
from diffalign.models.protocol import Prediction
from diffalign.noise import NoiseLevel, linear

if TYPE_CHECKING:
    from torch import Tensor

# the published img2img features run 100 steps whatever the strength: the default of models.*.strength_steps
PUBLISHED_STEPS = 100
# classes of diffusers that a trajectory can be made with: those whose noise level at every call is known here
STEPPING = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
# the same of flow matching alone
FLOW_STEPPING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")


def scheduler_of(folder: Path) -> Any:
    """The scheduler of a pipeline folder, of the class that its configuration names. Raises CheckpointError."""
    import diffusers

    where = folder / "scheduler"
    check_there(where / "scheduler_config.json")
    name = json.loads((where / "scheduler_config.json").read_text(encoding="utf-8")).get("_class_name")
    kind = getattr(diffusers, str(name), None)
    if kind is None:
        raise CheckpointError(f"{where}: diffusers {diffusers.__version__} has no scheduler '{name}'")
    return kind.from_pretrained(where, local_files_only=True)


def is_flow(scheduler: Any) -> bool:
    """Whether the schedule is the linear path of flow matching, rather than variance-preserving."""
    return not hasattr(scheduler, "alphas_cumprod") or bool(scheduler.config.get("use_flow_sigmas"))


def conversion(scheduler: Any, where: Path) -> Conversion:
    """How what the network of a pipeline gives becomes estimates of image and noise, by its scheduler's configuration.

    Raises CheckpointError for a kind of prediction that is not known, or not on this path.
    """
    kind = str(scheduler.config.get("prediction_type", "flow_prediction"))
    if kind not in CONVERSIONS or (kind == "flow_prediction") != is_flow(scheduler):
        path = "flow matching" if is_flow(scheduler) else "a variance-preserving schedule"
        raise CheckpointError(f"{where / 'scheduler'}: prediction_type '{kind}' on {path} is not known here")
    return CONVERSIONS[kind]


def compatible(scheduler: Any) -> tuple[str, ...]:
    """Classes of diffusers that can be built from the configuration of a scheduler, in alphabetical order.

    Of a variance-preserving schedule those that diffusers says are compatible; of flow matching those that read such a
    configuration; and of both only those of `STEPPING` and `FLOW_STEPPING`.
    """
    if type(scheduler).__name__ in FLOW_STEPPING:
        # diffusers names only the class itself; the second order one reads no shift that depends on the size
        return FLOW_STEPPING[:1] if scheduler.config.get("use_dynamic_shifting") else FLOW_STEPPING
    kinds = {kind.__name__: kind for kind in scheduler.compatibles}
    reads_flow = {name for name, kind in kinds.items() if "use_flow_sigmas" in signature(kind.__init__).parameters}
    return tuple(name for name in STEPPING if name in (reads_flow if is_flow(scheduler) else kinds))


def scheduler_like(scheduler: Any, name: str | None, where: Path) -> Any:
    """A scheduler of the class `name`, built from the configuration of another; None is for the other itself.

    Raises ValueError that lists the compatible classes for one that is not, or whose noise levels are not known here.
    """
    asked, allowed = name or type(scheduler).__name__, compatible(scheduler)
    if asked not in allowed:
        raise ValueError(
            f"{where / 'scheduler'}: '{asked}' is no scheduler that trajectories of this pipeline can be made with; "
            f"compatible with its {type(scheduler).__name__}: {', '.join(allowed) or 'none'}"
        )
    if name is None:
        return scheduler
    import diffusers

    return getattr(diffusers, name).from_config(scheduler.config)


def level_of_call(scheduler: Any, call: int) -> NoiseLevel:
    """The noise level of one of a scheduler's calls of the model, ``timesteps[call]``, in the scale that a model reads.

    What `scale_model_input` gives has α² + σ² = 1, or α + σ = 1 on the linear path.
    """
    step = float(scheduler.timesteps[call])
    if is_flow(scheduler):
        sigma = float(scheduler.sigmas[call])
        return NoiseLevel(1 - sigma, sigma, step)
    if hasattr(scheduler, "sigmas"):
        ratio = float(scheduler.sigmas[call])
        norm = math.hypot(1, ratio)
        return NoiseLevel(1 / norm, ratio / norm, step)
    squared = float(scheduler.alphas_cumprod[int(step)])
    return NoiseLevel(math.sqrt(squared), math.sqrt(1 - squared), step)


def as_output(scheduler: Any, prediction: Prediction, level: NoiseLevel) -> Tensor:
    """Estimates of image and noise as what a scheduler takes for the output of the model: the inverse of `conversion`.

    They may be guided: outputs are linear in both.
    """
    kind = scheduler.config.get("prediction_type", "flow_prediction")
    if kind == "epsilon":
        return prediction.eps
    if kind == "sample":
        return prediction.x0
    if kind == "v_prediction":
        return level.alpha * prediction.eps - level.sigma * prediction.x0
    return prediction.eps - prediction.x0


def noise_level(folder: Path, noise: str, steps: int = PUBLISHED_STEPS) -> NoiseLevel:
    """Where a noise level of the grammar lies on the checkpoint's own schedule.

    ``t0.5``: α and σ with σ/(α + σ) = t on the linear path or, with α² + σ² = 1, on the variance-preserving one.
    ``s20``: what `steps` img2img steps at strength 20 % begin with, by the scheduler's own spacing and shift.
    Raises CheckpointError where a strength means nothing without the size of the image, or is less than one step.
    """
    scheduler = scheduler_of(folder)
    if noise[0] == "t":
        t = float(noise[1:])
        if not is_flow(scheduler):
            return variance_preserving(t, scheduler.alphas_cumprod)
        alpha, sigma = linear(t)
        return NoiseLevel(alpha, sigma, sigma * scheduler.config.num_train_timesteps)
    return _img2img(scheduler, int(noise[1:]), steps, folder)


def variance_preserving(t: float, alphas_cumprod: ArrayLike) -> NoiseLevel:
    """The level t = σ/(α + σ) on a schedule with α² = ᾱ and α² + σ² = 1.

    The clock lies between the two steps around it, linearly in log-SNR; a level beyond the schedule is taken as its
    first or last step, whose noise is nearest.
    """
    alpha, sigma = linear(t)
    norm = math.hypot(alpha, sigma)
    squared = np.asarray(alphas_cumprod, np.float64)
    # a schedule with zero terminal SNR ends in infinity, which np.interp cannot cross
    steps = np.flatnonzero((squared > 0) & (squared < 1))
    log_ratio = 0.5 * np.log((1 - squared[steps]) / squared[steps])
    if t == 0:
        step = 0.0
    elif t == 1:
        step = float(len(squared) - 1)
    else:
        step = float(np.interp(math.log(sigma / alpha), log_ratio, steps))
    return NoiseLevel(alpha / norm, sigma / norm, step)


def _img2img(scheduler: Any, strength: int, steps: int, folder: Path) -> NoiseLevel:
    if scheduler.config.get("use_dynamic_shifting"):
        raise CheckpointError(
            f"{folder / 'scheduler'}: shifts its steps by the size of the image, so a strength is no noise level; "
            "write t and a number in [0, 1] instead"
        )
    if steps * strength < 100:
        raise CheckpointError(
            f"{folder / 'scheduler'}: the strength s{strength} is less than one of {steps} steps; "
            "raise models.*.strength_steps or the strength"
        )
    scheduler.set_timesteps(steps)
    # schedulers of second order list two calls a step
    start = (steps - steps * strength // 100) * int(getattr(scheduler, "order", 1))
    step = float(scheduler.timesteps[start])
    if is_flow(scheduler):
        sigma = float(scheduler.sigmas[start])
        return NoiseLevel(1 - sigma, sigma, step, strength)
    if hasattr(scheduler, "sigmas"):
        # σ/α, what add_noise adds before scale_model_input divides by its norm
        ratio = float(scheduler.sigmas[start])
        norm = math.hypot(1, ratio)
        return NoiseLevel(1 / norm, ratio / norm, step, strength)
    squared = float(scheduler.alphas_cumprod[int(step)])
    return NoiseLevel(math.sqrt(squared), math.sqrt(1 - squared), step, strength)
