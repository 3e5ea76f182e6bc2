"""What contrasts hold: coverage of their intervals and bands, type I errors, power.

Prints one line for each number of images, size of groups, kind of layers and metric. Layers are noisy linear views of
eight latents. Three of them are rotations of a fourth with noise of their own, so that all four are equally aligned
with a reference; a fifth has more noise. `--repetitions` studies each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment.arrays import rows_layer
from diffalign.alignment.contrasts import Contrast, differences
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Layer, Settings
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.alignment.simultaneous import tested

MEASURED = ("mutual_knn", "cknna", "unbiased_cka", "cka")
WIDTH, LATENTS = 24, 8
REFERENCE, EQUAL, WORSE = "reference", ("a0", "a1", "a2", "a3"), "worse"
CONTRASTS = [Contrast(("a0", REFERENCE), (other, REFERENCE)) for other in (*EQUAL[1:], WORSE)]
# noise of all layers, of what the four share, and of the worse one
KINDS = {"aligned": (2.0, 0.0, 3.0), "alike": (1.0, 2.0, 2.0), "unrelated": (2.0, 0.0, 2.0)}
# groups have this share of the variance of latents in common
SHARE = 0.5


def views(random: np.random.Generator, count: int, size: int, kind: str) -> dict[str, NDArray[np.float64]]:
    """Features (N, 24) of every layer of one study."""
    own_noise, shared_noise, more_noise = KINDS[kind]
    fixed = np.random.default_rng(7)
    linear = {side: fixed.standard_normal((LATENTS, WIDTH)) for side in (REFERENCE, "a0")}
    turns = {name: np.linalg.qr(fixed.standard_normal((WIDTH, WIDTH)))[0] for name in (*EQUAL, WORSE)}
    group = np.arange(count) // size

    def latents() -> NDArray[np.float64]:
        own = random.standard_normal((count, LATENTS))
        if size == 1:
            return own
        common = random.standard_normal((group[-1] + 1, LATENTS))[group]
        return np.asarray(np.sqrt(SHARE) * common + np.sqrt(1 - SHARE) * own)

    def noise(scale: float) -> NDArray[np.float64]:
        return scale * random.standard_normal((count, WIDTH))

    seen = latents()
    features = {REFERENCE: seen @ linear[REFERENCE] + noise(2.0)}
    shared = (latents() if kind == "unrelated" else seen) @ linear["a0"] + noise(shared_noise)
    for name in (*EQUAL, WORSE):
        features[name] = (shared + noise(more_noise if name == WORSE else own_noise)) @ turns[name]
    return features


def as_layers(features: dict[str, NDArray[np.float64]], groups: Sequence[str], k: int) -> Callable[[str], Layer]:
    """Layers by name."""
    names = [str(i) for i in range(len(groups))]

    def layer(name: str) -> Layer:
        rows = unit_rows(features[name].astype(np.float32), names)
        return rows_layer(rows, groups, lambda: nearest_neighbors(rows, k))

    return layer


def rates(
    count: int, size: int, kind: str, repetitions: int, metrics: Sequence[str] = MEASURED
) -> dict[str, dict[str, float]]:
    """Metric -> rates. type I: a difference of equals is significant at .05; interval: coverage of the worse layer's
    difference; bands: coverage of all four differences at once; power: the worse layer's difference is significant;
    error: standard error over the standard deviation of differences of equals; difference: of the worse layer.
    """
    random = np.random.default_rng(count * 100 + size)
    labels = [f"g{i // size:04d}" for i in range(count)] if size > 1 else [str(i) for i in range(count)]
    groups, k = Groups.of(labels), min(10, count // 6)
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in metrics}
    for _ in range(repetitions):
        layer = as_layers(views(random, count, size, kind), labels, k)
        for name, found in differences(metrics, CONTRASTS, layer, Settings(k), groups, 0).items():
            of_all = tested(found.values, found.errors, found.correlation, found.freedom, 0)
            reach, band = of_all.high - found.values, of_all.band_high - found.values
            values[name].append(np.concatenate([found.values, found.errors, reach, band, of_all.p]))
    result = {}
    for name, rows in values.items():
        table = np.array(rows)
        value, error, reach, band, p = np.split(table, 5, axis=1)
        truth = np.array([0, 0, 0, value[:, 3].mean()])
        away = np.abs(value - truth)
        result[name] = {
            "type I": float((p[:, :3] <= 0.05).mean()),
            "interval": float((away <= reach)[:, 3].mean()),
            "bands": float((away <= band).all(axis=1).mean()),
            "power": float((p[:, 3] <= 0.05).mean()),
            "error": float(np.sqrt(np.square(error).mean()) / value[:, :3].std()),
            "difference": float(truth[3]),
        }
    return result


def main() -> None:
    """Print the table."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("--repetitions", type=int, default=200)
    command.add_argument("--metrics", nargs="+", default=MEASURED)
    command.add_argument("--counts", nargs="+", type=int, default=[30, 100, 320, 1000])
    command.add_argument("--sizes", nargs="+", type=int, default=[1, 4, 16])
    command.add_argument("--kinds", nargs="+", default=list(KINDS))
    given = command.parse_args()
    for count in given.counts:
        for size in given.sizes:
            if count // size < 6:
                continue
            for kind in given.kinds:
                for name, found in rates(count, size, kind, given.repetitions, given.metrics).items():
                    words = "  ".join(f"{key} {value:.3f}" for key, value in found.items())
                    sys.stdout.write(f"N = {count:4d}, groups of {size:2d}, {kind:9s} {name:12s} {words}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
