"""Data frames that pandas pickled, read without pandas: of which versions, and what is refused."""

import io
import math
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import golden

from diffalign.io import pickled_frames
from diffalign.io.headers import StoreError
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.layouts.diffusion_alignment import ProbeResult
from diffalign.io.pickled_frames import read_frame

COLUMNS = ["model", "probing", "cross-entropy", "module", "source", "l2_reg", "optim", "lr", "n_folds", "bias"]
ROWS = [
    ("conditional-diffusion_runwayml/stable-diffusion-v1-5_20", 0.51, 1.05, "mid_block"),
    ("diffusion_stabilityai/stable-diffusion-2-1_20", 0.43, 1.125, "up_blocks.1.resnets.1"),
    ("diffusion_stabilityai/sd-turbo_5+café_5", 0.34, 1.25, "mid_block+up_blocks.1.resnets.1"),
]
# versions of pandas that wrote the rows above as `published_frame` does
VERSIONS = ("1.2.5", "1.5.3", "2.3.2")


def published_frame() -> pd.DataFrame:
    """A table of probes, built row by row as the published script builds it."""
    table = None
    for model, accuracy, loss, module in ROWS:
        row = pd.DataFrame(index=range(1), columns=COLUMNS)
        for column, value in zip(
            COLUMNS, (model, accuracy, loss, module, "diffusion", 0.1, "adam", 1e-4, 3, True), strict=True
        ):
            row[column] = value
        table = row if table is None else pd.concat([table, row], axis=0, ignore_index=True)
    assert table is not None
    return table


def expected() -> list[ProbeResult]:
    return [
        ProbeResult("diffusion", model, module, accuracy, loss, 0.1, "adam", 1e-4, 3, True)
        for model, accuracy, loss, module in ROWS
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_tables_of_older_versions_are_read(version: str) -> None:
    assert layout.read_probes(golden(f"probing_results_pandas_{version}.pkl")) == expected()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("storage", ["pyarrow", "python", "object"])
def test_tables_of_the_installed_version_are_read(protocol: int, storage: str, tmp_path: Path) -> None:
    table = published_frame()
    text = table.select_dtypes("str").columns
    kind: Any = object if storage == "object" else pd.StringDtype(storage, na_value=np.nan)  # type: ignore[call-overload]
    table = table.astype(dict.fromkeys(text, kind))
    table.columns = table.columns.astype(kind)
    table.to_pickle(tmp_path / "a.pkl", protocol=protocol)
    assert layout.read_probes(tmp_path / "a.pkl") == expected()
    frame = read_frame(tmp_path / "a.pkl")
    assert list(frame) == COLUMNS
    assert [frame[column] for column in COLUMNS] == [table[column].tolist() for column in COLUMNS]


def test_missing_values_and_parts_of_tables(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["x", None, "yé"] * 5, "n": [1.0, np.nan, 2.0] * 5, "i": range(15), "t": [True] * 15})
    for rows in (slice(None), slice(4, 11), slice(1, None, 3), slice(0, 0)):
        table[rows].to_pickle(tmp_path / "a.pkl")
        frame = read_frame(tmp_path / "a.pkl")
        assert [value if isinstance(value, str) else None for value in frame["a"]] == (["x", None, "yé"] * 5)[rows]
        assert np.array_equal(frame["n"], table["n"][rows], equal_nan=True)
        assert (frame["i"], frame["t"]) == (list(range(15))[rows], [True] * len(range(15)[rows]))


def test_settings_that_a_file_does_not_say_are_unknown(tmp_path: Path) -> None:
    table = published_frame().drop(columns=["bias"])
    table.loc[1, "lr"] = math.nan
    table.to_pickle(tmp_path / "a.pkl")
    found = layout.read_probes(tmp_path / "a.pkl")
    assert [each.bias for each in found] == [None] * 3
    assert [each.learning_rate for each in found] == [1e-4, None, 1e-4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probing": 1.5}, "a.pkl: row 0: probing is 1.5; expected an accuracy from 0 to 1"),
        ({"probing": math.nan}, "row 0: probing is nan; expected float"),
        ({"probing": "0.5"}, "row 0: probing is '0.5'; expected float"),
        ({"probing": True}, "row 0: probing is True; expected float"),
        ({"model": 3}, "row 0: model is 3; expected str"),
        ({"n_folds": "three"}, "row 0: n_folds is 'three'; expected int"),
        ({"bias": 1}, "row 0: bias is 1; expected bool"),
    ],
)
def test_other_tables_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    published_frame().assign(**change).to_pickle(tmp_path / "a.pkl")
    with pytest.raises(StoreError, match=message):
        layout.read_probes(tmp_path / "a.pkl")


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    published_frame().drop(columns=["probing", "source"]).to_pickle(tmp_path / "a.pkl")
    with pytest.raises(StoreError, match=r"a.pkl: has no column source, probing; it has model, cross-entropy"):
        layout.read_probes(tmp_path / "a.pkl")


class Hostile:
    """An object whose unpickling runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Disguised(pickle.Pickler):
    """Writes an object as a call of a function of pandas, which a file may name, with arguments of its choice."""

    def reducer_override(self, value: Any) -> Any:
        return value.made if isinstance(value, Call) else NotImplemented


class Call:
    """A call that `Disguised` writes: function, arguments, state."""

    def __init__(self, *made: Any) -> None:
        self.made = made


def written(path: Path, content: Any) -> Path:
    file = io.BytesIO()
    Disguised(file, protocol=5).dump(content)
    path.write_bytes(file.getvalue())
    return path


def test_nothing_of_a_hostile_table_is_executed(tmp_path: Path) -> None:
    from pandas._libs.internals import _unpickle_block  # type: ignore[attr-defined]
    from pandas.core.indexes.base import _new_Index

    marker = tmp_path / "ran"
    for content in (
        pd.DataFrame({"a": [Hostile(marker)]}, dtype=object),
        Call(_unpickle_block, (Hostile(marker), slice(0, 1), 2)),
        Call(_new_Index, (pd.Index, {"data": Hostile(marker)})),
        Call(pd.read_pickle, ("x.pkl",)),
        Call(pd.eval, ("1",)),
        Call(getattr, ("pandas", "io")),
        Call(pd.DataFrame.from_records, ([],)),
    ):
        with pytest.raises(StoreError, match="which is no array; nothing of it was executed"):
            read_frame(written(tmp_path / "a.pkl", content))
    assert not marker.exists()


def test_a_file_changes_nothing_of_what_reads_it(tmp_path: Path) -> None:
    """A state may be set on whatever a file names: of classes and functions, that would outlive the file."""
    protocol, stop = b"\x80\x05", b"."
    for module, name in (("pandas", "DataFrame"), ("pandas._libs.internals", "_unpickle_block"), ("builtins", "slice")):
        named = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name)) + b"\x93"
        # BUILD with (None, {"columns": 1}), which sets an attribute
        state = b"N}\x8c\x07columnsK\x01s\x86b"
        (tmp_path / "a.pkl").write_bytes(protocol + named + state + stop)
        before = dict(vars(pickled_frames._Frame)), dict(vars(pickled_frames._Block))
        with pytest.raises(StoreError, match=r"a.pkl: cannot be read"):
            read_frame(tmp_path / "a.pkl")
        assert (dict(vars(pickled_frames._Frame)), dict(vars(pickled_frames._Block))) == before


def frame_of(values: Any, place: Any, columns: Any, rows: int) -> Any:
    """A frame of one block in the parts that pandas pickles, which may contradict each other."""
    from pandas._libs.internals import _unpickle_block  # type: ignore[attr-defined]
    from pandas.core.internals.managers import BlockManager

    labels = pd.Index(["a"] if columns is None else columns, dtype=object)
    manager = Call(BlockManager, ((Call(_unpickle_block, (values, place, 2)),), [labels, pd.RangeIndex(rows)]))
    return Call(pd.DataFrame, (), {"_mgr": manager})


@pytest.mark.parametrize(
    ("values", "place", "columns", "rows", "message"),
    [
        (np.ones((1, 2)), slice(0, 1), None, 1, "columns of different lengths"),
        (np.ones((2, 1)), slice(0, 1), None, 1, "a block of another number of columns"),
        (np.ones((1, 1)), slice(0, 1), ["a", "b"], 1, "columns without values"),
        (np.ones((1, 1)), np.array([7]), None, 1, "columns without values"),
        (np.ones((2, 1)), slice(0, 2), ["a", "a"], 1, "two columns of one name"),
        (np.ones((1, 1)), slice(0, 1), [3], 1, "columns that are not named by text"),
        (np.ones(1), slice(0, 1), None, 1, r"values of shape \(1,\)"),
        (b"text", slice(0, 1), None, 1, "a column of bytes"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    values: Any, place: Any, columns: Any, rows: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(
        StoreError, match=rf"a.pkl: cannot be read as a data frame of pandas \(its data frame has {message}"
    ):
        read_frame(written(tmp_path / "a.pkl", frame_of(values, place, columns, rows)))


def test_the_parts_of_a_table_make_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pkl", frame_of(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 0]), ["a", "b"], 2))
    assert read_frame(path) == {"a": [3.0, 4.0], "b": [1.0, 2.0]}


def test_other_pickles_are_no_tables(tmp_path: Path) -> None:
    for content, message in (
        ({"a": 1}, "cannot be read as a data frame of pandas \\(it holds dict\\)"),
        (pd.Series([1.0]), r"it holds pandas\.Series, which is no array"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "which is no array"),
        (pd.DataFrame({"a": pd.Categorical(["x"])}), "which is no array"),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)])), "which is no array"),
    ):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(StoreError, match=message):
            read_frame(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(StoreError, match="a.pkl: cannot be read"):
        read_frame(tmp_path / "a.pkl")
