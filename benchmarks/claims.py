"""How often cells of grids are claimed that should not be: python benchmarks/claims.py.

Independent: models that have nothing in common, grids of 8 x 12 layers; the share of grids with any calibrated score
above 0, of cells by themselves and after correction over the grid. Studies: pairs of models of which some share
something in half of their layers, several metrics each; of the cells that are claimed, the share of those that share
nothing (false discovery rate), and of grids without anything, the share with a claimed cell. As before: q of Benjamini
and Hochberg over all cells of a metric. As now: `diffalign.alignment.claims`, over pairs and metrics.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import Calibration, calibrate, false_discovery_rates
from diffalign.alignment.claims import corrected
from diffalign.alignment.metrics import Layer, Settings, measure_grid

METRICS = ("mutual_knn", "lcs_knn", "cknna", "cka", "unbiased_cka")
K = 5
ALPHA = 0.05


def layers(random: np.random.Generator, count: int, depth: int, shared: NDArray[np.float64] | None) -> list[Layer]:
    """Layers of one model, which resemble each other; the first half hold what is shared with another model, too."""
    own = random.standard_normal((count, 8))
    made = []
    for layer in range(depth):
        features = own @ random.standard_normal((8, 16)) + 2 * random.standard_normal((count, 16))
        if shared is not None and layer < depth // 2:
            features += 1.2 * shared @ random.standard_normal((shared.shape[1], 16))
        made.append(array_layer(features.astype(np.float32), [str(i) for i in range(count)], K))
    return made


def calibrated(
    a: Sequence[Layer], b: Sequence[Layer], metrics: Sequence[str], draws: int, seed: int
) -> Mapping[str, Calibration]:
    """Calibrations of all pairs of layers."""
    scores = measure_grid(metrics, a, b, Settings(K))
    return calibrate(scores, a, b, Settings(K), draws, ALPHA, seed)


def independent(repetitions: int, count: int, draws: int) -> None:
    """Print of each metric the share of grids with a calibrated score above 0, and how many cells have one."""
    by_itself: dict[str, list[int]] = {name: [] for name in METRICS}
    corrected_over_grid: dict[str, list[int]] = {name: [] for name in METRICS}
    for repetition in range(repetitions):
        random = np.random.default_rng(repetition)
        a, b = layers(random, count, 8, None), layers(random, count, 12, None)
        for name, found in calibrated(a, b, METRICS, draws, repetition).items():
            by_itself[name].append(int((found.calibrated > 0).sum()))
            corrected_over_grid[name].append(int((found.p_adjusted <= ALPHA).sum()))
    print(f"{repetitions} independent grids of 8 x 12, N = {count}, {draws} permutations")
    print("metric              any cell above 0 (mean of 96)   after correction over the grid")
    for name in METRICS:
        before, after = np.array(by_itself[name]), np.array(corrected_over_grid[name])
        print(f"{name:20}{(before > 0).mean():.3f} ({before.mean():.2f})" + f"{(after > 0).mean():26.3f}")


def studies(repetitions: int, count: int, draws: int, aligned: int) -> None:
    """Print what is claimed of studies of eight pairs of models, some of which share something."""
    claims: dict[str, Callable[[list[Calibration], list[str]], list[NDArray[np.float64]]]] = {
        "before": per_metric,
        "now": lambda found, _: corrected([each.p_adjusted for each in found]),
    }
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in claims}
    for repetition in range(repetitions):
        random = np.random.default_rng(10_000 + repetition)
        grids, names, truth = [], [], []
        for pair in range(8):
            shared = random.standard_normal((count, 4)) if pair < aligned else None
            a, b = (layers(random, count, 6, shared) for _ in "ab")
            real = np.zeros((6, 6), bool)
            real[:3, :3] = shared is not None
            for name, found in calibrated(a, b, METRICS, draws, repetition).items():
                grids.append(found)
                names.append(name)
                truth.append(real)
        for way, claim in claims.items():
            claimed = [q <= ALPHA for q in claim(grids, names)]
            total = sum(int(each.sum()) for each in claimed)
            wrong = sum(int((each & ~real).sum()) for each, real in zip(claimed, truth, strict=True))
            power = sum(int((each & real).sum()) for each, real in zip(claimed, truth, strict=True))
            bare = [bool(each.any()) for each, real in zip(claimed, truth, strict=True) if not real.any()]
            results[way].append((wrong / max(1, total), float(np.mean(bare)), power / sum(int(r.sum()) for r in truth)))
    print(
        f"{repetitions} studies of 8 pairs x {len(METRICS)} metrics, {aligned} pairs "
        f"aligned in 9 of 36 cells, {draws} permutations"
    )
    print("q        false among claimed   bare grids with a claim   aligned cells claimed")
    for way, values in results.items():
        wrong, bare, power = np.mean(values, axis=0)
        print(f"{way:9}{wrong:19.3f}{bare:26.3f}{power:24.3f}")


def per_metric(found: list[Calibration], names: list[str]) -> list[NDArray[np.float64]]:
    """Benjamini and Hochberg over all cells of a metric."""
    q = [np.empty(each.p.shape) for each in found]
    for name in set(names):
        of_metric = [i for i, other in enumerate(names) if other == name]
        flat = false_discovery_rates(np.concatenate([found[i].p.ravel() for i in of_metric]))
        for part, i in zip(np.split(flat, len(of_metric)), of_metric, strict=True):
            q[i] = part.reshape(found[i].p.shape)
    return q


def main() -> None:
    """Simulate both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--draws", type=int, default=99)
    args = parser.parse_args()
    with threadpool_limits(1):
        independent(args.repetitions, args.count, args.draws)
        for aligned in (2, 6):
            studies(args.studies, args.count, args.draws, aligned)


if __name__ == "__main__":
    main()
