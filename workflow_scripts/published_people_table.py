"""Odd-one-out accuracies that others published, and those of the study beside them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from diffalign import logs
from diffalign.io import tables
from diffalign.io.layouts import diffusion_alignment as layout

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("file", "of", "source", "model", "module"), "string"),
    "distance": "string",
    "pooling": "string",
    "pca": "Int64",
    "regularisation": "float64",
    "optimizer": "string",
    "learning_rate": "float64",
    "folds": "Int64",
    "bias": "boolean",
    "accuracy": "float64",
    "cross_entropy": "float64",
    **dict.fromkeys(("dataset", "condition", "bundle", "layer"), "string"),
    "here": "float64",
    "difference": "float64",
    "miniature": "boolean",
}
_OF_PROBES = ("regularisation", "optimizer", "learning_rate", "folds", "bias")
_PLACE = ("dataset", "condition", "bundle")
Key = tuple[str, str, str]


@dataclass(frozen=True)
class PeopleFile:
    """A file of accuracies, and its settings. of: ``odd_one_out``, ``reduction`` or ``probe``."""

    path: Path
    of: str
    distance: str
    pca: int | None
    pooling: str | None


@dataclass(frozen=True)
class Ours:
    """What the study has.

    names: bundle -> source, model and modules by layer in the words of the published code. settings: of choices, and of
    the probe. human: the table of models and people, with a row per layer; None where it is not needed. reductions:
    (data set, condition, bundle) -> its table.
    """

    names: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    human: pd.DataFrame | None
    reductions: Mapping[tuple[str, str, str], pd.DataFrame]


def published_people_table(files: Mapping[str, PeopleFile], ours: Ours, tsv: Path, parquet: Path) -> None:
    """Write a row an accuracy of every file, as TSV and Parquet with the same rows.

    Columns: docs/layouts.md. `here` is the accuracy of the study, by the published rule of ties, of the same model,
    module and settings; what the study does not have is empty, and several data sets and conditions are several rows.
    Raises FileNotFoundError or StoreError for a file that cannot be read.
    """
    rows = [row for name, file in files.items() for row in rows_of(name, file, ours)]
    tables.write(tables.frame(rows, COLUMNS), tsv, parquet)


def rows_of(name: str, file: PeopleFile, ours: Ours) -> Iterator[dict[str, Any]]:
    """The rows of one file, in its order."""
    about: dict[str, Any] = {"file": name, "of": file.of, "pca": file.pca, "pooling": file.pooling}
    if file.of != "probe":
        about["distance"] = file.distance
    beside = _beside(file, ours)
    for key, cells in _published(file):
        row = {**about, **dict(zip(("source", "model", "module"), key, strict=True)), **cells}
        is_ours = file.of != "probe" or _is_our_probe(row, ours.settings["probe"])
        for each in (beside.get(key) if is_ours else None) or [{"here": None}]:
            yield {**row, **each, "difference": None if each["here"] is None else each["here"] - row["accuracy"]}


def _published(file: PeopleFile) -> Iterator[tuple[Key, dict[str, Any]]]:
    if file.of == "probe":
        for result in layout.read_probes(file.path):
            cells = asdict(result)
            yield (cells.pop("source"), cells.pop("model"), cells.pop("module")), cells
        return
    for key, accuracy in layout.read_accuracies(file.path).items():
        yield key, {"accuracy": accuracy}


def _is_our_probe(row: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a published probe has the settings of the study, as far as its row says them; a grid has none."""
    said = ["pca", *(key for key in _OF_PROBES if row[key] is not None)]
    return all(settings[key] in (row[key], [row[key]]) for key in said)


def _beside(file: PeopleFile, ours: Ours) -> dict[Key, list[dict[str, Any]]]:
    """Published name of a layer -> its accuracies in the study, of the settings of a file."""
    found: dict[Key, list[dict[str, Any]]] = {}
    for row in _reduced(file, ours) if file.of == "reduction" else _of_layers(file, ours):
        name = ours.names.get(row["bundle"])
        if name is not None:
            key = name["source"], name["model"], name["modules"][row["layer"]]
            found.setdefault(key, []).append(row)
    return found


def _of_layers(file: PeopleFile, ours: Ours) -> Iterator[dict[str, Any]]:
    if ours.human is None or (file.of == "odd_one_out" and not _is_our_choice(file, ours, pca=ours.settings["pca"])):
        return
    # the published rule of ties; after a probe that of the study
    column = {"odd_one_out": "published", "probe": "after"}[file.of]
    for row in ours.human[ours.human[column].notna()].to_dict("records"):
        yield {**{str(key): row[key] for key in (*_PLACE, "layer", "miniature")}, "here": row[column]}


def _reduced(file: PeopleFile, ours: Ours) -> Iterator[dict[str, Any]]:
    if not _is_our_choice(file, ours, pca=file.pca):
        return
    for place, table in ours.reductions.items():
        kept = table[table["pooling"] == file.pooling]
        if file.pca is None:
            kept = kept[kept["reduction"] == "none"]
        else:
            kept = kept[(kept["reduction"] == "pca") & (kept["dimensions"] == file.pca)]
        for layer, here in zip(kept["layer"], kept["published"], strict=True):
            yield {**dict(zip(_PLACE, place, strict=True)), "layer": layer, "here": here}


def _is_our_choice(file: PeopleFile, ours: Ours, pca: int | None) -> bool:
    return file.distance == ours.settings["distance"] and file.pca == pca


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "published_people_table"):
        given, parameters = snakemake.input, snakemake.params
        human: Sequence[str] = given.human
        published_people_table(
            {
                name: PeopleFile(**{**entry, "path": Path(entry["path"]).expanduser()})
                for name, entry in parameters.files.items()
            },
            Ours(
                parameters.names,
                parameters.settings,
                pd.read_parquet(human[0]) if human else None,
                {
                    (dataset, condition, bundle): pd.read_parquet(path)
                    for (dataset, condition, bundle), path in zip(parameters.reductions, given.reductions, strict=True)
                },
            ),
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
