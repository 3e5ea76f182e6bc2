"""Differences of two scores of the same images, each by itself and all of a family together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import simultaneous
from diffalign.alignment.contrasts import Contrast, Differences, differences
from diffalign.alignment.intervals import LEVEL
from diffalign.alignment.metrics import METRICS, Layer
from diffalign.io import recipes, sides, tables
from diffalign.io.score_recipes import is_miniature, leak

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

TESTED = ("low", "high", "p", "band_low", "band_high", "p_adjusted")
COLUMNS = {
    **dict.fromkeys(("family", "contrast", "metric", "dataset", "condition"), "string"),
    **{column: "string" for side in "abcd" for column in (side, f"layer_{side}")},
    **dict.fromkeys(("n", "groups", "k"), "int64"),
    **dict.fromkeys(("score_ab", "score_cd", "difference", "error", *TESTED), "float64"),
    "contrasts": "int64",
    "differs": "boolean",
    **dict.fromkeys(("method", "reason", "leak"), "string"),
    "miniature": "bool",
}
# the fewest groups, or images, with which errors of differences were simulated: docs/contrasts.md
_FEWEST_GROUPS, _FEWEST_IMAGES = 7, 30


@dataclass(frozen=True)
class Named:
    """A contrast as it was typed, and its four sides a, b, c, d: bundle and layer."""

    text: str
    sides: tuple[tuple[str, str], ...]


def contrast(
    family: str,
    compared: Sequence[Named],
    files: Mapping[str, sides.Files],
    settings: tuple[Path, Path],
    manifest: Path | None,
    where: recipes.Where,
    metrics: Sequence[str],
    outputs: tuple[Path, Path],
) -> None:
    """Write one row a metric and contrast, as TSV and Parquet with the same rows. files: bundle -> its files.

    Columns: family (empty for a contrast by itself), contrast, metric, dataset, condition, a, b, c, d (bundles) and
    their layers, n, groups, k, score_ab, score_cd, difference and its error, low, high, p (by itself); band_low,
    band_high, p_adjusted (over the family, for this metric), contrasts (how many these are corrected over), differs
    (whether the band excludes 0; empty where that is not known), method (of the error), reason (why there is none),
    leak (what one side of either pair was given of the other), miniature. Raises StoreError for other images.
    """
    setting, drawing = recipes.read_settings(settings[0]), recipes.read_drawing(settings[1])
    read = dict(zip(files, sides.read_all(list(files.values()), drawing.seed, manifest), strict=True))
    any_side = next(iter(read.values()))
    count, images = any_side.groups.count, len(any_side.names)
    if images < _FEWEST_IMAGES or count < _FEWEST_GROUPS:
        logs.log.warning(
            "%d images in %d groups: p and bands are only known to hold with %d images and %d groups at least",
            *(images, count, _FEWEST_IMAGES, _FEWEST_GROUPS),
        )
    place = {" ".join(side): side for each in compared for side in each.sides}

    def layer(key: str) -> Layer:
        bundle, alias = place[key]
        return read[bundle].layer(alias)

    def pairs_of(each: Named) -> Contrast:
        a, b, c, d = (" ".join(side) for side in each.sides)
        return Contrast((a, b), (c, d))

    def rows() -> Iterator[dict[str, Any]]:
        found = differences(
            metrics,
            [pairs_of(each) for each in compared],
            layer,
            setting,
            any_side.groups,
            drawing.seed,
            lambda each, number: logs.progress(each, number, "contrasts"),
        )
        for metric, of_metric in found.items():
            tested = simultaneous.tested(
                of_metric.values, of_metric.errors, of_metric.correlation, of_metric.freedom, drawing.seed
            )
            for i, each in enumerate(compared):
                known = not math.isnan(of_metric.errors[i])
                of_sides = [read[bundle].lists.recipe for bundle, _ in each.sides]
                yield {
                    "family": family,
                    "contrast": each.text,
                    "metric": metric,
                    **asdict(where),
                    **dict(zip("abcd", (bundle for bundle, _ in each.sides), strict=True)),
                    **{f"layer_{side}": alias for side, (_, alias) in zip("abcd", each.sides, strict=True)},
                    "n": images,
                    "groups": count,
                    "k": setting.k,
                    "score_ab": of_metric.scores[i, 0],
                    "score_cd": of_metric.scores[i, 1],
                    "difference": of_metric.values[i],
                    "error": of_metric.errors[i],
                    **{column: getattr(tested, column)[i] for column in TESTED},
                    "contrasts": tested.family,
                    "differs": bool(tested.p_adjusted[i] <= 1 - LEVEL) if known else None,
                    "method": of_metric.method,
                    "reason": None if known else _reason(metric, of_metric, i),
                    "leak": _leaks(of_sides),
                    "miniature": any(is_miniature({"a": side, "b": side}) for side in of_sides),
                }

    tables.write(tables.frame(rows(), COLUMNS), *outputs)


def _reason(metric: str, of_metric: Differences, at: int) -> str | None:
    """Why a contrast has no error: a score is undefined, or the metric has none for these images."""
    return METRICS[metric].undefined if math.isnan(of_metric.values[at]) else of_metric.refused


def _leaks(of_sides: Sequence[Mapping[str, Any]]) -> str | None:
    """What one side of either pair was given of the other. of_sides: recipes of a, b, c and d."""
    said = [leak(of_sides[0], of_sides[1]), leak(of_sides[2], of_sides[3])]
    return "; ".join(dict.fromkeys(filter(None, said))) or None


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "contrast"), threadpool_limits(snakemake.threads):
        given, params = snakemake.input, snakemake.params
        lists = [given.get(part) or [None] * len(params.bundles) for part in ("neighbors", "features", "factors")]
        contrast(
            params.family,
            [Named(each["contrast"], tuple(map(tuple, each["sides"]))) for each in params.compared],
            {
                bundle: sides.Files(*(None if path is None else Path(path) for path in paths))  # type: ignore[arg-type]
                for bundle, *paths in zip(params.bundles, *lists, strict=True)
            },
            (Path(given.settings), Path(given.calibration)),
            sides.manifest_of(given),
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            params.metrics,
            (Path(snakemake.output.tsv), Path(snakemake.output.parquet)),
        )
