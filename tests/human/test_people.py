"""Models and people from end to end: real choices, real weights, through the rules."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Workflow, read_yaml, things

from diffalign.human.odd_one_out import CHANCE

# all-MiniLM-L6-v2, means over tokens of hidden states 0 to 6, cosine
PUBLISHED = {
    "minilm": [0.3771, 0.3846, 0.3880, 0.4098, 0.4130, 0.4134, 0.4140],
    "minilm-description": [0.4478, 0.4388, 0.4356, 0.4632, 0.4736, 0.4721, 0.4991],
}


def real_choices() -> dict[str, Any]:
    """THINGS without images, its files where tests find them."""
    return {
        "concepts": {"path": str(things("things_concepts.tsv"))},
        "dimensions": {"path": str(things("vice_embedding.npy"))},
        "triplets": {"test": {"path": str(things("test_triplets.csv")), "first": 1, "odd": "column"}},
    }


def test_a_real_language_model_on_words_and_definitions_beside_people(fresh: Workflow) -> None:
    done = fresh.run(
        overlay={
            "datasets": {"things": real_choices()},
            "study": {"datasets": ["things"], "models": ["minilm"], "pairs": [], "scores": []},
            "human": {"datasets": ["things"], "models": list(PUBLISHED), "analyses": ["odd_one_out", "regression"]},
        }
    )
    assert done.code == 0, done.output
    results = fresh.directory / "results"
    for bundle, published in PUBLISHED.items():
        _check_odd_one_out(results / "odd_one_out/things/clean", bundle, published)
        _check_regression(results / "regression/things/clean", bundle)
    table = pd.read_csv(results / "tables/human.tsv", sep="\t")
    rows = table[table["is_best"]].set_index("bundle")
    assert rows["conditioning"].to_dict() == {"minilm": "caption", "minilm-description": "description"}
    assert rows["predicted"].between(rows["accuracy"], 0.64379).all()
    assert (len(table), table["gain"].notna().any(), rows["miniature"].any()) == (14, False, False)
    for figure in ("odd_one_out", "regression"):
        for suffix in ("png", "pdf"):
            assert (results / f"figures/things/clean/human/{figure}.{suffix}").stat().st_size > 10_000


def _check_odd_one_out(folder: Path, bundle: str, published: list[float]) -> None:
    table = pd.read_csv(folder / f"{bundle}.tsv", sep="\t").set_index("layer")
    assert table.index.tolist() == [f"h{i}" for i in range(7)]
    assert table["accuracy"].tolist() == pytest.approx(published, abs=0.002)
    recipe = json.loads((folder / f"{bundle}.json").read_text())
    assert recipe["features"]["weights"]["source"] == "package"
    ceilings = recipe["people"]["choices"]["ceilings"]
    assert ((table["accuracy"] > CHANCE) & (table["high"] < ceilings["leave_one_out"])).all()
    # better than chance beyond its interval, and deeper is better
    assert table.loc["h6", "low"] > CHANCE
    assert table["accuracy"].idxmax() == "h6"
    assert table.loc["h6", "nll_fitted"] < np.log(3)


def _check_regression(folder: Path, bundle: str) -> None:
    table = pd.read_csv(folder / f"{bundle}.tsv", sep="\t")
    assert len(table) == 7 * 42
    best = table.groupby("layer")["r2"].mean().max()
    assert 0.2 < best < 0.5
    layers = json.loads((folder / f"{bundle}.json").read_text())["layers"]
    # what is learned from dimensions of people predicts them better than cosines do, and no better than people
    raw = pd.read_csv(folder.parents[2] / f"odd_one_out/things/clean/{bundle}.tsv", sep="\t").set_index("layer")
    for layer, values in layers.items():
        assert raw.loc[layer, "accuracy"] < values["accuracy"] < 0.64379


def test_the_published_grid_is_planned_in_seconds(fresh: Workflow, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    study = read_yaml(ROOT / "profiles/things/study.yaml")
    study["datasets"]["things"] |= {**real_choices(), "path": str(tmp_path / "images")}
    study["human"] |= {"triplets": "test"}
    started = time.monotonic()
    jobs = fresh.plan(overlay=study).jobs()
    # 9 s of one core for 1000 jobs; a machine may be busy
    assert time.monotonic() - started < 90
    extractions = {job: count for job, count in jobs.items() if job.startswith("extract_sd")}
    assert extractions == dict.fromkeys((f"extract_{name}" for name in ("sd1", "sd2", "sd2turbo", "sd3", "sd3_5")), 33)
    bundles = 5 * 33 + 3 + 1 + 4
    assert {jobs[analysis] for analysis in ("odd_one_out", "regression", "probe")} == {bundles}
    # images are encoded once by every autoencoder, and texts once by every model
    assert (jobs["images"], jobs["noise_levels_figure"], jobs["human_table"]) == (1, 5, 1)
    assert jobs["latents"] <= 5
    assert jobs["prompts"] == 15
