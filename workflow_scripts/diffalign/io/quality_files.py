"""Tables of the quality of samples: columns, summaries over seeds of sampling, and tables that a user gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign import names
from diffalign.alignment.intervals import of_mean
from diffalign.io.headers import FileKind, StoreError
from diffalign.offenders import first_five
from diffalign.reasons import reason

if TYPE_CHECKING:
    import pandas as pd

# the recipe of what was measured, with its summary
KIND = FileKind("a recipe of the quality of samples", 1)
# one row a seed and measure
OF_SEEDS = {
    **dict.fromkeys(("dataset", "model"), "string"),
    **dict.fromkeys(("step", "seed"), "Int64"),
    "measure": "string",
    **dict.fromkeys(("value", "reference"), "float64"),
    **dict.fromkeys(("samples", "images"), "Int64"),
    "note": "string",
}
# one row a measure of a checkpoint: the mean over seeds, and its interval
SUMMARY = {
    **dict.fromkeys(("dataset", "model"), "string"),
    "step": "Int64",
    "measure": "string",
    **dict.fromkeys(("value", "low", "high", "error", "reference"), "float64"),
    **dict.fromkeys(("seeds", "samples", "images"), "Int64"),
    "note": "string",
}
SEPARATORS = {".tsv": "\t", ".csv": ","}
_KEYS = ("model", "step")
# bytes of a table with a row a checkpoint
_LARGEST = 2**24
_SHARED = ("dataset", "model", "step", "measure", "reference", "samples", "images", "note")


def summaries(of_seeds: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of `SUMMARY`: the mean of every checkpoint and measure over seeds, and its t interval.

    The interval is over the noise that samples begin with. It holds for this trained network and these real images, and
    covers neither another training nor other real images.
    """
    for _, rows in of_seeds.groupby(["dataset", "model", "step", "measure"], sort=False, dropna=False):
        mean, interval = of_mean(rows["value"].to_numpy(dtype=np.float64))
        yield {
            **{key: rows[key].iloc[0] for key in _SHARED},
            "value": float(mean),
            "seeds": len(rows),
            **{key: float(getattr(interval, key)) for key in ("low", "high", "error")},
        }


def read_given(path: Path, dataset: str, checkpoints: Mapping[str, Sequence[int]]) -> Iterator[dict[str, Any]]:
    """Rows of `SUMMARY` of a user's table: columns ``model``, ``step`` and one a measure, one row a checkpoint.

    checkpoints: model -> its steps, those that are known. Raises StoreError that names the file for other columns,
    models or steps that are not known, checkpoints that stand twice, and cells that are empty or no finite numbers.
    """
    import pandas as pd

    if path.suffix not in SEPARATORS:
        raise StoreError(f"{path}: '{path.suffix}' is not known here; allowed: {', '.join(SEPARATORS)}")
    if not path.is_file():
        raise StoreError(f"{path}: no such file; samples.table in the configuration says where it is")
    if path.stat().st_size > _LARGEST:
        raise StoreError(f"{path}: is no table of checkpoints: it has {path.stat().st_size / 1e6:.0f} MB")
    try:
        table = pd.read_csv(path, sep=SEPARATORS[path.suffix], dtype=str, keep_default_na=False)
    except Exception as error:  # pandas has many ways to refuse a file
        raise StoreError(f"{path}: cannot be read as a table ({reason(error)})") from error
    missing = [key for key in _KEYS if key not in table.columns]
    measures = [column for column in table.columns if column not in _KEYS]
    if missing or not measures:
        wanted = ", ".join(missing) or "a measure, such as FID"
        raise StoreError(f"{path}: has columns {', '.join(table.columns)}, but not {wanted}")
    if table.empty:
        raise StoreError(f"{path}: has no rows")
    seen: set[tuple[str, int]] = set()
    for number, row in enumerate(table.to_dict("records"), 2):
        where = f"{path}, line {number}"
        model, step = row["model"], _whole(row["step"], where)
        if model not in checkpoints:
            raise StoreError(f"{where}: {names.unknown('model', model, checkpoints)}")
        if step not in checkpoints[model]:
            steps = first_five([str(each) for each in checkpoints[model]])
            raise StoreError(f"{where}: {model} has no step {step}; its steps: {steps}")
        if (model, step) in seen:
            raise StoreError(f"{where}: step {step} of {model} stands twice")
        seen.add((model, step))
        for measure in measures:
            value = _finite(row[measure], f"{where}, {measure}")
            shared = {"dataset": dataset, "model": model, "step": step, "measure": measure, "value": value}
            yield {**shared, "note": f"from {path.name}"}


def _whole(cell: str, where: str) -> int:
    if not cell.isascii() or not cell.isdigit():
        raise StoreError(f"{where}: step '{cell}' is no whole number")
    return int(cell)


def _finite(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise StoreError(f"{where}: '{cell}' is no finite number")
    return value
