"""The linear probe of human_alignment: a linear map of features that is trained on choices of people.

Objects are split twice: those that an accuracy is taken on are seen by nothing else, and those that end the training
are apart from those that it is on. Standardisation and PCA are part of what is fitted.
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
from diffalign.human.checkpoints import Checkpoint, CheckpointFile
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.transforms import Transform
from diffalign.human.triplets import TripletError, Triplets
from diffalign.randomness import dealt, keyed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OPTIMIZERS = ("adam", "adamw", "sgd")
_MOMENTUM = 0.9
_CHECKPOINT_FORMAT = 2
_BLOCK_BYTES = 2**30


@dataclass(frozen=True)
class Schedule:
    """How a probe is trained; the defaults are the published ones of diffusion models.

    Weights (D, D) begin as normal draws of std `initial`, a bias as `initial`. Training ends when the loss on the
    objects held apart for it has not fallen by `min_delta` for `patience` epochs, but not before `min_epochs`; the
    weights of the best epoch are kept, where the published code keeps the last. sgd has a momentum of 0.9.
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
    """What a grid is over: λ, the weight of the Frobenius norm, and the learning rate."""

    regularisation: float = 1e-3
    learning_rate: float = 1e-4


def grid(regularisations: Sequence[float], learning_rates: Sequence[float]) -> tuple[Setting, ...]:
    """Every λ with every learning rate."""
    return tuple(Setting(*pair) for pair in itertools.product(regularisations, learning_rates))


def cross_entropy(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """The published loss of P probes, (P,): mean of -log softmax of the first of a triplet's three dot products.

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
    """The Frobenius norm of each of P matrices (P, D, E): (P,). It is not squared."""
    norms: Tensor = weights.flatten(1).norm(dim=1)
    return norms


@dataclass(frozen=True, eq=False)
class Split:
    """One outer fold. trained, stopped, tested: (T,) triplets to fit on, to end the training by, and to report on.

    objects: (N,) those that the fit may see; preprocessing is fitted on them.
    """

    trained: NDArray[np.bool_]
    stopped: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    objects: NDArray[np.bool_]


def nested_splits(triplets: Triplets, names: Sequence[str], folds: int, inner: int, seed: int) -> list[Split]:
    """Object-disjoint splits: objects are dealt to `folds` by (seed, name); of those outside of a fold, one in `inner`
    parts ends the training. Triplets with objects in two parts are in none.

    Raises TripletError where a part holds no triplet.
    """
    if len(names) != triplets.count:
        raise ValueError(f"{len(names)} names for {triplets.count} objects")
    outer = dealt(names, folds, seed, "folds")
    splits = []
    for fold in range(folds):
        rest = np.flatnonzero(outer != fold)
        stops = np.zeros(len(names), bool)
        stops[rest[dealt([names[int(i)] for i in rest], inner, seed, f"stop {fold}") == 0]] = True
        seen = (outer != fold) & ~stops
        masks = []
        for what, objects in (("to train on", seen), ("to stop by", stops), ("to report on", outer == fold)):
            masks.append(triplets.where_all(objects))
            if not masks[-1].any():
                raise TripletError(
                    f"{triplets.where}: no triplet lies wholly among the {int(objects.sum())} objects {what} of fold "
                    f"{fold} of {folds}; take fewer folds or more triplets"
                )
        splits.append(Split(masks[0], masks[1], masks[2], seen))
    return splits


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """What features go through before the map: one scalar mean and std; then components: directions (D, E), and what
    the mean of the features is in them (E,), which is taken off.
    """

    mean: float
    std: float
    components: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Rows (N, D) → (N, E) float32."""
        x = (np.asarray(rows, np.float64) - self.mean) / self.std
        if self.components is not None:
            directions, shift = self.components
            x = x @ directions - shift
        return np.asarray(x, np.float32)

    def before(self, weights: NDArray[np.floating], bias: NDArray[np.floating] | None) -> Transform:
        """The map x ↦ x @ weights + bias after this, as one transform of gLocal's layout."""
        if self.components is not None:
            directions, shift = self.components
            moved = shift @ weights
            bias = -moved if bias is None else bias - moved
            weights = directions @ weights
        folded = None if bias is None else np.asarray(bias, np.float32)
        return Transform(np.asarray(weights, np.float32), folded, self.mean, self.std)


def preprocess(rows: NDArray[np.floating], pca: int | None) -> Preprocessing:
    """Fit to the rows (N, D) of the objects that may be seen. pca: how many components to keep; all where fewer exist.

    Raises ValueError where all features are equal.
    """
    x = np.asarray(rows, np.float64)
    mean, std = float(x.mean()), float(x.std())
    if not std > 0:
        raise ValueError("all features of the training objects are equal; there is nothing to probe")
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
    """One probe of one fold: its map (D, E) and bias of the best epoch, epochs from 1, and the losses that end it."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    epoch: int
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Of the best epoch, on the objects that ended the training."""
        return self.losses[self.epoch - 1]


@dataclass
class _Run:
    """What changes while probes are trained, and is checkpointed."""

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
    """Train P probes at once on the triplets of one split; all see the same batches, in an order keyed by (seed,
    order).

    rows: P arrays (N, E) of one width, preprocessed; the same array may stand several times. settings, initial: one a
    probe. Each probe is clipped, regularised and stopped by itself, as if it were alone.
    """
    import torch

    objects = torch.from_numpy(triplets.objects.astype(np.int64))
    trained, stopped = objects[torch.from_numpy(split.trained)], objects[torch.from_numpy(split.stopped)]
    # arrays that stand several times are held once
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
        if checkpoint is not None and run.epoch % checkpoint.every == 0:
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
    """Note the losses on the objects that end the training, keep what is best, and end probes that no longer gain."""
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
    """Go on where a checkpoint of the same training ended; begin anew without one."""
    import torch

    content = checkpoint.file.read(run.weights[0].device)
    if content is None:
        return
    key = json.dumps(checkpoint.key, sort_keys=True)
    if content["format"] != _CHECKPOINT_FORMAT or content.get("key") != key:
        logs.log.info("%s is of another training; beginning anew", checkpoint.file)
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
    """A layer after probing. transforms: one a fold, of the setting whose loss was the smallest where training ended.

    chosen, losses (F, G), epochs (F, G): of each fold and setting. tested: (T,) triplets that some fold reports on.
    before, after: credit on these, by the distance asked for and by the dot product of what the fold's transform gives.
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
    """What is probed: folds over objects, parts of the rest of which one ends the training, PCA, the grid, the
    schedule.
    """

    folds: int = 3
    inner: int = 4
    pca: int | None = None
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
) -> dict[str, Probed]:
    """Probe every layer, layer -> (N, D), rows in order of `names`; those of one width are trained together.

    distance, ties: of the accuracy before, and ties of that after. checkpoints: file of a name, to go on
    from after a crash.
    """
    splits = nested_splits(triplets, names, plan.folds, plan.inner, seed)
    fits: dict[str, list[list[tuple[Preprocessing, Fitted]]]] = {layer: [] for layer in layers}
    for fold, split in enumerate(splits):
        prepared = {layer: preprocess(rows[split.objects], plan.pca) for layer, rows in layers.items()}
        rows = {layer: prepared[layer].apply(layers[layer]) for layer in layers}
        for group in _groups(rows, len(plan.settings)):
            logs.log.info("fold %d of %d: %s", fold + 1, plan.folds, ", ".join(group))
            checkpoint = None
            if checkpoints is not None:
                of = {
                    "data": _digest([triplets.objects, *(rows[layer] for layer in group)]),
                    "layers": list(group),
                    "fold": fold,
                    "plan": asdict(plan),
                    "seed": seed,
                }
                checkpoint = Checkpoint(checkpoints(f"{fold}-{group[0]}.pt"), of)
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
    """Layers that are trained together: of one width, as many as fit in memory with their gradients and moments."""
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
