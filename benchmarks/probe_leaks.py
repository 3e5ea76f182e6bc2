"""The bias of a leak: probes of pure noise, evaluated as published and as here: python benchmarks/probe_leaks.py.

As published: PCA of all objects, training ended by the fold that is reported, λ and learning rate chosen on it, too.
Here: objects of a fold are seen by nothing before its accuracy is taken. Features know nothing of the choices, so every
gain over chance is an artefact. Each draw has its own noise, objects and choices.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.devices import choose_device
from diffalign.human.folds import Split, nested_splits
from diffalign.human.odd_one_out import CHANCE, odd_one_out
from diffalign.human.probe import Plan, Schedule, grid, preprocess, probe, train
from diffalign.human.triplets import Triplets, odd_last


def judged(objects: int, choices: int, draws: np.random.Generator) -> Triplets:
    """Choices by the dot products of three hidden features."""
    hidden = draws.standard_normal((objects, 3))
    table = draws.integers(0, objects, (choices, 3))
    table = table[(table[:, 0] != table[:, 1]) & (table[:, 0] != table[:, 2]) & (table[:, 1] != table[:, 2])]
    odd = odd_one_out(hidden, Triplets(table.astype(np.int32), objects), "dot").odd
    return Triplets(odd_last(table, odd.astype(np.int64)).astype(np.int32), objects)


def leaky(rows: NDArray[np.float32], names: list[str], triplets: Triplets, plan: Plan, device: str) -> float:
    """Accuracy as published, on the folds that ended the training and chose the setting."""
    prepared = preprocess(rows, plan.pca)
    x = prepared.apply(rows)
    accuracies = []
    for fold, split in enumerate(nested_splits(triplets, names, plan.folds, plan.inner, 0)):
        tested = np.zeros(len(names), bool)
        tested[np.unique(triplets.objects[split.tested])] = True
        peeking = Split(triplets.where_all(~tested), split.tested, split.tested, ~tested)
        count = len(plan.settings)
        draws = np.random.default_rng(fold)
        start = [(1e-3 * draws.standard_normal((x.shape[1],) * 2)).astype(np.float32)] * count
        fits = train(
            [x] * count, triplets, peeking, plan.settings, plan.schedule, start, str(fold), 0, choose_device(device)
        )
        best = min(fits, key=lambda fit: fit.loss)
        transform = prepared.before(best.weights, best.bias)
        accuracies.append(odd_one_out(transform.apply(rows), triplets.taken(split.tested), "dot").credit().mean())
    return float(np.mean(accuracies))


def main() -> None:
    """Evaluate noise both ways and print the mean accuracy over draws with its standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--objects", type=int, default=60)
    parser.add_argument("--choices", type=int, default=4000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--pca", type=int, default=20)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    names = [f"object{i:03d}" for i in range(given.objects)]
    plan = Plan(
        pca=given.pca,
        settings=grid([1e-4, 1e-3, 1e-2, 1e-1, 1.0], [1e-4, 1e-3, 1e-2]),
        schedule=Schedule(max_epochs=30),
    )
    both = []
    for seed in range(given.draws):
        draws = np.random.default_rng(seed)
        triplets = judged(given.objects, given.choices, draws)
        rows = draws.standard_normal((given.objects, given.width), dtype=np.float32)
        ours = probe({"noise": rows}, names, triplets, plan, seed, choose_device(given.device))["noise"].after.mean()
        both.append((leaky(rows, names, triplets, plan, given.device), ours))
    table = np.array(both) - CHANCE
    for what, gain in zip(("as published", "nested"), table.T, strict=True):
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        print(f"{what:12} {gain.mean():+.4f} ± {error:.4f} over chance, {len(gain)} draws of noise")


if __name__ == "__main__":
    main()
