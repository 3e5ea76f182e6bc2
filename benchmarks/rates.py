"""Rates of nulls and intervals over kinds of features and numbers of images. python benchmarks/rates.py

Prints how often p is at most .05 where both sides are independent, and how often 95 % intervals hold the mean over
studies, of the studies that have an interval, where both sides are views of the same latents. Kinds: latents of eight
dimensions in noise; the same with a common mean, which makes hubs; with one massive dimension; of labels, all of whose
images are ties; nearly collinear with three outlying images.
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

from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import calibrate, over_images
from diffalign.alignment.metrics import Settings, measure_grid

Rows = NDArray[np.float64]
MEASURED = ("mutual_knn", "cknna", "lcs_knn", "cka", "unbiased_cka")
K, DRAWS, ALPHA = 10, 199, 0.05
LATENT, WIDTH, CLASSES, OUTLIERS = 8, 24, 10, 3


def noisy(random: np.random.Generator, latent: Rows, view: int) -> Rows:
    """Latents (N, 8) seen through a map (8, 24) of this view, in noise."""
    linear = np.random.default_rng(100 + view).standard_normal((LATENT, WIDTH))
    return np.asarray(latent @ linear + 2 * random.standard_normal((len(latent), WIDTH)))


def hubs(random: np.random.Generator, latent: Rows, view: int) -> Rows:
    """`noisy`, with a common mean, near which some images are neighbours of most others."""
    return noisy(random, latent, view) + 5.0


def massive(random: np.random.Generator, latent: Rows, view: int) -> Rows:
    """`noisy`, with one dimension that has most of the variance."""
    rows = noisy(random, latent, view)
    rows[:, 0] *= 8
    return rows


def labels(random: np.random.Generator, latent: Rows, view: int) -> Rows:
    """One-hot labels (N, 10), by the largest of ten noisy views of the latents."""
    linear = np.random.default_rng(0).standard_normal((LATENT, CLASSES))
    return np.eye(CLASSES)[(latent @ linear + random.standard_normal((len(latent), CLASSES))).argmax(axis=1)]


def outliers(random: np.random.Generator, latent: Rows, view: int) -> Rows:
    """`noisy`, nearly collinear, but for three images that lie anywhere."""
    rows = noisy(random, latent, view)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    common = np.random.default_rng(200 + view).standard_normal(WIDTH)
    rows = np.sqrt(0.98) * common / np.linalg.norm(common) + np.sqrt(0.02) * rows
    rows[random.choice(len(rows), OUTLIERS, replace=False)] = random.standard_normal((OUTLIERS, WIDTH))
    return rows


KINDS: Mapping[str, Callable[[np.random.Generator, Rows, int], Rows]] = {
    "noisy": noisy,
    "hubs": hubs,
    "massive": massive,
    "labels": labels,
    "outliers": outliers,
}


def study(kind: str, count: int, seed: int, k: int) -> tuple[dict[str, float], dict[str, tuple[float, float, float]]]:
    """Of one study, keyed by the seed: p of independent sides, and score and bounds of its interval of aligned ones."""
    random = np.random.default_rng(seed)
    names, settings = [str(i) for i in range(count)], Settings(k)
    shared, own = random.standard_normal((2, count, LATENT))
    a, b, c = (
        [array_layer(KINDS[kind](random, latent, view).astype(np.float32), names, k).held()]
        for view, latent in enumerate((shared, shared, own))
    )
    scores = measure_grid(MEASURED, a, c, settings)
    nulls = calibrate(scores, a, c, settings, DRAWS, ALPHA, seed)
    aligned = measure_grid(MEASURED, a, b, settings)
    bounds = over_images(aligned, a, b, settings)
    p = {name: float(nulls[name].p[0, 0]) for name in MEASURED}
    ends = {name: (float(bounds[name].low[0, 0]), float(bounds[name].high[0, 0])) for name in MEASURED}
    return p, {name: (float(aligned[name][0, 0]), *ends[name]) for name in MEASURED}


def main() -> None:
    """Print one line a kind and number of images."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--counts", type=int, nargs="+", default=[30, 150, 1000, 5000], help="N, images")
    command.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    command.add_argument("--repetitions", type=int, default=400)
    command.add_argument("--k", type=int, default=K)
    given = command.parse_args()
    print(f"k = {given.k}, {DRAWS} permutations, {given.repetitions} studies: P(p <= .05), coverage")
    print(f"{'':16}" + "".join(f"{name:>16}" for name in MEASURED))
    for kind in given.kinds:
        for count in given.counts:
            started = time.perf_counter()
            found = [study(kind, count, seed, given.k) for seed in range(given.repetitions)]
            words = ""
            for name in MEASURED:
                rate = np.mean([p[name] <= ALPHA for p, _ in found])
                score, low, high = np.array([measured[name] for _, measured in found]).T
                has, truth = np.isfinite(low), score.mean()
                held = (low <= truth) & (truth <= high)
                words += f"{rate:9.3f}, {held[has].mean():.3f}" if has.any() else f"{rate:9.3f},  none"
                if 0 < has.mean() < 1:
                    words += f" of {has.mean():.2f}"
            print(f"{kind:10}{count:6}{words}  ({time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
