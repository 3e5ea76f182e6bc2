"""Which rung takes what is planted, and how often what controls make alone counts as left given them.

Two layers of N = 200 images see 10 classes, six dimensions of pixels and six of something else, linearly or through a
saturating function, each with noise of its own. For mutual kNN (k = 10), given classes, pixels and both: the share of
studies with p <= .05 and the mean share left, by exchanged residuals (19 on each side), as ladders report them, which
given classes alone are images relabelled within their class; p <= .05 by images relabelled within pairs of nearest
pixels, which ladders do not do; how often the interval of the share of squared covariance holds 0, and its mean.
`--repetitions` studies each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow_scripts"))

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import ladder, partial
from diffalign.alignment.arrays import measure
from diffalign.alignment.groups import Groups

COUNT, K, CLASSES, WIDTH, DRAWS = 200, 10, 10, 6, 19
NAMES = [f"n{i:03d}" for i in range(COUNT)]
LABELS = [str(i % CLASSES) for i in range(COUNT)]
CHANCE = K / (COUNT - 1)
# weights of classes, pixels and what is beyond both; whether layers saturate
WORLDS = {
    "classes": (1.0, 0.0, 0.0, False),
    "pixels": (0.0, 1.0, 0.0, False),
    "classes and pixels": (0.7, 0.7, 0.0, False),
    "pixels, saturating": (0.0, 1.0, 0.0, True),
    "classes, pixels and more": (0.6, 0.6, 0.6, False),
}
GIVEN = (("labels",), ("pixels",), ("labels", "pixels"))
Features = NDArray[np.float64]
Mask = NDArray[np.bool_]


def neighbors(rows: NDArray[np.floating]) -> Mask:
    """(N, N): whether an image is among the k nearest of another by cosine; there are no ties."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2)
    near = np.zeros(similar.shape, np.bool_)
    np.put_along_axis(near, np.argpartition(-similar, K, axis=1)[:, :K], True, axis=1)
    return near


def overlap(a: Mask, b: Mask) -> float:
    """Mutual kNN."""
    return float((a & b).sum()) / (K * COUNT)


def planted(random: np.random.Generator, world: str) -> tuple[Features, Features, Features]:
    """Both layers, and the pixels."""
    classes, pixels, beyond, saturates = WORLDS[world]
    seen = random.standard_normal((COUNT, WIDTH))
    of_class = random.standard_normal((CLASSES, WIDTH))[[int(label) for label in LABELS]]
    more = random.standard_normal((COUNT, WIDTH))
    everything = np.concatenate([classes * of_class, pixels * seen, beyond * more], axis=1)
    layers = []
    for _ in range(2):
        mixed = everything @ random.standard_normal((3 * WIDTH, 24))
        layers.append((np.tanh(mixed) if saturates else mixed) + random.standard_normal((COUNT, 24)))
    return layers[0], layers[1], seen


def pairs(pixels: Features) -> list[NDArray[np.intp]]:
    """Strata of two images: from the farthest from the mean inwards, each with the nearest that is still free."""
    distances = np.square(pixels[:, None] - pixels[None]).sum(axis=2)
    free = np.ones(COUNT, np.bool_)
    found = []
    for image in np.argsort(-np.square(pixels - pixels.mean(axis=0)).sum(axis=1), kind="stable"):
        if free[image]:
            free[image] = False
            other = int(np.argmin(np.where(free, distances[image], np.inf)))
            free[other] = False
            found.append(np.array([image, other]))
    return found


def studies(world: str, repetitions: int) -> None:
    """Print one row a set of controls."""
    random = np.random.default_rng(sorted(WORLDS).index(world))
    found: dict[tuple[str, ...], list[tuple[float, ...]]] = {given: [] for given in GIVEN}
    for repetition in range(repetitions):
        *layers, pixels = planted(random, world)
        near = [neighbors(rows) for rows in layers]
        score = overlap(*near)
        if repetition == 0:
            known = measure("mutual_knn", *layers, k=K).value
            assert abs(score - known) < 1e-9, (score, known)
        columns = {"labels": partial.one_hot(LABELS), "pixels": pixels}
        strata = pairs(pixels)
        for given in GIVEN:
            span = partial.controls([columns[name] for name in given], NAMES)
            groups = Groups.of(NAMES)
            exchanges = groups.exchanges_within(LABELS) if "labels" in given else groups.exchanges
            if given == ("labels",):
                # residuals of class means are relabelled rows: no search is needed
                orders = exchanges.orders(DRAWS, repetition)
                relabelled = [overlap(near[0], near[1][np.ix_(order, order)]) for order in orders]
                null = np.array([relabelled])
            else:
                null = np.empty((2, DRAWS))
                for side, rows in enumerate(layers):
                    for draw, changed in enumerate(ladder.moved(rows, span, exchanges, DRAWS, repetition)):
                        null[side, draw] = overlap(neighbors(changed), near[1 - side])
            left = ladder.against(score, null)
            within = np.nan
            if given == ("pixels",):
                relabelled = []
                for _ in range(DRAWS):
                    order = np.arange(COUNT)
                    for stratum in strata:
                        order[stratum] = random.permutation(stratum)
                    relabelled.append(overlap(near[0], near[1][np.ix_(order, order)]))
                within = float(max(relabelled) < score - 1e-9)
            share = partial.beyond(*layers, span).share
            found[given].append(
                (float(left.p <= 0.05), left.share(CHANCE), within, float(share.low <= 0 <= share.high), share.value)
            )
    for given, values in found.items():
        rate, left_share, within, holds, linear = np.array(values).mean(axis=0)
        print(
            f"{world:26s} {' + '.join(given):16s} {rate:6.3f} {left_share:7.3f} {within:7.3f} {holds:7.3f} "
            f"{linear:7.3f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100, help="studies a row")
    parser.add_argument("--worlds", nargs="*", choices=list(WORLDS), default=list(WORLDS))
    asked = parser.parse_args(arguments)
    print(f"{'planted':26s} {'given':16s} p<=.05   share  strata  holds 0  linear")
    for world in asked.worlds:
        studies(world, asked.repetitions)


if __name__ == "__main__":
    main()
