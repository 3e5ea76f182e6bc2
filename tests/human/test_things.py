"""THINGS as a data set, and models compared with people on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Workflow, things
from PIL import Image
from sklearn.model_selection import KFold

from diffalign.dataset_specs import SourceFile, TripletFile
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.transforms import Transform
from diffalign.human.triplets import TripletError, Triplets, read_triplets
from diffalign.io import bundles
from diffalign.io.feature_files import read_bundle
from diffalign.io.headers import StoreError
from diffalign.io.human_files import layer_of, ordered, read_people, write_people
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.layouts.feature_tables import read_layers
from diffalign.io.manifest import read_manifest
from diffalign.io.transform_files import read_transform, write_transform
from diffalign.provenance import file_sha256
from diffalign.stimuli.kinds.things import concept_images, read_concepts, verified
from human_choices import human_choices

HEADER = "Word\tuniqueID\tDefinition (from WordNet, Google, or Wikipedia)\tTop-down Category (manual selection)\n"


def study(tmp_path: Path, **human: Any) -> dict[str, Any]:
    """A study of VICE's own dimensions, and of these with noise, on the real choices."""
    vice = np.load(things("vice_embedding.npy"))
    names = [concept.name for concept in read_concepts(things("things_concepts.tsv"))]
    # in another order than that of the concepts, as files of other people are
    order = np.random.default_rng(0).permutation(1854)
    noisy = vice + 0.3 * np.random.default_rng(1).standard_normal(vice.shape).astype(np.float32)
    np.savez(
        tmp_path / "vice.npz", vice=vice[order], noisy=noisy[order], names=np.array(names)[order], allow_pickle=False
    )
    return {
        "datasets": {
            "things": {
                "concepts": {"path": str(things("things_concepts.tsv"))},
                "dimensions": {"path": str(things("vice_embedding.npy"))},
                "triplets": {"test": {"path": str(things("test_triplets.csv")), "first": 1, "odd": "column"}},
            }
        },
        "models": {
            "vice": {
                "family": "precomputed",
                "features": {"path": str(tmp_path / "vice.npz")},
                "layers": {"b0": "noisy", "b1": "vice"},
                "default_layer": "b1",
            }
        },
        "study": {"datasets": ["photographs"], "models": ["vice"], "pairs": [], "scores": []},
        "human": {"datasets": ["things"], **human},
    }


def test_real_choices_and_features_in_another_order_meet_by_name(fresh: Workflow, tmp_path: Path) -> None:
    asked = {"max_epochs": 3, "learning_rate": [0.001, 0.01]}
    overlay = study(tmp_path, distance="dot", analyses=["odd_one_out", "regression", "probe"], probe=asked)
    done = fresh.run(overlay=overlay)
    assert done.code == 0, done.output
    folder = fresh.directory / "results/odd_one_out/things/clean"
    table = pd.read_csv(folder / "vice.tsv", sep="\t").set_index("layer")
    assert table["accuracy"].to_dict() == {"b0": pytest.approx(0.55, abs=0.02), "b1": pytest.approx(0.63565)}
    assert table.loc["b1", "nll"] == pytest.approx(0.83652, abs=5e-6)
    assert table.loc["b1", "error_both"] > table.loc["b1", "error_people"] > table.loc["b1", "error_triplets"]
    recipe = json.loads((folder / "vice.json").read_text())
    assert recipe["people"]["choices"]["ceilings"]["majority"] == pytest.approx(0.67221, abs=5e-6)
    assert recipe["people"]["choices"]["people"] == 325
    assert recipe["people"]["triplets"]["sha256"].startswith("f2593378")
    with np.load(folder / "vice.npz") as file:
        assert file["closest"].shape == (2, 20000)
        assert file["objects"].shape == (2, 1854)
        assert file["layers"].tolist() == ["b0", "b1"]
        food = file["category_names"].tolist().index("food")
        assert 1 / 3 < file["categories"][1, food] < 1
    _check_regression(fresh.directory / "results/regression/things/clean")
    _check_probe(fresh.directory / "results/probe/things/clean")
    for figure in ("odd_one_out", "regression", "probe"):
        assert (fresh.directory / f"results/figures/things/clean/human/{figure}.png").stat().st_size > 10_000
    _check_table(fresh.directory / "results/tables/human")
    _check_exports(fresh, overlay)
    # a change of λ reruns the probe and what shows it, and nothing else
    plan = {**overlay["human"]["probe"], "regularisation": [0.1]}
    again = fresh.plan(overlay={**overlay, "human": {**overlay["human"], "probe": plan}})
    assert again.jobs() == {"probe": 1, "probe_figure": 1, "human_table": 1, "all": 1}


def _check_exports(workflow: Workflow, overlay: dict[str, Any]) -> None:
    """The files of the published code: its definition of the accuracy on our features gives our number."""
    folder = "results/export/diffusion-alignment/things/clean/vice"
    done = workflow.run(f"{folder}/alignment.pkl", f"{folder}/results", overlay=overlay)
    assert done.code == 0, done.output
    names = str(things("things_concepts.tsv"))
    parts = ["custom/vice/noisy", "custom/vice/vice"]
    together = workflow.directory / folder / layout.ALL_FEATURES
    table = read_layers(together, parts, layout.LAYOUT, names)
    listed = [concept.name for concept in read_concepts(Path(names))]
    rows = dict(zip(table.names, table.values[1], strict=True))
    assert np.array_equal(np.stack([rows[name] for name in listed]), np.load(things("vice_embedding.npy")))
    accuracies = layout.read_accuracies(workflow.directory / folder / layout.ALIGNMENT)
    people = read_triplets(things("test_triplets.csv"), 1854, first=1, odd="column")
    # four places are written
    expected = accuracy_of_a_loop(np.load(things("vice_embedding.npy")), people.objects)
    assert accuracies["custom", "vice", "vice"] == pytest.approx(expected, abs=5.1e-5)
    path = workflow.directory / folder / "results/custom/vice/vice/3/0.001/adam"
    assert [np.load(file).shape for file in path.rglob("transform.npy")] == [(42, 43)]


def accuracy_of_a_loop(features: np.ndarray, triplets: np.ndarray) -> float:
    """As the published code has it, choice by choice: the first of the most similar pairs is the one that is kept
    together, the odd one is the third, and three equal pairs are no choice.
    """
    right = 0
    for first, second, odd in triplets.tolist():
        a, b, c = features[[first, second, odd]].astype(np.float64)
        similarities = [a @ b, a @ c, b @ c]
        right += int(np.argmax(similarities)) == 0 and len(set(similarities)) > 1
    return right / len(triplets)


def _check_table(stem: Path) -> None:
    table = pd.read_csv(stem.with_suffix(".tsv"), sep="\t").set_index("layer")
    read = pd.read_parquet(stem.with_suffix(".parquet")).set_index("layer")
    assert list(read.columns) == list(table.columns)
    assert read["accuracy"].tolist() == pytest.approx(table["accuracy"].tolist())
    b1 = table.loc["b1"]
    assert (b1["bundle"], b1["depth"], b1["is_best"], b1["is_default"], b1["is_baseline"]) == ("vice", 1, 1, 1, 0)
    assert [b1["accuracy"], b1["nll"]] == pytest.approx([0.63565, 0.83652], abs=5e-6)
    assert [b1["chance"], b1["leave_one_out"], b1["majority"]] == pytest.approx([1 / 3, 0.64379, 0.67221], abs=5e-6)
    # the published bounds over triplets; those over people lie in the same distance from the mean as their error says
    assert [b1["low_triplets"], b1["high_triplets"]] == pytest.approx([0.622, 0.649], abs=0.001)
    assert b1["high"] - b1["low"] == pytest.approx(2 * 1.96 * b1["error_both"], rel=0.01)
    # b1 is far better than b0: it is chosen for every triplet
    assert (b1["best_layer"], b1["best_share"]) == ("b1", 1)
    assert b1["best"] == pytest.approx(b1["accuracy"])
    assert b1["high_people"] - b1["low_people"] == pytest.approx(2 * 1.96 * b1["error_people"], rel=0.05)
    assert b1["error_people"] == pytest.approx(0.0096, abs=2e-4)
    results = stem.parents[1]
    for analysis, columns in (
        ("regression", {"r2": "r2"}),
        ("probe", {"before": "before", "after_high": "after_high"}),
    ):
        layers = pd.read_csv(results / f"{analysis}/things/clean/vice.tsv", sep="\t").groupby("layer")
        for column, source in columns.items():
            assert table[column].to_dict() == pytest.approx(layers[source].mean().to_dict())
    recipe = json.loads((results / "regression/things/clean/vice.json").read_text())
    assert table.loc["b0", "predicted"] == pytest.approx(recipe["layers"]["b0"]["accuracy"])
    assert pd.isna(b1["t"])


def _check_regression(folder: Path) -> None:
    table = pd.read_csv(folder / "vice.tsv", sep="\t")
    assert len(table) == 2 * 42
    exact = table[table["layer"] == "b1"]
    assert exact["r2"].min() > 0.999
    assert ((table["low"] <= table["r2"]) & (table["r2"] <= table["high"])).all()
    layers = json.loads((folder / "vice.json").read_text())["layers"]
    assert layers["b1"]["accuracy"] == pytest.approx(0.63565, abs=0.001)
    assert 0.5 < layers["b0"]["accuracy"] < layers["b1"]["accuracy"]
    with np.load(folder / "vice.npz") as file:
        assert file["predictions"].shape == (2, 1854, 42)


def _check_probe(folder: Path) -> None:
    table = pd.read_csv(folder / "vice.tsv", sep="\t").set_index("layer")
    # object-disjoint folds keep few of these triplets, so this shows the mechanics alone
    assert 90 < table.loc["b1", "distinct_triplets"] < 150
    assert table.loc["b1", "gain"] == pytest.approx(table.loc["b1", "after"] - table.loc["b1", "before"])
    transforms = sorted(str(path.relative_to(folder / "vice")) for path in (folder / "vice").rglob("*.npz"))
    assert transforms == [f"{layer}/fold{fold}.npz" for layer in ("b0", "b1") for fold in range(3)]
    transform = read_transform(folder / "vice/b1/fold0.npz")
    assert (transform.weights.shape, transform.mean is not None) == ((42, 42), True)
    recipe = json.loads((folder / "vice.json").read_text())
    assert np.array(recipe["layers"]["b0"]["losses"]).shape == (3, 2)
    assert not list((folder.parents[2] / "checkpoints").rglob("*.pt"))


def test_concepts_without_images_have_words_and_definitions(fresh: Workflow, tmp_path: Path) -> None:
    done = fresh.run("results/images/things/clean/manifest.tsv", overlay=study(tmp_path))
    assert done.code == 0, done.output
    rows = {row.name: row for row in read_manifest(fresh.directory / "results/images/things/clean/manifest.tsv")}
    assert len(rows) == 1854
    assert rows["camera1"].caption == "camera"
    assert rows["camera1"].label == "camera1"
    assert rows["aardvark"].description.startswith("nocturnal burrowing mammal")


def test_layers_are_combined_transformed_and_looked_at(fresh: Workflow, tmp_path: Path) -> None:
    # a transform that leaves the first dimension alone
    kept = np.zeros((42, 42), np.float32)
    kept[0, 0] = 1
    write_transform(tmp_path / "first.npz", Transform(kept, None, 0.0, 1.0))
    combined = {
        "both": {"of": ["vice_b0", "vice"]},
        "first": {"of": ["vice"], "transform": str(tmp_path / "first.npz")},
        "wide": {"of": ["vice_b0", "vice"], "transform": str(tmp_path / "first.npz")},
    }
    asked = {"max_epochs": 2, "fold_rule": "published"}
    overlay = study(tmp_path, distance="dot", combined=combined, probe=asked, regression={"fold_rule": "published"})
    folder = "results/odd_one_out/things/clean/combined"
    figure = "results/figures/things/clean/disagreements/vice_b0.png"
    others = [f"results/{analysis}/things/clean/combined/both.tsv" for analysis in ("regression", "probe")]
    done = fresh.run(f"{folder}/both.tsv", f"{folder}/first.tsv", figure, *others, overlay=overlay)
    assert done.code == 0, done.output
    _check_stacked(fresh.directory / "results")
    accuracy = {
        name: pd.read_csv(fresh.directory / folder / f"{name}.tsv", sep="\t").set_index("layer")["accuracy"][name]
        for name in ("both", "first")
    }
    vice = np.load(things("vice_embedding.npy"))
    people = read_triplets(things("test_triplets.csv"), 1854, first=1, odd="column")
    # products of numbers of 0 or more: ties are where two of three objects have nothing of the dimension
    assert accuracy["first"] == pytest.approx(odd_one_out(vice[:, :1], people, "dot").credit().mean())
    assert 0.55 < accuracy["both"] < 0.65
    recipe = json.loads((fresh.directory / folder / "both.json").read_text())
    assert [part["layer"] for part in recipe["features"]["of"]] == ["b0", "b1"]
    assert (fresh.directory / figure).stat().st_size > 10_000
    refused = fresh.run(f"{folder}/wide.tsv", overlay=overlay)
    assert refused.code != 0
    assert "takes features of 42 dimensions, these have 84" in refused.output


def _check_stacked(results: Path) -> None:
    """Regression and probe of two layers side by side, on the published folds of the list of concepts."""
    table = pd.read_csv(results / "regression/things/clean/combined/both.tsv", sep="\t")
    assert (table["layer"].unique().tolist(), table["r2"].min() > 0.999) == (["both"], True)
    with np.load(results / "regression/things/clean/combined/both.npz") as file:
        fold_of = dict(zip(file["names"].tolist(), file["folds"].tolist(), strict=True))
    listed = [concept.name for concept in read_concepts(things("things_concepts.tsv"))]
    for fold, (_, held_out) in enumerate(KFold(5, shuffle=True, random_state=42).split(listed)):
        assert {listed[i] for i in held_out} == {name for name, own in fold_of.items() if own == fold}
    probed = pd.read_csv(results / "probe/things/clean/combined/both.tsv", sep="\t").set_index("layer")
    assert 90 < probed.loc["both", "distinct_triplets"] < 150
    transform = read_transform(results / "probe/things/clean/combined/both/both/fold2.npz")
    assert transform.weights.shape == (84, 84)
    recipe = json.loads((results / "probe/things/clean/combined/both.json").read_text())
    assert [part["layer"] for part in recipe["features"]["of"]] == ["b0", "b1"]
    assert recipe["plan"]["fold_rule"] == "published"
    assert not list((results / "checkpoints").rglob("*.pt"))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/odd_one_out/things/clean/combined/bath.tsv", "unknown combination 'bath'"),
        ("results/odd_one_out/photographs/clean/vice.tsv", "'photographs' is not of kind things"),
        ("results/odd_one_out/things/clean/vise.tsv", "unknown model 'vise'"),
        ("results/human_choices/things/tset.npz", "unknown triplets 'tset'"),
        ("results/prompts/things/sd1-caption.safetensors", "an object of 'things' is its word alone"),
        ("results/figures/things/clean/human/odd.png", "unknown figure 'odd'"),
    ],
)
def test_targets_that_are_not_there(fresh: Workflow, tmp_path: Path, target: str, message: str) -> None:
    done = fresh.run(target, options=["--dry-run"], overlay=study(tmp_path))
    assert done.code != 0
    assert message in done.output


def concepts(path: Path, *names: str) -> Path:
    path.write_text(HEADER + "".join(f"{name.strip('12')}\t{name}\t\tanimal, food\n" for name in names))
    return path


def test_every_concept_has_an_image(tmp_path: Path) -> None:
    objects = read_concepts(concepts(tmp_path / "c.tsv", "bat2", "ant", "bat1"))
    assert [(c.word, c.description, c.categories) for c in objects[:1]] == [("bat", "bat", ("animal", "food"))]
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("ant", "bat1", "bat2"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.jpg")
    assert [(s.name, s.label_index) for s in concept_images(folder, objects)] == [("ant", 1), ("bat1", 2), ("bat2", 0)]
    (folder / "bat1.jpg").unlink()
    with pytest.raises(StoreError, match="1 concepts have no image, first: bat1"):
        concept_images(folder, objects)
    (folder / "ant.jpg").rename(folder / "bat1.jpg")
    Image.new("RGB", (8, 8)).save(folder / "ant.jpg")
    Image.new("RGB", (8, 8)).save(folder / "cat.jpg")
    with pytest.raises(StoreError, match="1 images are of no concept, first: cat"):
        concept_images(folder, objects)


def test_files_that_are_no_concepts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c.tsv").write_text("Word\tuniqueID\nant\tant\n")
    with pytest.raises(StoreError, match="has no column Definition"):
        read_concepts(tmp_path / "c.tsv")
    with pytest.raises(StoreError, match="1 names stand more than once, first: ant"):
        read_concepts(concepts(tmp_path / "c.tsv", "ant", "ant"))
    with pytest.raises(StoreError, match="holds no concepts"):
        read_concepts(concepts(tmp_path / "c.tsv"))
    with pytest.raises(StoreError, match=r"has the sha256 \w+, but its entry in config.yaml says 0000"):
        verified(tmp_path / "c.tsv", "0" * 64)
    with pytest.raises(StoreError, match="no such file; datasets in config.yaml says"):
        verified(tmp_path / "d.tsv", None)


def test_choices_of_several_files_are_one_set(tmp_path: Path) -> None:
    source = concepts(tmp_path / "c.tsv", "cat", "ant", "bat1")
    np.save(tmp_path / "train_90.npy", np.array([[0, 1, 2], [2, 1, 0]]))
    np.save(tmp_path / "test_10.npy", np.array([[1, 2, 0]], np.float64))
    files = [str(tmp_path / "train_90.npy"), str(tmp_path / "test_10.npy")]
    digests = [file_sha256(Path(file)) for file in files]
    human_choices(SourceFile(str(source)), TripletFile(files, 0, "last"), None, tmp_path / "p.npz")
    people = read_people(tmp_path / "p.npz")
    named = [[people.names[i] for i in row] for row in people.triplets.objects]
    assert named == [["cat", "ant", "bat1"], ["bat1", "ant", "cat"], ["ant", "bat1", "cat"]]
    assert people.facts["triplets"] == {"path": files, "first": 0, "odd": "last", "sha256": digests}
    with pytest.raises(StoreError, match=r"test_10.npy: has the sha256 \w+, but its entry"):
        human_choices(
            SourceFile(str(source)), TripletFile(files, 0, "last", [digests[0], "0" * 64]), None, tmp_path / "q.npz"
        )
    np.save(tmp_path / "test_10.npy", np.array([[1, 2, 3]]))
    with pytest.raises(TripletError, match=r"test_10.npy: 1 of 1 triplets name an object outside of 0 … 2"):
        human_choices(SourceFile(str(source)), TripletFile(files, 0, "last"), None, tmp_path / "q.npz")


def test_people_are_kept_in_order_of_name(tmp_path: Path) -> None:
    listed = read_concepts(concepts(tmp_path / "c.tsv", "cat", "ant", "bat1"))
    triplets = Triplets(np.array([[0, 1, 2]], np.int32), 3, np.array([7]))
    dimensions = np.array([[0.0], [1.0], [2.0]], np.float32)
    write_people(tmp_path / "p.npz", ordered(listed, triplets, dimensions, {"a": 1}))
    people = read_people(tmp_path / "p.npz")
    assert people.names == ("ant", "bat1", "cat")
    assert [people.names[i] for i in people.triplets.objects[0]] == ["cat", "ant", "bat1"]
    assert people.dimensions is not None
    assert people.dimensions.ravel().tolist() == [1, 2, 0]
    assert people.listed.tolist() == [1, 2, 0]
    assert (people.words, people.categories, people.facts) == (("ant", "bat", "cat"), ("animal", "food"), {"a": 1})
    assert people.members.shape == (2, 3)
    with pytest.raises(StoreError, match="expected one row for each of 3 concepts"):
        ordered(listed, triplets, dimensions[:2], {})
    rows = np.zeros((3, 2), np.float32)
    bundles.write(tmp_path / "x.json", ("ant", "bat1", "dog"), lambda _: rows, {"bundle": "x"}, {"b0": "0"})
    with pytest.raises(StoreError, match=r"1 only in .*p\.npz: cat; 1 only in .*b0\.pt: dog"):
        layer_of(read_bundle(tmp_path / "x.json"), "b0", people)
    (tmp_path / "q.npz").write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot be read as a file of people's choices"):
        read_people(tmp_path / "q.npz")
