"""Odd-one-out accuracy of tokens: pooled, unpooled, and reduced to principal components."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.human.choices import closest_pairs
from diffalign.human.dependence import covariance, known
from diffalign.human.odd_one_out import CHANCE, Choices, pair_similarities, similarities_of_products
from diffalign.human.reduction import components_of_products, pooled, principal_components, products
from diffalign.human.triplets import Triplets, distinct, published_sample
from diffalign.io import human_files, tables
from diffalign.io.atomic import write_json
from diffalign.io.headers import check_same_names
from diffalign.io.token_files import read_tokens

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("layer", "pooling", "reduction"), "string"),
    "dimensions": "int64",
    **dict.fromkeys(("accuracy", "low", "high", "tie_rate", "fair", "published"), "float64"),
}


@dataclass(frozen=True)
class Settings:
    """Settings of predictions; docs/config.md."""

    poolings: tuple[str, ...]
    components: tuple[int, ...]
    triplets: int
    distance: str
    ties: str
    seed: int


@dataclass(frozen=True)
class Outputs:
    """Outputs: a table with a row per layer, pooling and number of components, and its recipe."""

    table: Path
    parquet: Path
    recipe: Path


def reduction(folder: Path, people_path: Path, settings: Settings, memory_mb: int, outputs: Outputs) -> None:
    """Predict choices by every pooling of every layer, with and without PCA, and write accuracies.

    folder: unpooled tokens, read in blocks. Raises StoreError where tokens and human choices have different objects.
    """
    people, unpooled = human_files.read_people(people_path), read_tokens(folder)
    check_same_names(people.names, unpooled.names, people_path, folder)
    triplets = published_sample(people.triplets, settings.triplets)
    rows: list[dict[str, Any]] = []
    gained = []
    for layer, tokens in unpooled.layers.items():
        for pooling in settings.poolings:
            for what, dimensions, choices in _choices(tokens, pooling, triplets, settings, memory_mb):
                credit = choices.credit(settings.ties)
                gained.append(credit.astype(np.float32))
                row = {"layer": layer, "pooling": pooling, "reduction": what, "dimensions": dimensions}
                row |= {"accuracy": credit.mean(), "tie_rate": choices.tie_rate}
                rows.append(row | {rule: choices.credit(rule).mean() for rule in ("fair", "published")})
            logs.log.info("%s, %s: %.4f", layer, pooling, rows[-1]["accuracy"])
    over = covariance(np.stack(gained), triplets, known(triplets)).interval()
    for row, low, high in zip(rows, over.low, over.high, strict=True):
        row |= {"low": low, "high": high}
    write_json(
        outputs.recipe,
        {
            "format": 2,
            "bundle": unpooled.recipe["bundle"],
            **asdict(settings),
            "chance": CHANCE,
            "choices": {"choices": len(triplets), "distinct_triplets": distinct(triplets)},
            "shapes": {layer: list(tokens.shape) for layer, tokens in unpooled.layers.items()},
            "fitted": "principal components to all objects, as published; they see no choice",
            "people": people.facts,
            "features": unpooled.recipe,
        },
    )
    tables.write(tables.frame(rows, COLUMNS), outputs.table, outputs.parquet)


def _choices(
    tokens: NDArray[np.floating], pooling: str, triplets: Triplets, settings: Settings, memory_mb: int
) -> Iterator[tuple[str, int, Choices]]:
    """Reduction (``none`` or ``pca``), number of dimensions, and choices of each set of features.

    Numbers of components above the rank are replaced by all components, which come last.
    """
    if pooling == "none":
        flat = products(tokens.reshape(len(tokens), -1), memory_mb)
        yield "none", flat.width, _chosen(triplets, *similarities_of_products(flat, triplets, settings.distance))
        scores = components_of_products(flat.centred, len(tokens))
    else:
        vectors = pooled(tokens, pooling, memory_mb)
        plain = pair_similarities(vectors, triplets, settings.distance, memory_mb)
        yield "none", vectors.shape[1], _chosen(triplets, *plain)
        scores = principal_components(vectors, vectors.shape[1])
    for count in _counts(settings.components, scores.shape[1]):
        reduced = pair_similarities(scores[:, :count], triplets, settings.distance, memory_mb)
        yield "pca", count, _chosen(triplets, *reduced)


def _counts(asked: Sequence[int], full: int) -> list[int]:
    return [*(count for count in sorted(set(asked)) if count < full), full]


def _chosen(triplets: Triplets, similarities: NDArray[np.float64], sizes: NDArray[np.float64]) -> Choices:
    return Choices(closest_pairs(triplets.objects, similarities, sizes))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "reduction"), threadpool_limits(snakemake.threads):
        given, output = snakemake.input, snakemake.output
        reduction(
            Path(given.unpooled),
            Path(given.people),
            Settings(**snakemake.params.settings),
            snakemake.resources.memory_mb,
            Outputs(Path(output.table), Path(output.parquet), Path(output.recipe)),
        )
