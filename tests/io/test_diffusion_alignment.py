"""Files of the published code of diffusion models and people: what is read, what is refused, what its readers get."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffalign.dataset_specs import SourceFile
from diffalign.human.transforms import Transform, TransformError
from diffalign.io import bundles
from diffalign.io.headers import StoreError
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.layouts.feature_tables import read_layers
from diffalign.io.transform_files import read_transform, write_transform
from export_people import export_people
from export_probe import export_probe
from export_reduction import export_reduction

HEADER = "Word\tuniqueID\tDefinition (from WordNet, Google, or Wikipedia)\tTop-down Category (manual selection)\n"
# as in the list of concepts, which is not sorted by name
LISTED = ("chicken_wire", "chicken1", "aardvark", "bat1", "bat2")
SOURCE, MODEL = "diffusion", "conditional-diffusion_stabilityai/stable-diffusion-2-1_20"
MODULES = {"mid": "mid_block", "up1": "up_blocks.1.resnets.1"}
ROWS = {
    module: np.random.default_rng(i).standard_normal((5, 4)).astype(np.float32)
    for i, module in enumerate(MODULES.values())
}


def concepts(folder: Path) -> Path:
    path = folder / "things_concepts.tsv"
    path.write_text(HEADER + "".join(f"{name}\t{name}\t\t\n" for name in LISTED))
    return path


def by_name(values: np.ndarray) -> np.ndarray:
    return values[[LISTED.index(name) for name in sorted(LISTED)]]


def pickled(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize(
    ("representation", "expected"),
    [
        (("sd2", "s20", "uncond", False), ("diffusion", "diffusion_stabilityai/stable-diffusion-2-1_20")),
        (("sd1", "s5", "label", False), ("diffusion", "conditional-diffusion_runwayml/stable-diffusion-v1-5_5")),
        (("sd2turbo", "s90", "caption2", False), ("diffusion", "conditionalcapt2-diffusion_stabilityai/sd-turbo_90")),
        (
            ("sd2", "s1", "optimx1", False),
            ("diffusion", "conditionaloptimx1-diffusion_stabilityai/stable-diffusion-2-1_1"),
        ),
        (("sd1", None, "caption", True), ("diffusion", "textlastcapt-diffusion_runwayml/stable-diffusion-v1-5_5")),
        (("sd1", None, "optim", True), ("diffusion", "optim-diffusion_runwayml/stable-diffusion-v1-5_5")),
        (("dinov2", None, None, False), ("custom", "dinov2")),
    ],
)
def test_models_have_the_names_of_the_published_code(representation: Any, expected: tuple[str, str]) -> None:
    assert layout.published_name(*representation) == expected


def test_files_have_the_names_of_the_published_code() -> None:
    assert (
        layout.feature_file(SOURCE, MODEL, MODULES["up1"])
        == "features/diffusion-conditional-sd2_20-up_blocks_1_resnets_1.npy"
    )
    # the names of Stable Diffusion 3 are not shortened, so their files lie in a folder
    _, model = layout.published_name("sd3", "s20", "uncond", False)
    assert layout.feature_file(SOURCE, model, "transformer_blocks.8") == (
        "features/diffusion-diffusion_stabilityai/stable-diffusion-3-medium-diffusers_20-transformer_blocks_8.npy"
    )


def test_published_features_are_read_in_the_order_of_the_concepts(tmp_path: Path) -> None:
    names = str(concepts(tmp_path))
    single = pickled(tmp_path / "diffusion-sd2_20-mid_block.npy", ROWS["mid_block"])
    table = read_layers(single, layout=layout.LAYOUT, names=names)
    assert (table.names, table.layout) == (tuple(sorted(LISTED)), layout.LAYOUT)
    assert np.array_equal(table.values[0], by_name(ROWS["mid_block"]))
    together = pickled(
        tmp_path / layout.ALL_FEATURES, {SOURCE: {MODEL: ROWS, "other": {"mid_block": ROWS["mid_block"][:, :2]}}}
    )
    parts = [f"{SOURCE}/{MODEL}/{module}" for module in MODULES.values()]
    table = read_layers(together, parts, layout.LAYOUT, names)
    assert all(np.array_equal(found, by_name(rows)) for found, rows in zip(table.values, ROWS.values(), strict=True))
    with pytest.raises(StoreError, match="no layer 'mid_block'; it holds 3: diffusion/conditional"):
        read_layers(together, ["mid_block"], layout.LAYOUT, names)
    # only where they are named, and never without names
    with pytest.raises(StoreError, match="nothing of it was executed"):
        read_layers(single, names=names)
    with pytest.raises(StoreError, match="has no names, and rows are never joined by position"):
        read_layers(pickled(tmp_path / "alone.npy", ROWS["mid_block"]), layout=layout.LAYOUT)


class Hostile:
    """An object whose unpickling runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def test_hostile_and_other_pickles_are_refused(tmp_path: Path) -> None:
    hostile = pickled(tmp_path / "a.pkl", {SOURCE: {MODEL: {"mid_block": Hostile(tmp_path / "ran")}}})
    frame = tmp_path / "probing_results.pkl"
    pd.DataFrame({"probing": [0.5]}).to_pickle(frame)
    for path in (hostile, frame):
        with pytest.raises(StoreError, match="which is no array; nothing of it was executed"):
            layout.read_file(path)
        with pytest.raises(StoreError, match="which is no array; nothing of it was executed"):
            layout.read_accuracies(path)
    assert not (tmp_path / "ran").exists()
    for content, message in (
        ({SOURCE: {MODEL: 3}}, "expected dictionaries by source, model and module"),
        ({SOURCE: {MODEL: {"mid_block": [1, 2]}}}, "is a list; expected an array"),
    ):
        with pytest.raises(StoreError, match=message):
            layout.read_file(pickled(tmp_path / "b.pkl", content))
    for value in (1.5, float("nan"), "0.5"):
        with pytest.raises(StoreError, match="expected an accuracy from 0 to 1"):
            layout.read_accuracies(pickled(tmp_path / "b.pkl", {SOURCE: {MODEL: {"mid_block": value}}}))


def written(folder: Path) -> Path:
    """The features of two layers, as an extraction writes them."""
    names = tuple(sorted(LISTED))
    values = {alias: by_name(ROWS[module]) for alias, module in MODULES.items()}
    bundles.write(folder / "bundle.json", names, values.__getitem__, {"bundle": "sd2-s20-label"}, MODULES)
    return folder / "bundle.json"


def test_readers_of_the_published_code_get_the_same_arrays(tmp_path: Path) -> None:
    table = pd.DataFrame({"layer": list(MODULES), "published": [0.43218, 0.5]})
    table.to_csv(tmp_path / "ooo.tsv", sep="\t", index=False)
    source = SourceFile(str(concepts(tmp_path)))
    export_people(written(tmp_path), tmp_path / "ooo.tsv", source, SOURCE, MODEL, False, tmp_path / "out")
    # load_features and eval_alignment of that code
    for module, rows in ROWS.items():
        with (tmp_path / "out" / layout.feature_file(SOURCE, MODEL, module)).open("rb") as file:
            assert np.array_equal(pickle.load(file), rows)
    together = np.load(tmp_path / "out" / layout.ALL_FEATURES, allow_pickle=True)
    assert np.array_equal(together[SOURCE][MODEL]["mid_block"], ROWS["mid_block"])
    assert np.load(tmp_path / "out/alignment.pkl", allow_pickle=True)[SOURCE][MODEL]["mid_block"] == 0.4322
    # and ours
    keys = [(SOURCE, MODEL, module) for module in MODULES.values()]
    assert layout.read_accuracies(tmp_path / "out/alignment.pkl") == dict(zip(keys, (0.4322, 0.5), strict=True))
    table = read_layers(
        tmp_path / "out" / layout.ALL_FEATURES, [f"{SOURCE}/{MODEL}/mid_block"], layout.LAYOUT, source.path
    )
    assert np.array_equal(table.values[0], by_name(ROWS["mid_block"]))
    assert json.loads((tmp_path / "out/recipe.json").read_text())["bundle"] == "sd2-s20-label"


def test_reductions_are_those_of_the_published_files(tmp_path: Path) -> None:
    rows = [
        *(("mid", "mean", "none", 4, 0.41), ("mid", "max", "none", 4, 0.42), ("mid", "none", "none", 64, 0.43)),
        *(("mid", "none", "pca", 20, 0.44), ("mid", "mean", "pca", 20, 0.99), ("up1", "none", "pca", 20, 0.45)),
    ]
    table = pd.DataFrame(rows, columns=["layer", "pooling", "reduction", "dimensions", "published"])
    table.to_csv(tmp_path / "r.tsv", sep="\t", index=False)
    export_reduction(tmp_path / "r.tsv", MODULES, SOURCE, MODEL, tmp_path / "out")
    found = {
        str(path.relative_to(tmp_path / "out")): layout.read_accuracies(path)
        for path in (tmp_path / "out").rglob("*.npy")
    }
    assert found == {
        "reduced_avg/results_avg_None.npy": {(SOURCE, MODEL, "mid_block"): 0.41},
        "reduced_max/results_max_None.npy": {(SOURCE, MODEL, "mid_block"): 0.42},
        "reduced_none/results_none_None.npy": {(SOURCE, MODEL, "mid_block"): 0.43},
        "reduced_pca/results_pca_20.npy": {(SOURCE, MODEL, "mid_block"): 0.44, (SOURCE, MODEL, MODULES["up1"]): 0.45},
    }


def test_a_published_transform_does_what_a_probe_does(tmp_path: Path) -> None:
    draws = np.random.default_rng(3)
    bias = draws.standard_normal(4).astype(np.float32)
    for alias in MODULES:
        for fold in range(3):
            weights = draws.standard_normal((4, 4)).astype(np.float32)
            (tmp_path / "probe" / alias).mkdir(parents=True, exist_ok=True)
            write_transform(tmp_path / "probe" / alias / f"fold{fold}.npz", Transform(weights, bias, 0.3, 1.7))
    probed = {"layer": list(MODULES), "after": [0.5, 0.6], "regularisation": ["0.1 0.1 0.1"] * 2}
    pd.DataFrame({**probed, "learning_rate": ["0.0001 0.0001 0.0001"] * 2}).to_csv(tmp_path / "p.tsv", sep="\t")
    plan = {"folds": 3, "schedule": {"optimizer": "adam", "bias": True}}
    (tmp_path / "p.json").write_text(json.dumps({"plan": plan}))
    files = (tmp_path / "p.tsv", tmp_path / "p.json", tmp_path / "probe")
    export_probe(written(tmp_path), *files, SOURCE, MODEL, False, tmp_path / "results")
    for alias, module in MODULES.items():
        path = tmp_path / "results" / SOURCE / MODEL / module / "3/0.1/adam/0.0001/transform.npy"
        rows = ROWS[module].astype(np.float64)
        expected = read_transform(tmp_path / "probe" / alias / "fold2.npz").apply(rows)
        # transform_features of that code
        table = np.load(path)
        found = (rows - rows.mean()) / rows.std() @ table[:, :-1] + table[:, -1]
        assert np.abs(found - expected).max() < 1e-5
        assert np.abs(read_transform(path).apply(rows) - expected).max() < 1e-5
        # the same array in an archive without a name
        np.savez(tmp_path / "t.npz", table)
        assert np.array_equal(read_transform(tmp_path / "t.npz").weights, read_transform(path).weights)
    results = pd.read_csv(tmp_path / "results/probing_results.tsv", sep="\t")
    assert results["probing"].tolist() == [0.5, 0.6]
    assert results.loc[0, ["model", "module", "source", "optim", "n_folds"]].tolist() == [
        MODEL,
        "mid_block",
        SOURCE,
        "adam",
        3,
    ]
    wide = Transform(np.ones((4, 2), np.float32), None, 0.0, 1.0)
    with pytest.raises(TransformError, match="weights are 4 x 2; transform.npy holds square ones"):
        layout.published_transform(wide, ROWS["mid_block"])
