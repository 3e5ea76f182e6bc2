"""Representational similarity analysis of every layer of a bundle against human similarities."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign import logs
from diffalign.dataset_specs import SimilarityFile, SourceFile
from diffalign.human.odd_one_out import compared
from diffalign.human.similarities import Rsa, read_similarities, rsa
from diffalign.io import tables
from diffalign.io.atomic import write_json
from diffalign.io.feature_files import read_bundle
from diffalign.io.headers import StoreError
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.randomness import keyed
from diffalign.stimuli.kinds.things import read_concepts, verified

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {"layer": "string", **dict.fromkeys(Rsa.__dataclass_fields__, "float64"), "objects": "int64"}


@dataclass(frozen=True)
class Outputs:
    """Outputs: a table with a row per layer, and its recipe."""

    table: Path
    parquet: Path
    recipe: Path


def human_rsa(
    layers_json: Path, concepts: SourceFile, source: SimilarityFile, distance: str, seed: int, outputs: Outputs
) -> None:
    """Correlate human similarities with those of every layer, over the objects of the human similarities.

    Raises SimilarityError and StoreError, which name the file.
    """
    verified(Path(concepts.path), concepts.sha256)
    verified(Path(source.path), source.sha256)
    people = read_similarities(
        Path(source.path),
        source.key,
        Path(source.names),
        source.names_key,
        source.measures,
        read_concepts(Path(concepts.path)),
    )
    bundle = read_bundle(layers_json)
    rows: list[dict[str, Any]] = []
    recipe: dict[str, Any] = {}
    for alias in logs.progress(bundle.digests, len(bundle.digests), "layers"):
        features = bundle.read(alias)
        recipe = features.shared
        row_of = {name: row for row, name in enumerate(features.names)}
        if absent := sorted(set(people.names) - set(row_of)):
            raise StoreError(
                f"{bundle.path(alias)}: {len(absent)} objects have no features, first: {first_five(absent)}"
            )
        x = compared(features.values[[row_of[name] for name in people.names]], distance)
        similar = x @ x.T
        if distance == "euclidean":
            sizes = np.diag(similar)
            similar = 2 * similar - sizes - sizes[:, None]
        # the same draws for all layers
        rows.append({"layer": alias, **asdict(rsa(people.values, similar, keyed(seed, "bootstrap", "similarities")))})
        logs.log.info("%s: Spearman %.3f", alias, rows[-1]["spearman"])
    write_json(
        outputs.recipe,
        {
            "format": 1,
            "bundle": recipe["bundle"],
            "distance": distance,
            "seed": seed,
            "similarities": {**asdict(source), "sha256": file_sha256(Path(source.path))},
            "names": list(people.names),
            "features": recipe,
        },
    )
    tables.write(tables.frame(rows, COLUMNS), outputs.table, outputs.parquet)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "human_rsa"):
        params, output = snakemake.params, snakemake.output
        human_rsa(
            Path(snakemake.input.layers),
            SourceFile(**params.concepts),
            SimilarityFile(**params.similarities),
            params.distance,
            params.seed,
            Outputs(Path(output.table), Path(output.parquet), Path(output.recipe)),
        )
