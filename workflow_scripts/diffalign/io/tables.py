"""How tables are written: columns in their order, with their types, as TSV and Parquet with the same rows."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffalign.alignment.calibration import false_discovery_rates
from diffalign.io.atomic import replacing
from diffalign.io.headers import StoreError

if TYPE_CHECKING:
    import pandas as pd


def frame(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of these rows. columns: name -> pandas type, which holds where no row has a value, too."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns)).astype(dict(columns))


def add_q(table: pd.DataFrame, p: str, q: str) -> None:
    """Fill a column of q-values (Benjamini-Hochberg) from one of p-values, over all rows."""
    table[q] = false_discovery_rates(table[p].to_numpy(dtype=np.float64))


def write_tsv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as tab-separated text."""
    with replacing(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.9g")


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def write(table: pd.DataFrame, tsv: Path, parquet: Path) -> None:
    """Write both files; missing values are empty in TSV."""
    write_tsv(table, tsv)
    write_parquet(table, parquet)


def has_rows(path: Path) -> bool:
    """Whether a table that `write` wrote, Parquet or TSV, has any rows."""
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_metadata

        return int(read_metadata(path).num_rows) > 0
    with path.open(encoding="utf-8") as lines:
        return len(list(itertools.islice(lines, 2))) > 1


def read_tsv(path: Path) -> pd.DataFrame:
    """A table (TSV) that `write` wrote. Only an empty cell is missing: a recipe may be called None."""
    import pandas as pd

    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=[""])


def read(path: Path, columns: Collection[str], **equal: Any) -> pd.DataFrame:
    """What `write` wrote, Parquet or TSV by the suffix, of which the rows are wanted that have these values.

    columns: those that must be there; the others come, too. Raises StoreError
    that names the file for columns that are absent, and where no row is left, with the values that there are.
    """
    import pandas as pd

    table = pd.read_parquet(path) if path.suffix == ".parquet" else read_tsv(path)
    if missing := [column for column in (*columns, *equal) if column not in table]:
        raise StoreError(f"{path}: lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table))}")
    for column, value in equal.items():
        known = ", ".join(dict.fromkeys(map(str, table[column])))
        table = table[table[column] == value]
        if table.empty:
            raise StoreError(f"{path}: no row has {column} = {value}; there is: {known or 'no row'}")
    if table.empty:
        raise StoreError(f"{path}: has no rows")
    return table
