"""The scores of one pair of representations against several nulls: what single images, groups and labels explain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.groups import Exchanges, Groups
from diffalign.alignment.metrics import measure_grid
from diffalign.io import recipes, sides, tables
from diffalign.io.manifest import groups_of, labels_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

CELLS = {"mean": "null_mean", "sd": "null_sd", **{key: key for key in ("z", "p", "threshold", "calibrated")}}
COLUMNS = {
    **dict.fromkeys(("null", "metric", "dataset", "condition", "a", "b", "layer_a", "layer_b"), "string"),
    **dict.fromkeys(("n", "groups", "exchanged", "k"), "int64"),
    "score": "float64",
    **dict.fromkeys(CELLS.values(), "float64"),
    **dict.fromkeys(("method", "reason"), "string"),
}


def nulls_table(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: tuple[Path, Path],
    manifest: Path | None,
    where: recipes.Where,
    metrics: Sequence[str],
    outputs: tuple[Path, Path],
    memory_mb: int,
) -> None:
    """Write one row a metric and null, as TSV and Parquet with the same rows. settings: of scores and of nulls.

    Columns: null (a key of `exchanges`), metric, dataset, condition, a, b (bundles), layer_a, layer_b, n, groups (of
    the data set), exchanged (groups, or images, that the null can move), k, score, null_mean, null_sd, z, p, threshold,
    calibrated, method (permutations, moments or refused), reason (why there is no p). Metrics without a null have no
    rows. manifest: of the images; None for data sets without one. Raises StoreError where the two sides have other
    images, or the manifest lacks some.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    a, b = sides.read_sides(*files, drawing.seed, manifest)
    pair = a.layer(layers[0]).held(), b.layer(layers[1]).held()
    memory = memory_mb * 2**20
    scores = measure_grid(metrics, pair[:1], pair[1:], setting, memory)
    labels = [""] * len(a.names) if manifest is None else labels_of(manifest, a.names)
    groups = Groups.of(a.names if manifest is None else groups_of(manifest, a.names))

    def rows() -> Iterator[dict[str, Any]]:
        for null, relabelled in exchanges(groups, labels).items():
            how = (drawing.permutations, drawing.alpha, drawing.seed)
            found = calibrate(scores, pair[:1], pair[1:], setting, *how, exchanges=relabelled, memory=memory)
            for metric, calibration in found.items():
                yield {
                    "null": null,
                    "metric": metric,
                    **asdict(where),
                    **sides.identity((a, b), layers),
                    "n": len(a.names),
                    "groups": groups.count,
                    "exchanged": relabelled.moved,
                    "k": setting.k,
                    "score": float(scores[metric][0, 0]),
                    **{column: float(getattr(calibration, key)[0, 0]) for key, column in CELLS.items()},
                    "method": calibration.method,
                    "reason": calibration.reason,
                }

    tables.write(tables.frame(rows(), COLUMNS), *outputs)


def exchanges(groups: Groups, labels: Sequence[str]) -> Mapping[str, Exchanges]:
    """What nulls exchange, of those that the data set allows. labels: (N,), '' without one.

    ``images``: each by itself, what chance gives where all are independent. ``groups``: whole groups, what chance gives
    where those of a group are not; where some have several images. ``within groups``: images of a group; what is
    significant is shared beyond the group. ``within labels``: images, or whole groups, with the same labels; what is
    significant is shared beyond the label; where there are labels.
    """
    nulls = {"images": Groups.of([str(i) for i in range(len(labels))]).exchanges}
    if not groups.alone:
        nulls |= {"groups": groups.exchanges, "within groups": groups.exchanges_inside}
    if any(labels):
        nulls["within labels"] = groups.exchanges_within(labels)
    return nulls


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "nulls_table"), threadpool_limits(snakemake.threads):
        nulls_table(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            (Path(snakemake.input.settings), Path(snakemake.input.calibration)),
            sides.manifest_of(snakemake.input),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            snakemake.params.metrics,
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
            snakemake.resources.memory_mb,
        )
