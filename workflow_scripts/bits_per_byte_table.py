"""How alike language models and others are, beside how well the language models predict the texts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign import logs
from diffalign.alignment.rank_correlation import over_series
from diffalign.io import language_files, tables
from diffalign.io.matrices import CalibratedMatrix, read_matrices

if TYPE_CHECKING:
    import pandas as pd
    from snakemake.iocontainers import snakemake

# a panel of the figure: pairs of one model with language models that read the same texts in the same way
PANEL = ("metric", "dataset", "condition", "other", "variant")
COLUMNS = {
    **dict.fromkeys((*PANEL, "language", "series"), "string"),
    **dict.fromkeys(("bits_per_byte", "loss", "parameters"), "float64"),
    **dict.fromkeys(("layer_other", "layer_language"), "string"),
    **dict.fromkeys(("maximum", "maximum_p", "maximum_calibrated"), "float64"),
    **dict.fromkeys(("n", "k"), "int64"),
    "miniature": "bool",
}
CORRELATIONS = {
    **dict.fromkeys((*PANEL, "score"), "string"),
    **dict.fromkeys(("rho", "low", "high", "within"), "float64"),
    **dict.fromkeys(("pairs", "models", "series"), "int64"),
}
# what is correlated with quality: the largest score, and it against the null of the largest score
SCORES = ("maximum", "maximum_calibrated")


@dataclass(frozen=True)
class Language:
    """The side of a pair that is a language model: ``a`` or ``b``; what its name says beside its model, as in
    ``-last``; its series; and its loss file.
    """

    side: str
    variant: str
    series: str
    losses: Path


def bits_per_byte_table(
    read: Sequence[CalibratedMatrix],
    languages: Sequence[Language],
    seed: int,
    outputs: Mapping[str, Path],
) -> None:
    """Write one row a pair and metric, and the rank correlations of quality and alignment of every panel.

    languages: of every matrix, in their order. outputs: ``tsv``, ``parquet``, ``correlations_tsv`` and
    ``correlations_parquet``.

    Rows: metric, dataset, condition, other (a bundle), variant, language (a bundle), series; bits_per_byte, loss,
    parameters (empty where the model predicts no text); layer_other, layer_language, maximum, maximum_p,
    maximum_calibrated, n, k, miniature. Correlations: the same panel; score (maximum or maximum_calibrated); rho of the
    score and of quality, which is less bits per byte: above 0 where better models are more alike; low, high (95 % over
    series), within (agreement of pairs of one series) and the number of these pairs, models and series.
    """
    points = tables.frame((row(*each) for each in zip(read, languages, strict=True)), COLUMNS)
    tables.write(points, outputs["tsv"], outputs["parquet"])
    correlated = tables.frame(correlations(points, seed), CORRELATIONS)
    tables.write(correlated, outputs["correlations_tsv"], outputs["correlations_parquet"])


def row(matrix: CalibratedMatrix, language: Language) -> dict[str, Any]:
    """One pair. Raises ValueError where the file of quality is of another model."""
    side, other = language.side, "a" if language.side == "b" else "b"
    quality = language_files.read_quality(language.losses)
    bundle = matrix.bundle(side)
    # of last tokens there is no file of their own
    if bundle not in (quality["bundle"], language_files.last_of(quality["bundle"])):
        raise ValueError(f"{language.losses} is of '{quality['bundle']}', not of '{bundle}'")
    cells: dict[str, Any] = {
        "metric": matrix.metric,
        "dataset": matrix.recipe["dataset"],
        "condition": matrix.recipe["condition"],
        "other": matrix.bundle(other),
        "variant": language.variant,
        "language": bundle,
        "series": language.series,
        **{key: quality[key] for key in ("bits_per_byte", "loss", "parameters")},
        "n": matrix.recipe["n"],
        "k": matrix.recipe["k"],
        "miniature": matrix.miniature,
    }
    if matrix.best is not None:
        at = dict(zip("ab", matrix.best, strict=True))
        cells |= {
            "layer_other": matrix.layers(other)[at[other]],
            "layer_language": matrix.layers(side)[at[side]],
            "maximum": float(matrix.values[matrix.best]),
        }
        if matrix.calibration.null is not None:
            cells |= {key: getattr(matrix.calibration.null, key) for key in ("maximum_p", "maximum_calibrated")}
    return cells


def correlations(points: "pd.DataFrame", seed: int) -> Iterator[dict[str, Any]]:
    """Of every panel and score, over the language models that predict texts and have the score."""
    for panel, rows in points.groupby(list(PANEL), sort=False, dropna=False):
        for score in SCORES:
            here = rows[np.isfinite(rows["bits_per_byte"]) & np.isfinite(rows[score])]
            if here.empty:
                continue
            quality = -here["bits_per_byte"].to_numpy(dtype=np.float64)
            values = here[score].to_numpy(dtype=np.float64)
            correlation = over_series(quality, values, list(here["series"]), seed)
            yield {**dict(zip(PANEL, panel, strict=True)), "score": score, **asdict(correlation)}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "bits_per_byte_table"):
        metrics = snakemake.params.metrics
        matrices = read_matrices(
            [Path(path) for path in snakemake.input.matrices],
            [Path(path) for path in snakemake.input.calibrations],
            metrics,
        )
        languages = [
            Language(**language, losses=Path(path))
            for language, path in zip(snakemake.params.languages, snakemake.input.losses, strict=True)
            for _ in metrics
        ]
        # all pairs of a metric below each other
        order = sorted(range(len(matrices)), key=lambda number: metrics.index(matrices[number].metric))
        bits_per_byte_table(
            [matrices[number] for number in order],
            [languages[number] for number in order],
            snakemake.params.seed,
            {key: Path(path) for key, path in snakemake.output.items()},
        )
