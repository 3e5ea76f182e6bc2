"""Two encoders that share a last linear layer, which is trained with the first set and frozen for the second."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign.offenders import first_five
from diffalign.randomness import keyed, shuffled, uniform
from diffalign.shared_space.affinity import check_rows
from diffalign.specs import TARGETS

if TYPE_CHECKING:
    import torch

Array = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]

NORMS = ("mean_square", "frobenius")
LOSSES = ("cross_entropy", "squared")
_PURPOSE = "half_shared"
# the logit of a class that a problem doesn't have
_ABSENT = -1e30


@dataclass(frozen=True)
class HalfShared:
    """How two encoders are trained. steps: of Adam, for each of the two. batch_size: rows of a step; an epoch deals all
    rows out in a new order, and the rest of them is a smaller batch. width: of each of the layers, which are followed
    by GELU. weight: of the regularisation, `norm` of A(features) - A(inputs) within a batch. target: what is learned,
    see `targets`. random_classes: of the target ``random``. loss: ``cross_entropy`` of classes, or ``squared`` error of
    one output and the z-scored class number.

    The defaults take all rows of a small set in each step. The published schedule is PUBLISHED.
    """

    steps: int = 500
    batch_size: int = 512
    learning_rate: float = 1e-3
    width: int = 32
    layers: int = 3
    weight: float = 1.0
    norm: str = "mean_square"
    target: str = "index"
    random_classes: int = 10
    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        for name, allowed in (("norm", NORMS), ("target", TARGETS), ("loss", LOSSES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; allowed: {', '.join(allowed)}")
        for name, least in (("steps", 1), ("batch_size", 2), ("width", 1), ("layers", 1), ("random_classes", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; allowed: {least} or more")
        if not (self.learning_rate > 0 and self.weight >= 0):
            raise ValueError(f"learning_rate is {self.learning_rate} and weight {self.weight}; allowed: > 0 and >= 0")


# 3000 epochs of 30 points in batches of 16
PUBLISHED = HalfShared(steps=6000, batch_size=16)


@dataclass(frozen=True, eq=False)
class Encoder:
    """z-scores, then linear layers with GELU between them; features are those before the last GELU.

    mean, std: (D,) of the columns. weights: (in, out) of each layer. biases: (out,). All float32.
    """

    mean: Float32
    std: Float32
    weights: tuple[Float32, ...]
    biases: tuple[Float32, ...]

    def apply(self, x: Array) -> Float32:
        """Features (N, width) float32 of x (N, D). Raises ValueError for another width, and NaN or infinite rows."""
        import torch
        from torch.nn.functional import gelu

        check_rows(x)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"features have {x.shape[1]} columns; this encoder takes {len(self.mean)}")
        hidden = torch.from_numpy(_scored(x, self.mean, self.std))
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = (gelu(hidden) if number else hidden) @ torch.from_numpy(weight) + torch.from_numpy(bias)
        return np.asarray(hidden.numpy())


def targets(
    settings: HalfShared, names: Sequence[str], labels: Sequence[str] | NDArray[Any] | None, seed: int
) -> NDArray[np.int64]:
    """Class (N,) of every name, from 0.

    ``index``: its place among the sorted names, a class for each. ``permuted_index``: its place in a random order of
    them. ``labels``: the place of its label among the sorted labels. ``random``: one of random_classes, independently
    of all else. Draws are keyed by (seed, name). Raises ValueError for names that repeat and missing labels.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"{len(names)} names, of which {len(set(names))} are different")
    if settings.target == "random":
        draws = [uniform(seed, f"{_PURPOSE} target", name) for name in names]
        return np.array([int(draw * settings.random_classes) for draw in draws], np.int64)
    if settings.target == "labels":
        if labels is None or len(labels) != len(names):
            raise ValueError(f"the target 'labels' needs a label of each of {len(names)} rows")
        return np.asarray(np.unique(np.asarray(labels), return_inverse=True)[1], np.int64)
    if settings.target == "index":
        order = sorted(range(len(names)), key=lambda row: names[row])
    else:
        order = shuffled(names, seed, f"{_PURPOSE} target")
    places = np.empty(len(names), np.int64)
    places[order] = np.arange(len(names))
    return places


@dataclass(frozen=True, eq=False)
class Problem:
    """Two sets (N, D) and (N, E) whose rows belong to one another, classes z (N,) from 0, and the seed of draws."""

    x: Array
    y: Array
    z: NDArray[np.int64]
    seed: int


def fit_half_shared(
    x: Array, y: Array, z: NDArray[np.int64], settings: HalfShared, seed: int
) -> tuple[Encoder, Encoder]:
    """Train an encoder of x (N, D) and a last linear layer to tell z (N,), freeze the layer, and train one of y (N, E).

    Loss: `settings.loss` plus weight times the mean of (A(features) - A(inputs))² over the pairs of a batch, A of γ = 1
    and the variance of the batch, inputs z-scored. Draws of initial weights and orders are keyed by the seed; both
    encoders have their own. Batches take rows by number, so that rows should come in the order of their names.

    Raises ValueError for sets of different size, constant features, NaN or infinite rows, and classes below 0.
    """
    return fit_problems([Problem(x, y, z, seed)], settings)[0]


def fit_problems(problems: Sequence[Problem], settings: HalfShared) -> list[tuple[Encoder, Encoder]]:
    """`fit_half_shared` of several problems at once, all of the same N, D and E; none depends on the others.

    Small networks take most of their time in calls, which are shared; what differs to one alone is rounding.
    """
    if not problems:
        return []
    for problem in problems:
        _check(problem)
    shapes = {(problem.x.shape, problem.y.shape) for problem in problems}
    if len(shapes) > 1:
        raise ValueError(f"problems have sets of different shapes: {first_five([str(shape) for shape in shapes])}")
    classes = [int(problem.z.max()) + 1 for problem in problems]
    with _one_thread():
        fit = _Fit(problems, classes, settings)
        first, last = fit.encoders("first", [problem.x for problem in problems], None)
        second, _ = fit.encoders("second", [problem.y for problem in problems], last)
    return list(zip(first, second, strict=True))


def _check(problem: Problem) -> None:
    for what, x in (("the first set", problem.x), ("the second set", problem.y)):
        check_rows(x, what)
        if len(x) < 2 or np.ptp(x, axis=0).max() == 0:
            raise ValueError(f"{what} is constant: {len(x)} equal rows")
    if len(problem.x) != len(problem.y) or problem.z.shape != (len(problem.x),):
        raise ValueError(
            f"sets have {len(problem.x)} and {len(problem.y)} rows and classes the shape {problem.z.shape}; rows must "
            "belong to one another"
        )
    if problem.z.min() < 0:
        raise ValueError(f"classes are counted from 0; the least is {problem.z.min()}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in torch in one order, and no threads that wait for one another in small products."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Fit:
    """Trains the encoders of several problems together, as stacks: (problem, …) in every tensor."""

    def __init__(self, problems: Sequence[Problem], classes: Sequence[int], settings: HalfShared) -> None:
        import torch

        self.settings = settings
        self.seeds = [problem.seed for problem in problems]
        self.rows = len(problems[0].x)
        self.outputs = max(classes) if settings.loss == "cross_entropy" else 1
        self.classes = torch.from_numpy(np.stack([problem.z for problem in problems]))
        scored = self.classes.float() - self.classes.float().mean(1, keepdim=True)
        self.numbers = scored / scored.std(1, keepdim=True).clamp_min(1e-12)
        self.absent = torch.zeros(len(problems), 1, self.outputs)
        if settings.loss == "cross_entropy":
            for row, count in enumerate(classes):
                self.absent[row, :, count:] = _ABSENT
        self.classes_of = [count if settings.loss == "cross_entropy" else 1 for count in classes]

    def encoders(
        self, which: str, sets: Sequence[Array], last: Sequence[torch.Tensor] | None
    ) -> tuple[list[Encoder], list[torch.Tensor]]:
        """Encoders of these sets, and weight and bias of their last layer, which is trained where it is not given."""
        import torch

        means = [x.mean(axis=0, dtype=np.float64).astype(np.float32) for x in sets]
        stds = [x.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32) for x in sets]
        stds = [np.where(std > 0, std, np.float32(1)) for std in stds]
        inputs = torch.from_numpy(np.stack([_scored(*each) for each in zip(sets, means, stds, strict=True)]))
        width = self.settings.width
        sizes = [inputs.shape[2], *[width] * self.settings.layers]
        layers = [
            torch.from_numpy(np.stack([_initial(seed, f"{which}\x00{at}", a, b)[part] for seed in self.seeds]))
            for at, (a, b) in enumerate(itertools.pairwise(sizes))
            for part in range(2)
        ]
        trained = list(layers)
        if last is None:
            ends = zip(self.seeds, self.classes_of, strict=True)
            starts = [_padded(_initial(seed, "last", width, own), self.outputs) for seed, own in ends]
            last = [torch.from_numpy(np.stack([start[part] for start in starts])) for part in range(2)]
            trained += last
        for each in trained:
            each.requires_grad_()
        self._train(which, inputs, layers, last, trained)
        stacks = [layer.detach().numpy() for layer in layers]
        made = [
            Encoder(mean, std, tuple(w[row] for w in stacks[::2]), tuple(b[row, 0] for b in stacks[1::2]))
            for row, (mean, std) in enumerate(zip(means, stds, strict=True))
        ]
        return made, [each.detach() for each in last]

    def _train(
        self,
        which: str,
        inputs: torch.Tensor,
        layers: Sequence[torch.Tensor],
        last: Sequence[torch.Tensor],
        trained: Sequence[torch.Tensor],
    ) -> None:
        import torch

        optimiser = torch.optim.Adam(trained, lr=self.settings.learning_rate, fused=True)
        whole = self.settings.batch_size >= self.rows
        affinity = _affinity(inputs) if whole else None
        for rows in self._batches(which):
            seen = inputs if rows is None else _taken(inputs, rows)
            features = _features(seen, layers)
            loss = self._loss(features, last, rows)
            difference = _affinity(features) - (_affinity(seen) if affinity is None else affinity)
            squares = difference.square()
            if self.settings.norm == "mean_square":
                regularisation = squares.mean((1, 2)).sum()
            else:
                regularisation = squares.sum((1, 2)).sqrt().sum()
            optimiser.zero_grad()
            (loss + self.settings.weight * regularisation).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def _loss(self, features: torch.Tensor, last: Sequence[torch.Tensor], rows: torch.Tensor | None) -> torch.Tensor:
        """The sum over problems of their mean loss."""
        import torch
        from torch.nn.functional import cross_entropy, gelu

        told = torch.baddbmm(last[1] + self.absent, gelu(features), last[0])
        wanted = self.classes if self.settings.loss == "cross_entropy" else self.numbers
        if rows is not None:
            wanted = wanted.gather(1, rows)
        count = wanted.shape[1]
        if self.settings.loss == "squared":
            return (told[:, :, 0] - wanted).square().sum() / count
        return cross_entropy(told.flatten(0, 1), wanted.flatten(), reduction="sum") / count

    def _batches(self, which: str) -> Iterator[torch.Tensor | None]:
        """Row numbers (problem, n) of each step; None where a batch is all rows."""
        import torch

        done, epoch = 0, 0
        size, steps = self.settings.batch_size, self.settings.steps
        if size >= self.rows:
            yield from (None for _ in range(steps))
            return
        while done < steps:
            orders = [
                keyed(seed, f"{_PURPOSE} order", f"{which}\x00{epoch}").permutation(self.rows) for seed in self.seeds
            ]
            order = torch.from_numpy(np.stack(orders))
            for begin in range(0, self.rows, size):
                # the affinity of a single row says nothing
                if done < steps and self.rows - begin > 1:
                    yield order[:, begin : begin + size]
                    done += 1
            epoch += 1


def _scored(x: Array, mean: Float32, std: Float32) -> Float32:
    return ((x - mean.astype(np.float64)) / std.astype(np.float64)).astype(np.float32)


def _taken(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return values.gather(1, rows[:, :, None].expand(-1, -1, values.shape[2]))


def _features(inputs: torch.Tensor, layers: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch
    from torch.nn.functional import gelu

    hidden = inputs
    for at in range(0, len(layers), 2):
        hidden = torch.baddbmm(layers[at + 1], gelu(hidden) if at else hidden, layers[at])
    return hidden


def _affinity(x: torch.Tensor) -> torch.Tensor:
    """exp(-‖x_i - x_j‖² / (2 Σ_d var_d)) of each problem, (problem, n, n)."""
    import torch

    centred = x - x.mean(1, keepdim=True)
    squares = centred.square().sum(2)
    distances = torch.baddbmm(squares[:, :, None] + squares[:, None, :], centred, centred.mT, alpha=-2).clamp_min(0)
    variance = squares.sum(1) / (x.shape[1] - 1)
    return torch.exp(-distances / (2 * variance.clamp_min(1e-12))[:, None, None])


def _initial(seed: int, layer: str, inputs: int, outputs: int) -> tuple[Float32, Float32]:
    """Weight (inputs, outputs) and bias (1, outputs), uniform within ± 1 / sqrt(inputs), as torch begins both."""
    bound = float(1 / np.sqrt(inputs))
    drawn = keyed(seed, f"{_PURPOSE} weights", layer).uniform(-bound, bound, (inputs + 1, outputs)).astype(np.float32)
    return drawn[:-1], drawn[-1:]


def _padded(layer: tuple[Float32, Float32], outputs: int) -> tuple[Float32, Float32]:
    """Zeros for the classes that a problem doesn't have."""
    weight, bias = (np.pad(each, ((0, 0), (0, outputs - each.shape[1]))) for each in layer)
    return weight, bias
