"""Human choices and dimensions, joined with the objects of a data set by name."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.dataset_specs import SourceFile, TripletFile
from diffalign.human.ceilings import ceilings
from diffalign.human.triplets import distinct, read_triplets, source_files, stacked
from diffalign.io.headers import StoreError
from diffalign.io.human_files import ordered, write_people
from diffalign.reasons import reason
from diffalign.stimuli.kinds.things import read_concepts, verified

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def human_choices(concepts: SourceFile, triplets: TripletFile, dimensions: SourceFile | None, path: Path) -> None:
    """Read, check and write choices and dimensions. Raises StoreError and TripletError, which name the file."""
    files = source_files(triplets)
    digests = [verified(Path(file.path), file.sha256) for file in files]
    facts: dict[str, Any] = {
        "concepts": {**asdict(concepts), "sha256": verified(Path(concepts.path), concepts.sha256)},
        "triplets": {**asdict(triplets), "sha256": digests[0] if isinstance(triplets.path, str) else digests},
    }
    if dimensions is not None:
        facts["dimensions"] = {**asdict(dimensions), "sha256": verified(Path(dimensions.path), dimensions.sha256)}
    listed = read_concepts(Path(concepts.path))
    parts = [read_triplets(Path(file.path), len(listed), triplets.first, triplets.odd) for file in files]
    chosen = stacked(parts)
    ceiling = ceilings(chosen)
    facts["choices"] = {
        "choices": len(chosen),
        "distinct_triplets": distinct(chosen),
        "people": None if chosen.people is None else len(np.unique(chosen.people)),
        "ceilings": None if ceiling is None else asdict(ceiling),
    }
    table = None if dimensions is None else _read_dimensions(Path(dimensions.path))
    try:
        people = ordered(listed, chosen, table, facts)
    except StoreError as error:
        raise StoreError(f"{concepts.path if dimensions is None else dimensions.path}: {error}") from error
    write_people(path, people)
    logs.log.info("%s", facts["choices"])


def _read_dimensions(path: Path) -> NDArray[np.float32]:
    """One row a concept. Raises StoreError for what is no array of numbers."""
    try:
        table = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy has many ways to refuse a file
        raise StoreError(f"{path}: cannot be read as dimensions ({reason(error)})") from error
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu":
        raise StoreError(f"{path}: holds no array of numbers, one row a concept")
    return table


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "human_choices"):
        params = snakemake.params
        human_choices(
            SourceFile(**params.concepts),
            TripletFile(**params.triplets),
            None if params.dimensions is None else SourceFile(**params.dimensions),
            Path(snakemake.output[0]),
        )
