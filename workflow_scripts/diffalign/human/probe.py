"""The linear probe of human_alignment: a linear map of features, trained on human choices.

Objects are split twice: test objects are used for accuracy only, and of the others, the objects for early stopping are
disjoint from those for training. Standardisation and PCA are fitted to training objects.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.devices import device_name
from diffalign.human.checkpoints import Checkpoint, CheckpointFile
from diffalign.human.folds import Split, nested_splits
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.transforms import Transform
from diffalign.human.triplets import Triplets
from diffalign.randomness import keyed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OPTIMIZERS = ("adam", "adamw", "sgd")
_MOMENTUM = 0.9
_CHECKPOINT_FORMAT = 2
_BLOCK_BYTES = 2**30


@dataclass(frozen=True)
class Schedule:
    """Training of a probe. Defaults are those published for diffusion models.

    Weights (D, D) start from normal draws of std `initial`, biases from `initial`. Training stops after `patience`
    epochs in which the loss on the stopping objects has not fallen by `min_delta`, but not before `min_epochs`. The
    weights of the best epoch are kept; the published code keeps the last. sgd has a momentum of 0.9. Raises ValueError
    for an unknown optimizer.
    """

    optimizer: str = "adam"
    batch_size: int = 256
    max_epochs: int = 100
    min_epochs: int = 3
    patience: int = 5
    min_delta: float = 1e-4
    clip: float = 1.0
    bias: bool = False
    initial: float = 1e-3

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer '{self.optimizer}'; allowed: {', '.join(OPTIMIZERS)}")


@dataclass(frozen=True)
class Setting:
    """A setting of the grid: λ, the weight of the Frobenius norm, and the learning rate."""

    regularisation: float = 1e-3
    learning_rate: float = 1e-4


def grid(regularisations: Sequence[float], learning_rates: Sequence[float]) -> tuple[Setting, ...]:
    """All combinations of λ and learning rate."""
    return tuple(Setting(*pair) for pair in itertools.product(regularisations, learning_rates))


def cross_entropy(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """The published loss (P,) of P probes: mean of -log softmax of the first of the three dot products of a triplet.

    rows: (P, B, 3, D), the odd one last. weights: (P, D, E). bias: (P, E).
    """
    probes, batch, _, width = rows.shape
    embedded = rows.reshape(probes, batch * 3, width) @ weights
    if bias is not None:
        embedded = embedded + bias[:, None]
    a, b, c = embedded.reshape(probes, batch, 3, -1).unbind(dim=2)
    import torch

    dots = torch.stack([(a * b).sum(dim=-1), (a * c).sum(dim=-1), (b * c).sum(dim=-1)], dim=-1)
    losses: Tensor = (dots.logsumexp(dim=-1) - dots[..., 0]).mean(dim=1)
    return losses


def penalty(weights: Tensor) -> Tensor:
    """The Frobenius norms (P,), not squared, of P matrices (P, D, E)."""
    norms: Tensor = weights.flatten(1).norm(dim=1)
    return norms


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """Preprocessing of features before the map.

    mean, std: scalars for standardisation. components: directions (D, E) of PCA, and the mean features (E,) in these
    directions, which are subtracted; None without PCA.
    """

    mean: float
    std: float
    components: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Preprocessed rows (N, E) float32 of rows (N, D)."""
        x = (np.asarray(rows, np.float64) - self.mean) / self.std
        if self.components is not None:
            directions, shift = self.components
            x = x @ directions - shift
        return np.asarray(x, np.float32)

    def before(self, weights: NDArray[np.floating], bias: NDArray[np.floating] | None) -> Transform:
        """This preprocessing and the map x ↦ x @ weights + bias, as one transform in gLocal's layout."""
        if self.components is not None:
            directions, shift = self.components
            moved = shift @ weights
            bias = -moved if bias is None else bias - moved
            weights = directions @ weights
        folded = None if bias is None else np.asarray(bias, np.float32)
        return Transform(np.asarray(weights, np.float32), folded, self.mean, self.std)


def preprocess(rows: NDArray[np.floating], pca: int | None) -> Preprocessing:
    """Fit preprocessing to the rows (N, D) of the training objects. pca: number of components, at most the rank.

    Raises ValueError where all features are equal.
    """
    x = np.asarray(rows, np.float64)
    mean, std = float(x.mean()), float(x.std())
    if not std > 0:
        raise ValueError("all features of the training objects are equal, so they cannot be standardised")
    if pca is None:
        return Preprocessing(mean, std)
    x = (x - mean) / std
    center = x.mean(axis=0)
    directions = np.linalg.svd(x - center, full_matrices=False)[2][: min(pca, min(x.shape) - 1)].T
    # a direction and its opposite are the same component
    directions *= np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    return Preprocessing(mean, std, (directions, center @ directions))


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained probe of one fold. weights: (D, E), bias: (E,), epoch: of the best epoch, counted from 1. losses: of
    each epoch, on the stopping objects.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    epoch: int
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Loss of the best epoch, on the stopping objects."""
        return self.losses[self.epoch - 1]


@dataclass
class _Run:
    """State of a training of several probes, which checkpoints hold."""

    weights: list[Tensor]
    biases: list[Tensor]
    best: list[tuple[Tensor, Tensor]]
    best_epoch: list[int]
    losses: list[list[float]] = field(default_factory=list)
    waited: list[int] = field(default_factory=list)
    done: list[bool] = field(default_factory=list)
    epoch: int = 0


def train(
    rows: Sequence[NDArray[np.float32]],
    triplets: Triplets,
    split: Split,
    settings: Sequence[Setting],
    schedule: Schedule,
    initial: Sequence[NDArray[np.float32]],
    order: str,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None = None,
) -> list[Fitted]:
    """Train P probes at once on the triplets of one split. All share the batches, whose order is keyed by (seed,
    order).

    rows: P preprocessed arrays (N, E) of equal width; arrays may repeat. settings, initial: one per probe. Each probe
    is clipped, regularised and stopped independently of the others.
    """
    import torch

    objects = torch.from_numpy(triplets.objects.astype(np.int64))
    trained, stopped = objects[torch.from_numpy(split.trained)], objects[torch.from_numpy(split.stopped)]
    # repeated arrays are held once
    kept: dict[int, int] = {}
    place = [kept.setdefault(id(each), len(kept)) for each in rows]
    every = {id(each): each for each in rows}
    held = torch.stack([torch.from_numpy(every[key]) for key in kept]).to(device)
    run = _start(initial, schedule, device)
    parameters = [[w, b] if schedule.bias else [w] for w, b in zip(run.weights, run.biases, strict=True)]
    optimizer = _optimizer(schedule, settings, parameters)
    if checkpoint is not None:
        _resume(checkpoint, run, optimizer)
    while run.epoch < schedule.max_epochs and not all(run.done):
        shuffled = keyed(seed, "batches", f"{order} {run.epoch}").permutation(len(trained))
        batches = torch.split(trained[torch.from_numpy(shuffled)].to(device), schedule.batch_size)
        for batch in batches:
            active = [p for p, done in enumerate(run.done) if not done]
            loss = _losses(held, place, batch, run, active, schedule.bias)
            scale = torch.tensor([settings[p].regularisation for p in active], device=device)
            total = loss + scale * penalty(torch.stack([run.weights[p] for p in active]))
            optimizer.zero_grad(set_to_none=True)
            total.sum().backward()  # type: ignore[no-untyped-call]
            for p in active:
                torch.nn.utils.clip_grad_norm_(parameters[p], schedule.clip)
            optimizer.step()
        run.epoch += 1
        _judge(held, place, stopped.to(device), run, schedule)
        ends = run.epoch == schedule.max_epochs or all(run.done)
        if checkpoint is not None and (ends or run.epoch % checkpoint.every == 0):
            _save(checkpoint, run, optimizer)
    return [
        Fitted(w.cpu().numpy(), b.cpu().numpy() if schedule.bias else None, run.best_epoch[p], tuple(run.losses[p]))
        for p, (w, b) in enumerate(run.best)
    ]


def _start(initial: Sequence[NDArray[np.float32]], schedule: Schedule, device: torch.device) -> _Run:
    import torch

    weights = [torch.from_numpy(each.copy()).to(device).requires_grad_() for each in initial]
    biases = [torch.full((w.shape[1],), schedule.initial, device=device).requires_grad_() for w in weights]
    best = [(w.detach().clone(), b.detach().clone()) for w, b in zip(weights, biases, strict=True)]
    count = len(weights)
    return _Run(weights, biases, best, [1] * count, [[] for _ in initial], [0] * count, [False] * count)


def _optimizer(
    schedule: Schedule, settings: Sequence[Setting], parameters: Sequence[Sequence[Tensor]]
) -> torch.optim.Optimizer:
    import torch

    groups = [{"params": own, "lr": s.learning_rate} for own, s in zip(parameters, settings, strict=True)]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=_MOMENTUM)
    return (torch.optim.Adam if schedule.optimizer == "adam" else torch.optim.AdamW)(groups)


def _losses(
    held: Tensor, place: Sequence[int], batch: Tensor, run: _Run, active: Sequence[int], with_bias: bool
) -> Tensor:
    """Cross-entropy (P,) of the active probes on triplets (B, 3)."""
    import torch

    rows = held[:, batch][[place[p] for p in active]]
    bias = torch.stack([run.biases[p] for p in active]) if with_bias else None
    return cross_entropy(rows, torch.stack([run.weights[p] for p in active]), bias)


def _judge(held: Tensor, place: Sequence[int], stopped: Tensor, run: _Run, schedule: Schedule) -> None:
    """Record the losses on the stopping objects, keep the best weights, and stop probes that no longer improve."""
    import torch

    active = [p for p, done in enumerate(run.done) if not done]
    total = torch.zeros(len(active), dtype=torch.float64, device=held.device)
    with torch.no_grad():
        for batch in torch.split(stopped, schedule.batch_size):
            total += _losses(held, place, batch, run, active, schedule.bias).double() * len(batch)
    for p, value in zip(active, (total / len(stopped)).tolist(), strict=True):
        if not np.isfinite(value):
            raise ValueError(f"probe {p}: the loss is {value} after {run.epoch} epochs; take a smaller learning rate")
        best = run.losses[p][run.best_epoch[p] - 1] if run.losses[p] else np.inf
        run.losses[p].append(value)
        if value < best - schedule.min_delta:
            run.best_epoch[p], run.waited[p] = run.epoch, 0
            run.best[p] = run.weights[p].detach().clone(), run.biases[p].detach().clone()
        else:
            run.waited[p] += 1
        run.done[p] = run.waited[p] >= schedule.patience and run.epoch >= schedule.min_epochs


def _save(checkpoint: Checkpoint, run: _Run, optimizer: torch.optim.Optimizer) -> None:
    content = {
        "format": _CHECKPOINT_FORMAT,
        "key": json.dumps(checkpoint.key, sort_keys=True),
        "weights": [each.detach() for each in run.weights],
        "biases": [each.detach() for each in run.biases],
        "best": run.best,
        "best_epoch": run.best_epoch,
        "losses": run.losses,
        "waited": run.waited,
        "done": run.done,
        "epoch": run.epoch,
        "optimizer": optimizer.state_dict(),
    }
    checkpoint.file.write(content)


def _resume(checkpoint: Checkpoint, run: _Run, optimizer: torch.optim.Optimizer) -> None:
    """Restore the state of a checkpoint with the same key; without one, the run starts anew."""
    import torch

    content = checkpoint.file.read(run.weights[0].device)
    if content is None:
        return
    key = json.dumps(checkpoint.key, sort_keys=True)
    if content["format"] != _CHECKPOINT_FORMAT or content.get("key") != key:
        logs.log.info("%s has another key; starting anew", checkpoint.file)
        return
    with torch.no_grad():
        for own, saved in zip([*run.weights, *run.biases], [*content["weights"], *content["biases"]], strict=True):
            own.copy_(saved)
    optimizer.load_state_dict(content["optimizer"])
    run.best = [(w, b) for w, b in content["best"]]
    run.best_epoch, run.losses, run.waited = content["best_epoch"], content["losses"], content["waited"]
    run.done, run.epoch = content["done"], content["epoch"]


@dataclass(frozen=True, eq=False)
class Probed:
    """A probed layer. transforms, chosen: transform and setting of each fold, with the smallest loss for early
    stopping.

    losses, epochs: (F, G), of each fold and setting. tested: mask (T,) of the triplets that are tested in a fold.
    before, after: credit on these, by the distance of the features and by the dot product of the transformed features.
    """

    transforms: tuple[Transform, ...]
    chosen: tuple[Setting, ...]
    losses: NDArray[np.float64]
    epochs: NDArray[np.int64]
    tested: NDArray[np.bool_]
    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """The plan of a probe. folds: outer folds of objects. fold_rule: how objects are dealt to them. inner: one in so
    many of the other objects is for early stopping. pca: number of components, or None. settings: the grid.
    """

    folds: int = 3
    inner: int = 4
    pca: int | None = None
    fold_rule: str = "name"
    settings: tuple[Setting, ...] = (Setting(),)
    schedule: Schedule = field(default_factory=Schedule)


def probe(
    layers: Mapping[str, NDArray[np.float32]],
    names: Sequence[str],
    triplets: Triplets,
    plan: Plan,
    seed: int,
    device: torch.device,
    distance: str = "cosine",
    ties: str = "fair",
    checkpoints: Callable[[str], CheckpointFile] | None = None,
    outer: NDArray[np.int64] | None = None,
) -> dict[str, Probed]:
    """Probe every layer. Layers of equal width are trained together.

    layers: layer -> (N, D), rows in order of `names`. distance: of the features before the transform. ties: rule of
    `Choices.credit`. checkpoints: the checkpoint file of a name, from which a killed training resumes. outer: as of
    `nested_splits`.
    """
    import torch

    splits = nested_splits(triplets, names, plan.folds, plan.inner, seed, outer)
    fits: dict[str, list[list[tuple[Preprocessing, Fitted]]]] = {layer: [] for layer in layers}
    for fold, split in enumerate(splits):
        prepared = {layer: preprocess(rows[split.objects], plan.pca) for layer, rows in layers.items()}
        rows = {layer: prepared[layer].apply(layers[layer]) for layer in layers}
        for group in _groups(rows, len(plan.settings)):
            logs.log.info("fold %d of %d: %s", fold + 1, plan.folds, ", ".join(group))
            checkpoint = None
            if checkpoints is not None:
                key = {
                    "data": _digest([triplets.objects, *(rows[layer] for layer in group)]),
                    "layers": list(group),
                    "fold": fold,
                    "plan": asdict(plan),
                    "seed": seed,
                    # which sums of floats depend on
                    "run": [torch.__version__, device_name(device), torch.get_num_threads()],
                }
                checkpoint = Checkpoint(checkpoints(f"{fold}-{group[0]}.pt"), key)
            jobs = [(layer, setting) for layer in group for setting in plan.settings]
            fitted = train(
                [rows[layer] for layer, _ in jobs],
                triplets,
                split,
                [setting for _, setting in jobs],
                plan.schedule,
                [_initial(layer, fold, rows[layer].shape[1], plan.schedule, seed) for layer, _ in jobs],
                str(fold),
                seed,
                device,
                checkpoint,
            )
            for layer in group:
                fits[layer].append(
                    [(prepared[layer], fit) for (own, _), fit in zip(jobs, fitted, strict=True) if own == layer]
                )
    return {layer: _report(layers[layer], triplets, splits, fits[layer], plan, distance, ties) for layer in layers}


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _groups(rows: Mapping[str, NDArray[np.float32]], settings: int) -> list[tuple[str, ...]]:
    """Groups of layers to train together: of equal width, as many as fit in memory with gradients and moments."""
    by_width: dict[int, list[str]] = {}
    for layer, values in rows.items():
        by_width.setdefault(values.shape[1], []).append(layer)
    groups = []
    for width, same in by_width.items():
        size = max(1, _BLOCK_BYTES // (5 * 4 * width * width * settings))
        groups += [tuple(same[i : i + size]) for i in range(0, len(same), size)]
    return groups


def _initial(layer: str, fold: int, width: int, schedule: Schedule, seed: int) -> NDArray[np.float32]:
    draws = keyed(seed, "probe", f"{layer} {fold}")
    return draws.standard_normal((width, width), dtype=np.float32) * np.float32(schedule.initial)


def _report(
    rows: NDArray[np.float32],
    triplets: Triplets,
    splits: Sequence[Split],
    fits: Sequence[Sequence[tuple[Preprocessing, Fitted]]],
    plan: Plan,
    distance: str,
    ties: str,
) -> Probed:
    tested = np.zeros(len(triplets), bool)
    after = np.zeros(len(triplets))
    transforms, chosen = [], []
    losses = np.array([[fit.loss for _, fit in settings] for settings in fits])
    for fold, split in enumerate(splits):
        best = int(losses[fold].argmin())
        prepared, fit = fits[fold][best]
        transform = prepared.before(fit.weights, fit.bias)
        after[split.tested] = odd_one_out(transform.apply(rows), triplets.taken(split.tested), "dot").credit(ties)
        tested |= split.tested
        transforms.append(transform)
        chosen.append(plan.settings[best])
    before = odd_one_out(rows, triplets.taken(tested), distance).credit(ties)
    epochs = np.array([[fit.epoch for _, fit in settings] for settings in fits])
    return Probed(tuple(transforms), tuple(chosen), losses, epochs, tested, before, after[tested])
