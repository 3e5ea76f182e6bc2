"""Odd-one-out accuracies that others published, in a table beside those of the study."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_pickled_frames import published_frame
from test_study import mistakes

from diffalign.io.headers import StoreError
from published_people_table import Ours, PeopleFile, published_people_table

SD1, SD2 = "diffusion_runwayml/stable-diffusion-v1-5_20", "diffusion_stabilityai/stable-diffusion-2-1_20"
UP1 = "up_blocks.1.resnets.1"
MODULES = {"mid": "mid_block", "up1": UP1}
NAMES = {
    "sd1-s20-label": {"source": "diffusion", "model": f"conditional-{SD1}", "modules": MODULES},
    "sd2-s20": {"source": "diffusion", "model": SD2, "modules": MODULES},
}
PROBE = {
    "pca": None,
    "regularisation": [0.1],
    "optimizer": "adam",
    "learning_rate": [0.0001],
    "folds": 3,
    "bias": True,
}
SETTINGS = {"distance": "cosine", "pca": None, "probe": PROBE}


def human(**changes: Any) -> pd.DataFrame:
    """The columns of results/tables/human.parquet that are read."""
    rows = [
        ("things", "clean", bundle, layer, (40 + i) / 100, (50 + i) / 100)
        for i, (bundle, layer) in enumerate((b, layer) for b in (*NAMES, "dinov2") for layer in MODULES)
    ]
    table = pd.DataFrame(rows, columns=["dataset", "condition", "bundle", "layer", "published", "after"])
    return table.assign(miniature=False, **changes)


def reductions() -> dict[tuple[str, str, str], pd.DataFrame]:
    rows = [
        *(("mid", "mean", "none", 4, 0.41), ("mid", "none", "none", 64, 0.43)),
        *(("mid", "none", "pca", 20, 0.44), ("mid", "mean", "pca", 20, 0.99), ("mid", "none", "pca", 64, 0.45)),
    ]
    table = pd.DataFrame(rows, columns=["layer", "pooling", "reduction", "dimensions", "published"])
    return {("things", "clean", "sd2-s20"): table}


def beside(path: Path, settings: Any = SETTINGS, table: pd.DataFrame | None = None, **entry: Any) -> pd.DataFrame:
    of: dict[str, Any] = {"of": "odd_one_out", "distance": "cosine", "pca": None, "pooling": None, **entry}
    ours = Ours(NAMES, settings, human() if table is None else table, reductions())
    files = (path.parent / "x.tsv", path.parent / "x.parquet")
    published_people_table({"theirs": PeopleFile(path, **of)}, ours, *files)
    return pd.read_parquet(files[1])


def pickled(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def accuracies(folder: Path) -> Path:
    modules = {"mid_block": 0.3512, UP1: np.float64(0.25)}
    return pickled(
        folder / "alignment.pkl",
        {
            "diffusion": {f"conditional-{SD1}": modules, SD2: {"mid_block": 0.5}, f"{SD1}+{SD2}": {"mid_block": 0.6}},
            "custom": {"dinov2": {"mid_block": 0.7}},
        },
    )


def test_an_accuracy_stands_beside_that_of_the_same_model_and_module(tmp_path: Path) -> None:
    rows = beside(accuracies(tmp_path))
    assert rows["accuracy"].tolist() == [0.3512, 0.25, 0.5, 0.6, 0.7]
    assert rows[["file", "of", "source", "distance"]].drop_duplicates().to_numpy().tolist() == [
        ["theirs", "odd_one_out", "diffusion", "cosine"],
        ["theirs", "odd_one_out", "custom", "cosine"],
    ]
    found = rows[["dataset", "condition", "bundle", "layer", "here"]].head(3).to_numpy().tolist()
    assert found == [
        ["things", "clean", "sd1-s20-label", "mid", 0.4],
        ["things", "clean", "sd1-s20-label", "up1", 0.41],
        ["things", "clean", "sd2-s20", "mid", 0.42],
    ]
    assert rows["difference"].head(3).tolist() == pytest.approx([0.0488, 0.16, -0.08])
    # stacked models, and a model whose module is another
    assert rows.loc[3:, ["bundle", "layer", "here", "difference", "miniature"]].isna().all(axis=None)


def test_a_layer_of_several_data_sets_has_a_row_each(tmp_path: Path) -> None:
    table = pd.concat([human(), human(dataset="others", published=0.9)])
    rows = beside(accuracies(tmp_path), table=table)
    assert rows[["dataset", "here"]].head(2).to_numpy().tolist() == [["things", 0.4], ["others", 0.9]]
    assert len(rows) == 5 + 3


@pytest.mark.parametrize(
    ("settings", "entry"),
    [
        (SETTINGS, {"distance": "dot"}),
        (SETTINGS, {"pca": 20}),
        ({**SETTINGS, "distance": "euclidean"}, {}),
        ({**SETTINGS, "pca": 20}, {}),
    ],
)
def test_accuracies_of_other_settings_do_not_stand_beside_each_other(
    settings: Any, entry: dict[str, Any], tmp_path: Path
) -> None:
    rows = beside(accuracies(tmp_path), settings, **entry)
    assert len(rows) == 5
    assert rows["here"].isna().all()


def test_accuracies_of_equal_settings_do(tmp_path: Path) -> None:
    same = {**SETTINGS, "distance": "dot", "pca": 20}
    assert beside(accuracies(tmp_path), same, distance="dot", pca=20)["here"].notna().sum() == 3


@pytest.mark.parametrize(
    ("pooling", "pca", "here"), [("mean", None, 0.41), ("none", None, 0.43), ("none", 20, 0.44), ("max", None, None)]
)
def test_reductions_by_pooling_and_components(
    pooling: str, pca: int | None, here: float | None, tmp_path: Path
) -> None:
    path = pickled(tmp_path / "results_pca_20.npy", {"diffusion": {SD2: {"mid_block": 0.4, UP1: 0.3}}})
    first, second = beside(path, of="reduction", pooling=pooling, pca=pca).to_dict("records")
    assert (first["pooling"], first["accuracy"]) == (pooling, 0.4)
    assert (None if np.isnan(first["here"]) else first["here"]) == here
    assert np.isnan(second["here"])
    assert beside(path, of="reduction", pooling="none", distance="dot")["here"].isna().all()


def test_probes_of_the_settings_of_the_study(tmp_path: Path) -> None:
    path = tmp_path / "probing_results.pkl"
    published_frame().to_pickle(path)
    rows = beside(path, of="probe")
    assert rows["accuracy"].tolist() == [0.51, 0.43, 0.34]
    assert rows["cross_entropy"].tolist() == [1.05, 1.125, 1.25]
    assert rows.loc[0, ["regularisation", "optimizer", "learning_rate", "folds", "bias"]].tolist() == [
        *(0.1, "adam", 1e-4, 3, True)
    ]
    assert rows[["bundle", "layer", "here"]].head(2).to_numpy().tolist() == [
        ["sd1-s20-label", "mid", 0.5],
        ["sd2-s20", "up1", 0.53],
    ]
    assert rows["distance"].isna().all()
    assert np.isnan(rows.loc[2, "here"])
    for change in ({"regularisation": [0.1, 1.0]}, {"folds": 5}, {"bias": False}, {"optimizer": "sgd"}, {"pca": 8}):
        assert beside(path, {**SETTINGS, "probe": {**PROBE, **change}}, of="probe")["here"].isna().all()
    # of components, which the file's own name says
    assert beside(path, {**SETTINGS, "probe": {**PROBE, "pca": 8}}, of="probe", pca=8)["here"].notna().sum() == 2


def test_a_study_without_a_probe_has_none_beside_it(tmp_path: Path) -> None:
    published_frame().to_pickle(tmp_path / "a.pkl")
    assert beside(tmp_path / "a.pkl", table=human(after=np.nan), of="probe")["here"].isna().all()


def test_nothing_is_written_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for of in ("odd_one_out", "probe"):
        with pytest.raises(StoreError, match="a.pkl"):
            beside(pickled(tmp_path / "a.pkl", {"diffusion": 3}), of=of)
        with pytest.raises(FileNotFoundError, match="absent.pkl"):
            beside(tmp_path / "absent.pkl", of=of)
    assert not (tmp_path / "x.tsv").exists()


def test_mistakes_of_the_section() -> None:
    def found(human: Any = None, **entry: Any) -> str:
        config = {"exchange": {"people": {"theirs": {"path": "a.pkl", **entry}}}}
        return mistakes({**config, "human": human or {"datasets": ["things"], "triplets": "test"}})

    assert "exchange.people.theirs.pooling: is missing" in found(of="reduction")
    assert "exchange.people.theirs.pooling: is of reduction, not of probe" in found(of="probe", pooling="mean")
    assert "exchange.people.theirs.distance: is of odd_one_out and reduction" in found(of="probe", distance="dot")
    assert "exchange.people.theirs.of: 'probes' is not allowed; did you mean 'probe'?" in found(of="probes")
    assert "exchange.people: no accuracy of the study stands beside them" in found({"datasets": []}, of="probe")
