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
    times: Sequence[Path], seed_times: Sequence[Path], references: Mapping[str, str], outputs: Mapping[str, Path]
) -> None:
    """Write the tables ``times`` and ``contrasts``, each as ``{table}_tsv`` and ``{table}_parquet``.

    times, seed_times: tables of `image_dynamics` of every model and configuration, joined by the names in them. The
    order of `times` is that of the study. references: model -> its reference.

    times: those of all, with the name of the reference or nothing. contrasts: differences in t, first less second,
    paired by seed, with t intervals over seeds: of every two models that are no references in the same configuration
    (``models``), of every two configurations of a model (``configurations``), and of each model and its reference
    (``reference``). Above 0 the first appears nearer to noise, and so earlier. Two that share no seed have no row.
    q: Benjamini-Hochberg over all rows of a comparison. Raises StoreError where the two kinds of tables are not of the
    same models, configurations and times, and ValueError for a name without times.
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
    means = _placed(times, (*IDENTITY, *WHAT, *_NUMBERS))
    of_seeds = _placed(seed_times, (*IDENTITY, *WHAT, "seed", "t"))
    if alone := set(means) ^ set(of_seeds):
        raise StoreError(f"of {', '.join(map('/'.join, sorted(alone)))} there is only one of times and times of seeds")
    found = {}
    for place, table in means.items():
        by_seed: dict[What, dict[int, float]] = {}
        columns = (of_seeds[place][key] for key in (*WHAT, "seed", "t"))
        for domain, kind, measure, statistic, seed, t in zip(*columns, strict=True):
            by_seed.setdefault((domain, kind, measure, statistic), {})[int(seed)] = float(t)
        if differing := set(zip(*(table[key] for key in WHAT), strict=True)) ^ set(by_seed):
            first = ", ".join(sorted(differing)[0])
            raise StoreError(f"{'/'.join(place)}: {len(differing)} times are not of seeds and of all, first: {first}")
        found[place] = Times(table, by_seed)
    return found


def _placed(paths: Sequence[Path], columns: Sequence[str]) -> dict[Place, pd.DataFrame]:
    """Tables by their model and configuration. Raises StoreError for a table of several, and for two of the same."""
    found: dict[Place, pd.DataFrame] = {}
    for path in paths:
        table = tables.read(path, columns)
        places = sorted(set(zip(table["model"], table["configuration"], strict=True)))
        if len(places) > 1 or places[0] in found:
            raise StoreError(
                f"{path}: expected one model and configuration of its own, not {'; '.join(map('/'.join, places))}"
            )
        found[places[0]] = table
    return found


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
