"""What a common mean of all images costs the neighbour lists: python benchmarks/offsets.py.

Features of two models with a shared part and standard deviation 1, plus an offset along a random direction, as float32.
Printed: what the mean leaves of the squares of unit rows; the share of the neighbours in extended precision that are
found by products of float32 rows (measured in float64), and by the search; how many of those of float64 features are
left by float32 features; and three scores of both models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment.arrays import measure
from diffalign.alignment.preparation import spread, unit_rows
from diffalign.alignment.search.exact import nearest_neighbors

K = 10
OFFSETS = (0.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)


def exact(features: NDArray[np.floating]) -> NDArray[np.intp]:
    """Neighbours by cosine, from distances of unit rows in extended precision minus their mean."""
    wide = features.astype(np.longdouble)
    rows = wide / np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return nearest(np.asarray(rows - rows.mean(axis=0), np.float64))


def nearest(rows: NDArray[np.float64]) -> NDArray[np.intp]:
    """Neighbours by distance."""
    apart = np.stack([np.square(row - rows).sum(axis=1) for row in rows])
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1)[:, :K]


def by_products(rows: NDArray[np.float32]) -> NDArray[np.intp]:
    """Neighbours by products of float32 rows in float64."""
    products = rows.astype(np.float64) @ rows.T.astype(np.float64)
    np.fill_diagonal(products, -np.inf)
    return np.argsort(-products, axis=1)[:, :K]


def shared(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """Mean share of equal neighbours."""
    return float(np.mean([len({*x} & {*y}) / K for x, y in zip(a.tolist(), b.tolist(), strict=True)]))


def main() -> None:
    """Print one row a width and offset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    count = parser.parse_args().count
    names = [str(i) for i in range(count)]
    print("width   offset   spread   products  search  float32  mutual kNN  CKNNA  unbiased CKA")
    with threadpool_limits(1):
        for width in (24, 256):
            random = np.random.default_rng(width)
            latent = random.standard_normal((count, 8))
            both = []
            for _ in "ab":
                mixed = latent @ random.standard_normal((8, width)) + random.standard_normal((count, width))
                both.append((mixed / mixed.std(), random.standard_normal(width)))
            for offset in OFFSETS:
                double = [features + offset * direction for features, direction in both]
                a, b = (features.astype(np.float32) for features in double)
                rows, truth = unit_rows(a, names), exact(a)
                found = nearest_neighbors(rows, K).indices
                scores = [measure(metric, a, b, k=K).value for metric in ("mutual_knn", "cknna", "unbiased_cka")]
                print(
                    f"{width:5d}{offset:9.0e}{spread(rows):9.1e}{shared(by_products(rows), truth):11.4f}"
                    f"{shared(found, truth):8.4f}{shared(truth, exact(double[0])):9.4f}"
                    f"{scores[0]:12.4f}{scores[1]:7.4f}{scores[2]:14.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
