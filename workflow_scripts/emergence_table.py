"""When measures appear in all models and configurations of the study, and differences between them."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffalign import logs
from diffalign.alignment.calibration import false_discovery_rates
from diffalign.dynamics.orders import contrasts
from diffalign.io import tables
from diffalign.io.headers import StoreError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

# what is compared
MODELS, CONFIGURATIONS, REFERENCE = "models", "configurations", "reference"
IDENTITY = ("model", "configuration")
WHAT = ("domain", "kind", "measure", "statistic")
_NUMBERS = {
    **dict.fromkeys(("t", "low", "high", "log_snr", "step", "spread"), "float64"),
    **dict.fromkeys(("seeds", "samples"), "int64"),
}
TIMES = {**dict.fromkeys((*IDENTITY, "reference", *WHAT), "string"), **_NUMBERS}
CONTRASTS = {
    **dict.fromkeys(("comparison", *IDENTITY, "other", "other_configuration", *WHAT), "string"),
    **dict.fromkeys(("difference", "low", "high", "p", "q"), "float64"),
    "seeds": "int64",
}
# a model in a configuration; domain, kind, measure and statistic
Place = tuple[str, str]
What = tuple[str, str, str, str]
# seed -> mean time of its samples
BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Times:
    """Times of a model in a configuration: the table as it was measured, and each time seed by seed."""

    table: pd.DataFrame
    by_seed: Mapping[What, BySeed]


def emergence_table(
    times: Sequence[Path],
    seed_times: Sequence[Path],
    references: Mapping[str, str],
    outputs: Mapping[str, Path],
) -> None:
    """Write the tables ``times`` and ``contrasts``, each as ``{table}_tsv`` and ``{table}_parquet``.

    times, seed_times: these tables of every model and configuration, joined by the names in them. The order of `times`
    is that of the study. references: model -> its reference.

    times: those of all, with the name of the reference or nothing. contrasts: differences in t, first less second,
    paired by seed, with t intervals over seeds: of every two models that are no references in the same configuration
    (``models``), of every two configurations of a model (``configurations``), and of each model and its reference
    (``reference``). Above 0 the first appears nearer to noise, and so earlier. Two that share no seed have no row.
    q: Benjamini-Hochberg over all rows of a comparison. Raises StoreError where tables are not of the same models and
    configurations, and ValueError for a name without times.
    """
    read = _read(times, seed_times)
    known = dict.fromkeys(model for model, _ in read)
    for name in (*references, *references.values()):
        if name not in known:
            raise ValueError(f"'{name}' has no times; there are those of {', '.join(known)}")
    listed = [each.table.assign(reference=references.get(model, "")) for (model, _), each in read.items()]
    rows = (row for each in listed for row in each[list(TIMES)].itertuples(index=False, name=None))
    tables.write(
        tables.frame((dict(zip(TIMES, row, strict=True)) for row in rows), TIMES),
        outputs["times_tsv"],
        outputs["times_parquet"],
    )
    compared = tables.frame(_contrasts(read, references), CONTRASTS)
    for comparison in compared["comparison"].unique():
        of = compared["comparison"] == comparison
        compared.loc[of, "q"] = false_discovery_rates(compared.loc[of, "p"].to_numpy(dtype=np.float64))
    tables.write(compared, outputs["contrasts_tsv"], outputs["contrasts_parquet"])


def _read(times: Sequence[Path], seed_times: Sequence[Path]) -> dict[Place, Times]:
    """Times of each model and configuration, in the order of `times`."""
    of_times = dict(_placed(path, tables.read(path, (*IDENTITY, *WHAT, *_NUMBERS))) for path in times)
    of_seeds = dict(_placed(path, tables.read(path, (*IDENTITY, *WHAT, "seed", "t"))) for path in seed_times)
    if of_times.keys() != of_seeds.keys():
        alone = sorted("/".join(place) for place in of_times.keys() ^ of_seeds.keys())
        raise StoreError(f"only one of the tables times and seed_times is there for {', '.join(alone)}")
    return {place: Times(table, _by_seed(of_seeds[place])) for place, table in of_times.items()}


def _placed(path: Path, table: pd.DataFrame) -> tuple[Place, pd.DataFrame]:
    """The model and configuration of a table, and the table. Raises StoreError for one of several."""
    places = sorted(set(zip(table["model"], table["configuration"], strict=True)))
    if len(places) != 1:
        raise StoreError(f"{path}: is of {len(places)} models and configurations: {', '.join(map('/'.join, places))}")
    return places[0], table


def _by_seed(table: pd.DataFrame) -> dict[What, BySeed]:
    """Mean times of each seed."""
    return {
        (str(what[0]), str(what[1]), str(what[2]), str(what[3])): {
            int(seed): float(t) for seed, t in zip(rows["seed"], rows["t"], strict=True)
        }
        for what, rows in table.groupby(list(WHAT), sort=False)
    }


def _contrasts(read: Mapping[Place, Times], references: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows without q, comparison by comparison."""
    for comparison, first, second in _compared(list(read), references):
        a, b = read[first].by_seed, read[second].by_seed
        for what in (what for what in a if what in b and a[what].keys() & b[what].keys()):
            (contrast,) = contrasts({"/".join(first): a[what], "/".join(second): b[what]})
            yield {
                "comparison": comparison,
                **dict(zip((*IDENTITY, "other", "other_configuration"), (*first, *second), strict=True)),
                **dict(zip(WHAT, what, strict=True)),
                **{key: getattr(contrast, key) for key in ("difference", "low", "high", "p", "seeds")},
            }


def _compared(places: Sequence[Place], references: Mapping[str, str]) -> Iterator[tuple[str, Place, Place]]:
    pairs = list(itertools.combinations(places, 2))
    for first, second in pairs:
        if first[1] == second[1] and not {first[0], second[0]} & set(references.values()):
            yield MODELS, first, second
    for first, second in pairs:
        if first[0] == second[0]:
            yield CONFIGURATIONS, first, second
    for model, configuration in places:
        other = references.get(model, ""), configuration
        if other in places:
            yield REFERENCE, (model, configuration), other


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "emergence_table"):
        given = snakemake.input
        emergence_table(
            [Path(path) for path in given.times],
            [Path(path) for path in given.seed_times],
            snakemake.params.references,
            {key: Path(path) for key, path in snakemake.output.items()},
        )
