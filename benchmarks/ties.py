"""Ties in metrics on lists: type I errors, and what renaming changes. python benchmarks/ties.py

Both sides are drawn independently of each other, so P(p <= .05) should be .05. Kinds: one-hot labels of 10 classes; a
third of the images are copies of others, other ones on each side; hubs, a common mean of all images; neither.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment import METRICS
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.metrics import Layer, Settings, measure_grid

Features = NDArray[np.float32]
ON_LISTS = [name for name, metric in METRICS.items() if metric.uses_k]
WIDTH = 16


def one_hot(random: np.random.Generator, count: int) -> Features:
    """Labels of ten classes, (N, 10)."""
    return np.eye(10, dtype=np.float32)[random.integers(0, 10, count)]


def duplicates(random: np.random.Generator, count: int) -> Features:
    """Normal features (N, D), of which a third are copies of others."""
    features = random.standard_normal((count, WIDTH), dtype=np.float32)
    copies, originals = np.split(random.permutation(count), [count // 3])
    features[copies] = features[random.choice(originals, len(copies))]
    return features


def hubs(random: np.random.Generator, count: int) -> Features:
    """Normal features (N, D) around a common mean, near which some images are neighbours of most others."""
    return random.standard_normal((count, WIDTH), dtype=np.float32) + np.float32(1.5)


def neither(random: np.random.Generator, count: int) -> Features:
    """Normal features (N, D)."""
    return random.standard_normal((count, WIDTH), dtype=np.float32)


KINDS: Mapping[str, Callable[[np.random.Generator, int], Features]] = {
    "one_hot": one_hot,
    "duplicates": duplicates,
    "hubs": hubs,
    "neither": neither,
}


def layers(features: tuple[Features, Features], k: int) -> tuple[list[Layer], list[Layer]]:
    """Both sides, of one layer each."""
    a, b = ([array_layer(side, [str(i) for i in range(len(side))], k)] for side in features)
    return a, b


def p_values(kind: str, seed: int, count: int, k: int, permutations: int) -> dict[str, float]:
    """The p-value of every metric for two independent sides, keyed by the seed."""
    random = np.random.default_rng(seed)
    a, b = layers((KINDS[kind](random, count), KINDS[kind](random, count)), k)
    scores = measure_grid(ON_LISTS, a, b, Settings(k))
    found = calibrate(scores, a, b, Settings(k), permutations, 0.05, seed)
    return {name: float(found[name].p[0, 0]) for name in ON_LISTS}


def renamed(kind: str, count: int, k: int, times: int) -> dict[str, tuple[float, float]]:
    """Mean and range of every score of two sides that share half of their variance, under random orders of images."""
    random = np.random.default_rng(0)
    features = KINDS[kind](random, count), KINDS[kind](random, count)
    if kind == "one_hot":
        # half of the images have the label of the other side
        features[1][: count // 2] = features[0][: count // 2]
    else:
        features[1][:] += features[0]
    orders = [random.permutation(count) for _ in range(times)]
    values = [measure_grid(ON_LISTS, *layers((features[0][o], features[1][o]), k), Settings(k)) for o in orders]
    each = {name: np.array([value[name][0, 0] for value in values]) for name in ON_LISTS}
    return {name: (float(x.mean()), float(np.ptp(x))) for name, x in each.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=150, help="N, images")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--renamings", type=int, default=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    print(f"N = {given.count}, k = {given.k}, {given.permutations} permutations, {given.repetitions} repetitions")
    print(f"\nP(p <= .05)\n{'':12}" + "".join(f"{name:>19}" for name in ON_LISTS))
    for kind in given.kinds:
        started = time.perf_counter()
        drawn = [p_values(kind, seed, given.count, given.k, given.permutations) for seed in range(given.repetitions)]
        rates = [np.mean([p[name] <= 0.05 for p in drawn]) for name in ON_LISTS]
        print(f"{kind:12}" + "".join(f"{rate:19.3f}" for rate in rates) + f"  ({time.perf_counter() - started:.0f} s)")
    print(f"\nmean (range) over {given.renamings} orders of the images")
    for kind in given.kinds:
        values = renamed(kind, given.count, given.k, given.renamings)
        print(f"{kind:12}" + "".join(f"{mean:10.4f} ({spread:.0e})" for mean, spread in values.values()))


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
