"""Spreads over draws, power and limits of N: what is predicted, and what happens. python benchmarks/uncertainty.py

Prints three tables. Draws: how often the 95 % interval of a standard deviation over five draws of noise holds that of
many draws, on the same images; and the errors over images with and without new noise. Power: how often a score of the
predicted smallest size is found, and a difference of two scores. Limits: how often the interval of the score of
infinitely many images holds the score of very many, and how often a limit is refused; and how often a limit of N alone
would hold it for neighbours at fixed k, by Aitken's extrapolation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.calibration import calibrate, over_images
from diffalign.alignment.groups import Groups
from diffalign.alignment.intervals import jackknife
from diffalign.alignment.metrics import Layer, Settings, measure_grid
from diffalign.alignment.power import LIMIT_PARTS, Curve, limits, quantile_of, smallest_score
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.variance import over_draws

Features = NDArray[np.float32]
SHOWN = ("mutual_knn", "cknna", "unbiased_cka")
LIMITED = (*SHOWN, "cka")
WIDTH = 8
POWER, ALPHA = 0.8, 0.05


def layer(features: NDArray[np.floating], k: int) -> Layer:
    """One layer of images that are independent of each other."""
    names = [str(i) for i in range(len(features))]
    rows = unit_rows(features.astype(np.float32), names)
    return rows_layer(rows, names, lambda: nearest_neighbors(rows, k, memory_mb=200, threads=1), 0)


def pair(random: np.random.Generator, count: int, strength: float) -> tuple[Features, Features]:
    """Two sides (N, D) that share this part of their standard deviation."""
    shared, a, b = random.standard_normal((3, count, WIDTH))
    rest = np.sqrt(1 - strength**2)
    return (strength * shared + rest * a).astype(np.float32), (strength * shared + rest * b).astype(np.float32)


def scores(metrics: Sequence[str], a: Features, b: Features, k: int) -> dict[str, float]:
    """The scores of two sides."""
    grids = measure_grid(metrics, [layer(a, k)], [layer(b, k)], Settings(k))
    return {name: float(grid[0, 0]) for name, grid in grids.items()}


def draws(repetitions: int, count: int, k: int, many: int) -> None:
    """Standard deviations over draws of noise keyed by image."""
    held = dict.fromkeys(SHOWN, 0)
    ratios: dict[str, list[float]] = {name: [] for name in SHOWN}
    random = np.random.default_rng(0)
    for _ in range(repetitions):
        a, b = pair(random, count, 0.8)
        noise = 0.5 * random.standard_normal((many, *a.shape))
        drawn = [scores(SHOWN, (a + each).astype(np.float32), b, k) for each in noise]
        for name in SHOWN:
            values = np.array([each[name] for each in drawn])
            spread = over_draws(values[:5])
            # the first five are left out of the truth
            truth = values[5:].std(ddof=1)
            held[name] += spread.low <= truth <= spread.high
            ratios[name].append(spread.sd / truth)
    print(f"\ndraws: {repetitions} sets of {count} images, five draws beside {many - 5}, k = {k}")
    print("metric          coverage   mean ratio of sd to that of many draws")
    for name in SHOWN:
        print(f"{name:15} {held[name] / repetitions:8.3f}   {np.mean(ratios[name]):.3f}")
    with_noise: dict[str, list[float]] = {name: [] for name in SHOWN}
    errors: dict[str, list[float]] = {name: [] for name in SHOWN}
    for _ in range(4 * repetitions):
        a, b = pair(random, count, 0.8)
        noisy = (a + 0.5 * random.standard_normal(a.shape)).astype(np.float32)
        sides = [layer(noisy, k)], [layer(b, k)]
        found = measure_grid(SHOWN, *sides, Settings(k))
        bounds = over_images(found, *sides, Settings(k))
        for name in SHOWN:
            with_noise[name].append(float(found[name][0, 0]))
            errors[name].append(float(bounds[name].error[0, 0]))
    print("metric          sd over images with new noise / mean error over images")
    for name in SHOWN:
        print(f"{name:15} {np.std(with_noise[name], ddof=1) / np.mean(errors[name]):.3f}")


def power(repetitions: int, count: int, k: int) -> None:
    """How often scores and differences of the predicted size are found."""
    strengths = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.65)
    mean: dict[str, list[float]] = {name: [] for name in SHOWN}
    found: dict[str, list[float]] = {name: [] for name in SHOWN}
    predicted: dict[str, list[float]] = {name: [] for name in SHOWN}
    differences: dict[str, list[tuple[float, float]]] = {name: [] for name in SHOWN}
    for number, strength in enumerate(strengths):
        random = np.random.default_rng(number)
        values: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SHOWN}
        for repetition in range(repetitions):
            a, b = pair(random, count, strength)
            sides = [layer(a, k)], [layer(b, k)]
            grids = measure_grid(SHOWN, *sides, Settings(k))
            nulls = calibrate(grids, *sides, Settings(k), 99, ALPHA, repetition)
            bounds = over_images(grids, *sides, Settings(k))
            for name in SHOWN:
                score, error, null = float(grids[name][0, 0]), float(bounds[name].error[0, 0]), nulls[name]
                values[name].append((score, error, float(null.p[0, 0]) <= ALPHA))
                moments = float(null.mean[0, 0]), float(null.sd[0, 0]), float(null.threshold[0, 0])
                predicted[name].append(smallest_score(score, error, moments, POWER))
        for name in SHOWN:
            each = np.array(values[name])
            mean[name].append(float(each[:, 0].mean()))
            found[name].append(float(each[:, 2].mean()))
            if strength == strengths[-1]:
                # two models on other images: their scores are compared by the errors of both
                halves = each[: len(each) // 2 * 2].reshape(-1, 2, 3)
                for (one, first, _), (other, second, _) in halves:
                    differences[name].append((one - other, float(np.hypot(first, second))))
    print(f"\npower {POWER}: N = {count}, k = {k}, {repetitions} pairs of each of {len(strengths)} strengths")
    print(
        "metric          predicted smallest score (sd)   found at a mean score of it   found at the smallest difference"
    )
    for name in SHOWN:
        smallest = np.array(predicted[name])
        # rates are between strengths as a normal distribution has them
        reached = norm.ppf(np.clip(found[name], 0.5 / repetitions, 1 - 0.5 / repetitions))
        at = norm.cdf(np.interp(smallest.mean(), mean[name], reached))
        gap, error = np.array(differences[name]).T
        reach = (quantile_of(1 - ALPHA / 2, None) + quantile_of(POWER, None)) * error
        rate = np.mean(np.abs(gap + reach) > quantile_of(1 - ALPHA / 2, None) * error)
        print(f"{name:15} {smallest.mean():.4f} ({smallest.std(ddof=1):.4f}){at:28.3f}{rate:30.3f}")


def aitken(curve: Curve, groups: Groups, k: int) -> tuple[float, float]:
    """The interval of a limit of N alone from scores of 1, 2 and 4 parts: geometric steps to the limit."""
    dealt = {d: groups.dealt(d, 0, "limit") for d in (1, 2, 4)}

    def combined(keep: NDArray[np.intp]) -> NDArray[np.float64]:
        one, two, four = (
            np.mean([curve(["mutual_knn"], keep[dealt[d][keep] == part], k)["mutual_knn"] for part in range(d)])
            for d in (1, 2, 4)
        )
        return np.array([one - (two - one) ** 2 / ((four - two) - (two - one))])

    value = combined(np.arange(len(groups.codes)))
    found = jackknife(value, groups.dealt(LIMIT_PARTS, 0, "limit jackknife"), combined)
    return float(found.low[0]), float(found.high[0])


def extrapolation(repetitions: int, count: int, k: int, very_many: int) -> None:
    """How often intervals of limits hold the score of very many images."""
    random = np.random.default_rng(1)
    a, b = pair(random, very_many, 0.8)
    truth = scores(LIMITED, a, b, k * very_many // count)
    at_fixed_k = scores(("mutual_knn",), a, b, k)["mutual_knn"]
    held, refused, fixed = dict.fromkeys(LIMITED, 0), dict.fromkeys(LIMITED, 0), 0
    naive, widths = dict.fromkeys(LIMITED, 0), {name: [] for name in LIMITED}
    for _ in range(repetitions):
        a, b = pair(random, count, 0.8)
        groups = Groups.of([str(i) for i in range(count)])

        def curve(
            names: Sequence[str], keep: NDArray[np.intp], at: int, a: Features = a, b: Features = b
        ) -> dict[str, float]:
            return scores(names, a[keep], b[keep], at)

        sides = [layer(a, k)], [layer(b, k)]
        now = measure_grid(LIMITED, *sides, Settings(k))
        bounds = over_images(now, *sides, Settings(k))
        for name, limit in limits(LIMITED, curve, groups, k, 0).items():
            refused[name] += bool(limit.reason)
            held[name] += limit.low <= truth[name] <= limit.high
            widths[name].append(limit.high - limit.low)
            naive[name] += abs(float(now[name][0, 0]) - truth[name]) <= 1.96 * float(bounds[name].error[0, 0])
        low, high = aitken(curve, groups, k)
        fixed += low <= at_fixed_k <= high
    print(f"\nlimits: {repetitions} sets of {count} images, k = {k}; the truth is that of {very_many}")
    print("metric          truth    coverage of those not refused   refused   width   coverage of the score as it is")
    for name in LIMITED:
        kept = max(1, repetitions - refused[name])
        width = float(np.nanmean(widths[name]))
        rates = f"{held[name] / kept:17.3f}{refused[name] / repetitions:22.3f}{width:10.3f}"
        print(f"{name:15} {truth[name]:.4f}{rates}{naive[name] / repetitions:18.3f}")
    print(f"mutual_knn at fixed k, by Aitken, truth {at_fixed_k:.4f}: coverage {fixed / repetitions:.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--limit-count", type=int, default=400)
    parser.add_argument("--very-many", type=int, default=8000)
    parser.add_argument("--only", choices=("draws", "power", "limits"))
    given = parser.parse_args()
    with threadpool_limits(1):
        for name, table in (
            ("draws", lambda: draws(given.repetitions, given.count, 10, 45)),
            ("power", lambda: power(given.repetitions, given.count, 10)),
            ("limits", lambda: extrapolation(given.repetitions, given.limit_count, 10, given.very_many)),
        ):
            if given.only in (None, name):
                start = time.process_time()
                table()
                print(f"{time.process_time() - start:.0f} s of processor time", flush=True)


if __name__ == "__main__":
    main()
