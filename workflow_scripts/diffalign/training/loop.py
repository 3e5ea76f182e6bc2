"""The loop: steps of the optimiser, averaged weights, and a state from which a killed training goes on.

The weights of a seed are the same to the bit whenever they are made: on one thread of a CPU, since the order in which
threads add floats, and so the sums, depends on their number; on a GPU, with deterministic algorithms, for one model of
GPU. After a kill, the state is read and the remaining steps are made as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffalign.devices import device_name
from diffalign.io.training_checkpoints import TrainingFolder
from diffalign.logs import log, progress
from diffalign.specs import Training
from diffalign.training import draws
from diffalign.training.batches import Images, order_of
from diffalign.training.objectives import Objective
from diffalign.training.schedules import average_decay, learning_rate

if TYPE_CHECKING:
    from torch import Tensor

OPTIMIZERS = ("adamw", "adam", "sgd")
# momentum of sgd, and the seconds between two states
_MOMENTUM = 0.9
_STATE_SECONDS = 30.0


class TrainingError(ValueError):
    """A training that cannot go on; the message names the step, the learning rate and the last whole checkpoint."""


@dataclass
class _Run:
    """What is trained, and how far it is. losses: part -> one number a step that was made."""

    name: str
    module: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    average: dict[str, Tensor]
    step: int = 0
    losses: dict[str, list[float]] = field(default_factory=dict)


def train(
    name: str,
    module: nn.Module,
    objective: Objective,
    recipe: Training,
    seed: int,
    images: Images,
    checkpoints: Sequence[int],
    folder: TrainingFolder,
    key: Mapping[str, Any],
    state_seconds: float = _STATE_SECONDS,
) -> dict[str, list[float]]:
    """Train a module, and write its state dict at each of the steps `checkpoints` into `folder`.

    name: of the model, for messages. Step s is the module after s steps of the optimiser, 0 the one before the first;
    where ``ema`` is not 0, a state dict holds the averages of parameters. key: all that the training depends on, as
    plain JSON; a state in `folder` with the same key is gone on from, another is discarded. state_seconds: between two
    states; one is written with each checkpoint, too.

    Returns ``learning_rate``, ``loss`` and the parts of the objective: one number a step, from step 1. Raises
    ValueError for a batch larger than the data, for checkpoints beyond the last step and for an unknown optimiser or
    schedule, TrainingError where a loss or a weight becomes NaN or infinite.
    """
    beyond = [step for step in checkpoints if not 0 <= step <= recipe.steps]
    if beyond:
        raise ValueError(f"{name}: checkpoint {beyond[0]} lies beyond the last step, {recipe.steps}")
    # refused before anything is written
    order_of(images.names, recipe.batch_size, seed, recipe.steps)
    device = next(module.parameters()).device
    parameters = [each for each in module.parameters() if each.requires_grad]
    if objective.beside is not None:
        parameters += list(objective.beside.parameters())
    average = {key: tensor.detach().clone() for key, tensor in module.state_dict().items()}
    run = _Run(name, module, objective, _optimizer(recipe, parameters), parameters, average)
    run.losses = {part: [] for part in ("learning_rate", "loss", *objective.parts)}
    depends_on = {**key, "torch": torch.__version__, "device": device_name(device), "checkpoints": sorted(checkpoints)}
    identity = json.dumps(depends_on, sort_keys=True)
    with _deterministic(device):
        _resume(run, folder, identity, checkpoints, device)
        if run.step == 0 and 0 in checkpoints:
            folder.weights(0).write(_on_cpu(run.average))
        module.train()
        order = order_of(images.names, recipe.batch_size, seed, recipe.steps, run.step)
        batches = images.batches(order, device)
        written = time.monotonic()
        for batch in progress(batches, recipe.steps - run.step, f"train {name}"):
            _make_step(run, recipe, seed, batch, folder, checkpoints)
            if run.step in checkpoints:
                _check_weights(run, folder, checkpoints)
                folder.weights(run.step).write(_on_cpu(run.average))
            if run.step in checkpoints or time.monotonic() - written > state_seconds:
                _write_state(run, folder, identity)
                written = time.monotonic()
    return run.losses


def _make_step(
    run: _Run, recipe: Training, seed: int, batch: Any, folder: TrainingFolder, checkpoints: Sequence[int]
) -> None:
    """One step of the optimiser, and of the average."""
    step = run.step + 1
    rate = learning_rate(recipe, step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    # what a network draws for itself, such as dropout
    torch.manual_seed(draws.number(seed, "training network", step))
    measured = run.objective.measure(batch, step)
    numbers = {part: float(value.detach()) for part, value in measured.items()}
    bad = [part for part, value in numbers.items() if not math.isfinite(value)]
    if bad:
        raise _stopped(run, step, rate, f"{bad[0]} is {numbers[bad[0]]}", folder, checkpoints)
    run.optimizer.zero_grad(set_to_none=True)
    measured["loss"].backward()  # type: ignore[no-untyped-call]
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(run.parameters, recipe.clip)
    run.optimizer.step()
    run.step = step
    _average(run, average_decay(recipe, step))
    for part, value in (("learning_rate", rate), *numbers.items()):
        run.losses[part].append(value)


def _average(run: _Run, decay: float) -> None:
    """Move the averages of floats towards the module's own; whole numbers, as of a counter, are taken."""
    with torch.no_grad():
        for key, tensor in run.module.state_dict().items():
            if decay == 0 or not tensor.is_floating_point():
                run.average[key].copy_(tensor)
            else:
                run.average[key].lerp_(tensor, 1 - decay)


def _check_weights(run: _Run, folder: TrainingFolder, checkpoints: Sequence[int]) -> None:
    bad = [key for key, tensor in run.average.items() if not bool(tensor.isfinite().all())]
    if bad:
        rate = run.losses["learning_rate"][-1]
        raise _stopped(run, run.step, rate, f"weights {bad[0]} are NaN or infinite", folder, checkpoints)


def _stopped(
    run: _Run, step: int, rate: float, what: str, folder: TrainingFolder, checkpoints: Sequence[int]
) -> TrainingError:
    kept = [each for each in checkpoints if each < step and folder.weights(each).path.is_file()]
    last = f"the last whole checkpoint is {folder.weights(max(kept)).path}" if kept else "there is no checkpoint yet"
    return TrainingError(
        f"{run.name}: {what} at step {step}, where the learning rate is {rate:.3g}; lower learning_rate, raise warmup "
        f"or set clip; {last}"
    )


def _optimizer(recipe: Training, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a recipe; its learning rate is set at each step. Raises ValueError for an unknown one."""
    given: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **given)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, **given)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=_MOMENTUM, **given)
    raise ValueError(f"unknown optimizer '{recipe.optimizer}'; allowed: {', '.join(OPTIMIZERS)}")


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """One thread on a CPU, deterministic algorithms on a GPU; the process has its own settings again afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
            yield
            return
        # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # the other kernels add gradients in any order
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _write_state(run: _Run, folder: TrainingFolder, identity: str) -> None:
    beside = run.objective.beside
    folder.state.write(
        {
            "key": identity,
            "step": run.step,
            "module": run.module.state_dict(),
            "average": run.average,
            "beside": {} if beside is None else beside.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "losses": {part: torch.tensor(values, dtype=torch.float64) for part, values in run.losses.items()},
        }
    )


def _resume(run: _Run, folder: TrainingFolder, identity: str, checkpoints: Sequence[int], device: torch.device) -> None:
    """Go on from the state in a folder; where it is of another training, or not whole, discard it, and begin anew."""
    content = folder.state.read(device)
    made = [] if content is None else [step for step in checkpoints if step <= content["step"]]
    if content is None or content["key"] != identity or any(folder.weights(s).read(device) is None for s in made):
        if content is not None:
            why = "is of another recipe" if content["key"] != identity else "is not whole"
            log.info("%s: what %s holds %s; the training begins anew", run.name, folder.path, why)
        folder.clear()
        return
    run.step = int(content["step"])
    run.module.load_state_dict(content["module"])
    run.average = dict(content["average"])
    if run.objective.beside is not None:
        run.objective.beside.load_state_dict(content["beside"])
    run.optimizer.load_state_dict(content["optimizer"])
    run.losses = {part: values.tolist() for part, values in content["losses"].items()}
    log.info("%s: goes on after step %d", run.name, run.step)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().clone() for key, tensor in state.items()}
