"""Scores that others published, in a table beside those of the study."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, Workflow, copy_tree
from dense_metrics import dense_mutual, unit
from test_study import mistakes

from diffalign.io.headers import StoreError
from diffalign.io.layouts import platonic
from published_scores_table import COLUMNS, ScoreFile, published_scores_table

COUNT = 30
X, Y = ["lang1", "lang2"], ["vis1", "other", "vis2"]


def published(path: Path, scores: Any, indices: Any) -> None:
    """A file as the published script writes it."""
    np.save(path, {"scores": np.array(scores, float), "indices": np.array(indices, float)}, allow_pickle=True)  # type: ignore[arg-type]


def score_file(path: Path, **changes: Any) -> ScoreFile:
    entry: dict[str, Any] = {"path": path, "metric": "mutual_knn", "k": 10, "x": X, "y": Y}
    layers = {name: ["h0", "h1"] for name in (*X, "vis1", "vis2")}
    return ScoreFile(**{**entry, "layers": layers, "bundles": {name: name for name in layers}, **changes})


def table(file: ScoreFile, folder: Path) -> pd.DataFrame:
    published_scores_table({"theirs": file}, [], ["cknna"], 10, folder / "x.tsv", folder / "x.parquet")
    return pd.read_parquet(folder / "x.parquet")


def test_rows_are_named_and_layers_are_those_of_the_study(tmp_path: Path) -> None:
    scores = [[0.1, 0.2, 0.3], [0.4, 0.0, 0.6]]
    # (y layer, x layer), and none where no score is above 0
    indices = [[[0, 1], [7, 0], [1, 0]], [[0, 0], [np.nan, np.nan], [1, 1]]]
    published(tmp_path / "mutual_knn_k10.npy", scores, indices)
    rows = table(score_file(tmp_path / "mutual_knn_k10.npy"), tmp_path)
    assert rows["score"].tolist() == np.ravel(scores).tolist()
    assert rows[["x", "y", "layer_x", "layer_y"]].head(3).to_numpy().tolist() == [
        ["lang1", "vis1", "1", "0"],
        ["lang1", "other", "0", "7"],
        ["lang1", "vis2", "0", "1"],
    ]
    assert rows.loc[4, ["layer_x", "layer_y", "here", "difference"]].isna().all()
    assert set(rows["k"]) == {10}
    assert table(score_file(tmp_path / "mutual_knn_k10.npy", metric="cka"), tmp_path)["k"].isna().all()


@pytest.mark.parametrize(
    ("scores", "indices", "message"),
    [
        ([[0.1]], [[[0, 0]]], "has 1 x 1 scores, but exchange.scores.theirs names 2 x and 3 y"),
        ([[0.1] * 3] * 2, [[[5, 0]] * 3] * 2, "the best layer of vis1 is number 5; it has 2"),
        ([[0.1, np.nan, 0.1]] * 2, [[[0, 0]] * 3] * 2, "the score at (0, 1) is NaN or infinite"),
        ([[0.1] * 3] * 2, [[[0, 0], [0, 0], [0, np.nan]]] * 2, "the layers at (0, 2) are no whole numbers"),
        ([[0.1] * 3] * 2, [[[0, 0.5]] * 3] * 2, "the layers at (0, 0) are no whole numbers of at least 0"),
    ],
)
def test_files_of_scores_that_cannot_be_trusted(scores: Any, indices: Any, message: str, tmp_path: Path) -> None:
    published(tmp_path / "x.npy", scores, indices)
    with pytest.raises(StoreError, match=re.escape(message)):
        table(score_file(tmp_path / "x.npy"), tmp_path)
    assert not (tmp_path / "x.tsv").exists()


def test_every_column_is_documented() -> None:
    section = (ROOT / "docs/layouts.md").read_text().split("published_scores.tsv")[1].split("published_people.tsv")[0]
    first_cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)] == list(COLUMNS)


def test_mistakes_of_the_section() -> None:
    entry = {"path": "x.npy", "metric": "mutal_knn", "x": ["a", "a"], "y": ["b"]}
    wrong = {
        "scores": {"theirs": entry, "others": {**entry, "x": ["a"]}},
        "exports": ["platonic"],
    }
    found = mistakes({"exchange": wrong})
    assert "exchange.scores.theirs.x: 'a' stands twice" in found
    found = mistakes({"exchange": {**wrong, "scores": {"others": wrong["scores"]["others"]}}})  # type: ignore[index]
    assert "exchange.scores.others.metric: unknown metric 'mutal_knn'; did you mean 'mutual_knn'" in found
    assert "exchange.exports: a file of scores X x Y has every model of one side" in found
    found = mistakes({"exchange": {"scores": {"theirs": {"path": "x.npy", "metric": "cka", "x": [], "y": ["b"]}}}})
    assert "exchange.scores.theirs.x:" in found


def test_a_study_beside_published_scores_and_its_own_file(tmp_path: Path) -> None:
    workflow = Workflow(copy_tree(tmp_path / "tree"), tmp_path / "work")
    workflow.directory.mkdir()
    truth = np.random.default_rng(0).standard_normal((COUNT, 6))
    feats = {}
    for i, name in enumerate(("lang1", "vis1")):
        noise = np.random.default_rng(i + 1).standard_normal((2, COUNT, 6))
        feats[name] = torch.from_numpy(np.stack([noise[0], truth + 0.5 * noise[1]], axis=1)).float()
        torch.save({"feats": feats[name]}, workflow.directory / f"{name}.pt")
    ours = dense_mutual(*(unit(feats[name][:, 1].numpy()) for name in ("vis1", "lang1")), 5)
    published(workflow.directory / "theirs.npy", [[0.25, 0.5]], [[[1, 1], [3, 0]]])
    models = {
        name: {
            "family": "precomputed",
            "features": {"path": f"{name}.pt", "layout": "platonic", "names": "rows"},
            "layers": {"h{0..1}": "{}"},
            "default_layer": "h1",
        }
        for name in feats
    }
    overlay = {
        "defaults": {"dataset": "theirs"},
        "datasets": {"theirs": {"kind": "precomputed"}},
        "models": models,
        "study": {"datasets": ["theirs"], "models": ["vis1"], "against": ["lang1"], "pairs": "all", "scores": []},
        "se_cknna": {"pairs": []},
        "alignment": {"metrics": ["mutual_knn", "unbiased_cka"]},
        "exchange": {
            "scores": {
                "theirs": {"path": "theirs.npy", "metric": "mutual_knn", "k": 5, "x": ["lang1"], "y": ["vis1", "vis9"]}
            },
            "exports": ["platonic"],
        },
    }
    written, folder = "results/tables/published_scores.tsv", "results/export/platonic/theirs/clean"
    planned = workflow.plan(overlay=overlay)
    assert planned.jobs()["export_platonic_set"] == 2
    assert {f"{folder}/mutual_knn_k5.npy", f"{folder}/unbiased_cka.npy", written} <= planned.outputs()
    done = workflow.run(written, f"{folder}/mutual_knn_k5.npy", overlay=overlay)
    assert done.code == 0, done.output
    first, second = pd.read_csv(workflow.directory / written, sep="\t").to_dict("records")
    assert (first["layer_x"], first["layer_y"], first["here_layer_x"], first["here_layer_y"]) == (1, 1, "h1", "h1")
    assert first["here"] == pytest.approx(ours, abs=1e-6)
    assert first["difference"] == pytest.approx(ours - 0.25, abs=1e-6)
    assert (second["layer_y"], str(second["here"])) == (3, "nan")
    # what the study exports is a file that it reads
    scores, indices = platonic.read_alignment(workflow.directory / folder / "mutual_knn_k5.npy")
    assert (scores.item(), indices.tolist()) == (pytest.approx(ours, abs=1e-6), [[[1, 1]]])
    published(workflow.directory / "theirs.npy", [[0.25, 0.75]], [[[1, 1], [3, 0]]])
    again = workflow.plan(written, overlay=overlay)
    assert again.jobs() == {"published_scores_table": 1}, again.output
