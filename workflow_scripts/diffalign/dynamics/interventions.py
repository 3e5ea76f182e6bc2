"""Removal of what a layer adds: its residual, or that of its attention or MLP alone, while a context is entered.

A layer turns its input h into h + r. Removed, its output is h (`zero`), or h and the mean of r over samples at the same
step (`mean`), which keeps what the layer does to all images alike. Of a part, the output of its modules is 0 or its
mean. Where a layer sees several streams, such as image and text, only the image's is changed; in a joint sequence of
both, all tokens are.

Li and Janson 2024 (Optimal ablation for interpretability) compare removal by zero and by the mean with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffalign.extraction.taps import find_module
from diffalign.models import Denoiser
from diffalign.specs import PARTS


@dataclass(frozen=True)
class Target:
    """What is removed. layer: its alias. depth: its number in order of depth. part: one of `PARTS`. paths: the module
    of the layer, or those of the part. size: numbers that they add for one sample in the calls that were seen.
    """

    layer: str
    depth: int
    part: str
    paths: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class LeftOut:
    """A layer or part that cannot be removed, and why."""

    layer: str
    part: str
    reason: str


@dataclass(frozen=True)
class Window:
    """A run of steps, from `first` to `last`, both in it; number: its place among the windows."""

    number: int
    first: int
    last: int


def windows(steps: int, count: int) -> list[Window]:
    """Cut the steps 0 … steps - 1 into windows whose lengths differ by at most 1, the longer ones last.

    Raises ValueError for fewer than one window and for more windows than steps.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"{count} windows of {steps} steps; expected 1 to {steps}")
    bounds = [steps * number // count for number in range(count + 1)]
    return [Window(number, bounds[number], bounds[number + 1] - 1) for number in range(count)]


def targets(
    denoiser: Denoiser, layers: Mapping[str, str], parts: Sequence[str], forward: Callable[[], object]
) -> tuple[list[Target], list[LeftOut]]:
    """What of some layers can be removed, in order of depth, and what cannot.

    layers: alias -> module path, by depth. parts: some of `PARTS`. forward: makes the calls of a step or more, so that
    shapes of inputs and outputs are seen. A layer is left out where its output has another shape than its input, as
    the stages of a UNet have, and a part where the family knows no modules of it. Raises ValueError for another part,
    for a path that does not exist, and where nothing is left.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise ValueError(f"unknown parts '{', '.join(unknown)}'; allowed: {', '.join(PARTS)}")
    asked: list[tuple[int, str, str, tuple[str, ...]]] = []
    out: list[LeftOut] = []
    for depth, (layer, path) in enumerate(layers.items()):
        find_module(denoiser.module, path)
        known = {"layer": (path,), **denoiser.parts(path)}
        for part in parts:
            if part in known:
                asked.append((depth, layer, part, known[part]))
            else:
                out.append(LeftOut(layer, part, f"{path} has no {part} of its own"))
    # (path, whole) -> shapes of input and output in every call
    seen: dict[tuple[str, bool], list[tuple[tuple[int, ...] | None, tuple[int, ...]]]] = {}

    def watch(path: str, whole: bool) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given, (stream, _) = _given(args, kwargs), _stream(output, denoiser.tokens if whole else None)
            shapes = None if given is None else tuple(given.shape), tuple(stream.shape)
            seen.setdefault((path, whole), []).append(shapes)

        return hook

    with ExitStack() as stack:
        for path, whole in dict.fromkeys((path, part == "layer") for _, _, part, paths in asked for path in paths):
            module = denoiser.module.get_submodule(path)
            stack.callback(module.register_forward_hook(watch(path, whole), with_kwargs=True).remove)
        forward()
    found = []
    for depth, layer, part, paths in asked:
        silent = [path for path in paths if (path, part == "layer") not in seen]
        shapes = [shape for path in paths if path not in silent for shape in seen[path, part == "layer"]]
        if silent:
            out.append(LeftOut(layer, part, f"the model never calls {', '.join(silent)}"))
        elif part == "layer" and shapes[0][0] != shapes[0][1]:
            out.append(LeftOut(layer, part, f"its input is of shape {shapes[0][0]}, its output of {shapes[0][1]}"))
        else:
            size = sum(torch.Size(output[1:]).numel() for _, output in shapes)
            found.append(Target(layer, depth, part, paths, size))
    if not found:
        raise ValueError(f"nothing can be removed: {'; '.join(f'{o.layer} ({o.part}): {o.reason}' for o in out)}")
    return found, out


class Means:
    """Means over samples of what targets add, by step and by number of the call within it.

    A step may call the model several times: with and without the condition, and again for Heun's method. Sums are in
    float64, so that means do not depend on batches beyond its rounding. Their memory is 8 bytes for each number of each
    target, step and call.
    """

    def __init__(self, denoiser: Denoiser, of: Sequence[Target]) -> None:
        self._denoiser = denoiser
        self._targets = tuple(of)
        self._sums: dict[tuple[str, bool, int, int], Tensor] = {}
        self._counts: dict[tuple[str, bool, int, int], int] = {}

    @contextmanager
    def recording(self, step: int) -> Iterator[None]:
        """Add what the targets add in the calls of this step, of every sample of a batch."""
        with ExitStack() as stack:
            for path, whole in dict.fromkeys(
                (path, each.part == "layer") for each in self._targets for path in each.paths
            ):
                module = self._denoiser.module.get_submodule(path)
                hook = self._recorder(path, whole, step)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
            yield

    def _recorder(self, path: str, whole: bool, step: int) -> Callable[..., None]:
        call = -1

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            nonlocal call
            call += 1
            added, _ = _stream(output, self._denoiser.tokens if whole else None)
            added = added.double()
            if whole:
                given = _given(args, kwargs)
                assert given is not None  # it has the shape of the output
                added = added - given
            key = (path, whole, step, call)
            total = added.sum(0)
            self._sums[key] = self._sums[key] + total if key in self._sums else total
            self._counts[key] = self._counts.get(key, 0) + len(added)

        return hook

    def of(self, path: str, whole: bool, step: int, call: int) -> Tensor:
        """The mean (…) float64 of one module. Raises ValueError for a call that was not recorded."""
        key = (path, whole, step, call)
        if key not in self._sums:
            raise ValueError(f"{path}: no mean of call {call} in step {step}; the sampler made fewer calls before")
        return self._sums[key] / self._counts[key]


@contextmanager
def removed(denoiser: Denoiser, target: Target, step: int, means: Means | None = None) -> Iterator[None]:
    """Run the model without what a target adds, until the context ends, in whatever way it does.

    step: the one that the sampler makes, all of whose calls are within. means: in the place of what is removed; None
    for zero. Raises ValueError where the output of a layer has another shape than its input.
    """
    with ExitStack() as stack:
        for path in target.paths:
            module = denoiser.module.get_submodule(path)
            hook = _remover(denoiser, path, target.part == "layer", step, means)
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def around(
    denoiser: Denoiser, target: Target, window: Window, means: Means | None = None
) -> Callable[[int], AbstractContextManager[object]]:
    """What `sampling.runs.Run.states` enters around the calls of each step: a removal in a window, nothing outside."""

    def entered(step: int) -> AbstractContextManager[object]:
        if window.first <= step <= window.last:
            return removed(denoiser, target, step, means)
        return nullcontext()

    return entered


def _remover(denoiser: Denoiser, path: str, whole: bool, step: int, means: Means | None) -> Callable[..., Any]:
    call = -1

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        nonlocal call
        call += 1
        stream, place = _stream(output, denoiser.tokens if whole else None)
        kept = _given(args, kwargs) if whole else torch.zeros_like(stream)
        if kept is None or kept.shape != stream.shape:
            shape = None if kept is None else tuple(kept.shape)
            raise ValueError(f"{path}: its input is of shape {shape}, its output of {tuple(stream.shape)}")
        if means is not None:
            kept = kept.double() + means.of(path, whole, step, call)
        changed = kept.to(stream.dtype)
        return changed if place is None else (*output[:place], changed, *output[place + 1 :])

    return hook


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The hidden states that a module was given, by diffusers' name for them or as its first argument."""
    given = kwargs.get("hidden_states", args[0] if args else None)
    return given if isinstance(given, Tensor) else None


def _stream(output: Any, tokens: Callable[[Any], Tensor] | None) -> tuple[Tensor, int | None]:
    """The stream of the image in what a module returned, and its place where that is a tuple.

    tokens: of a layer, which streams the family averages; None for a part, whose first stream is the image's. Raises
    ValueError for anything but a tensor or a tuple that holds the stream.
    """
    if isinstance(output, Tensor):
        return output, None
    if not isinstance(output, tuple):
        raise ValueError(f"a module returned a {type(output).__name__}; expected a tensor or a tuple of them")
    if tokens is None:
        places = [0] if isinstance(output[0], Tensor) else []
    else:
        # tokens are the stream itself, or a view that begins where it does
        begins = tokens(output).data_ptr()
        tensors = {place: each for place, each in enumerate(output) if isinstance(each, Tensor)}
        places = [place for place, each in tensors.items() if each.data_ptr() == begins]
    if len(places) != 1:
        raise ValueError(f"{len(places)} of {len(output)} outputs of a module are the image's; expected 1")
    return output[places[0]], places[0]
