"""Every layer of every checkpoint of some trainings against a reference, with nulls, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import series
from diffalign.io import recipes, tables
from diffalign.io.series_tables import IDENTITY, MEASURED, choose, rows, write_recipe
from diffalign.io.unlisted_sides import Search, read_side

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("recipe", "model"), "string"),
    **dict.fromkeys(("seed", "step"), "int64"),
    **IDENTITY,
    **MEASURED,
}


@dataclass(frozen=True)
class Checkpoint:
    """A step of a training. recipe: the name of what trainings with other seeds share. features: its manifest."""

    recipe: str
    model: str
    seed: int
    step: int
    features: Path


def training_alignment(
    checkpoints: Sequence[Checkpoint],
    reference: tuple[Path, str],
    metrics: Sequence[str],
    settings: tuple[Path, Path],
    where: recipes.Where,
    search: Search,
    outputs: Mapping[str, Path],
) -> None:
    """Write a row a checkpoint, layer and metric; reference: its manifest and layer; settings: of scores and nulls.

    Columns: recipe, model, seed, step, and those of `series_tables`. chosen: the layer with the largest score of its
    checkpoint on the first half of the images. outputs: ``tsv``, ``parquet``, ``recipe``. Raises StoreError where the
    images of a checkpoint are not those of the reference.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    drawn = series.Drawn(drawing.permutations, drawing.alpha, drawing.seed)
    other = read_side(reference[0], search, [reference[1]])
    made_of: dict[str, Mapping[str, Any]] = {}
    measured: list[dict[str, Any]] = []
    for checkpoint in logs.progress(checkpoints, len(checkpoints), "checkpoints"):
        side = read_side(checkpoint.features, search, like=other, where=reference[0])
        made_of[side.recipe["bundle"]] = side.recipe
        known = {key: value for key, value in asdict(checkpoint).items() if key != "features"}
        measured += ({**known, **row} for row in rows(metrics, side, other, where, setting, drawn))
    choose(measured, ["bundle", "metric"])
    tables.write(tables.frame(measured, COLUMNS), outputs["tsv"], outputs["parquet"])
    write_recipe(outputs["recipe"], metrics, where, setting, drawing, other, made_of, other.groups.exchanges)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "training_alignment"), threadpool_limits(snakemake.threads):
        given, params = snakemake.input, snakemake.params
        training_alignment(
            [
                Checkpoint(**checkpoint, features=Path(path))
                for checkpoint, path in zip(params.checkpoints, given.checkpoints, strict=True)
            ],
            (Path(given.reference), params.reference_layer),
            params.metrics,
            (Path(given.settings), Path(given.calibration)),
            recipes.Where(params.dataset, params.condition),
            Search.of_job(snakemake, params.k),
            {key: Path(path) for key, path in snakemake.output.items()},
        )
