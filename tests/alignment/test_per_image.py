"""What each image adds to an alignment: against definitions, and as files."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, write_neighbors
from matplotlib import pyplot as plt
from PIL import Image as Picture

import gallery_figure
from diffalign.alignment import measure
from diffalign.alignment.per_image import agreement, extremes, per_image, same_label
from diffalign.alignment.preparation import unit_rows
from diffalign.alignment.search import exact
from diffalign.alignment.search.exact import Neighbors, nearest_neighbors
from diffalign.alignment.settings import Preparation
from diffalign.alignment.ties import determined, first
from diffalign.io import sides
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, print_manifest
from diffalign.io.prepared_features import preparation_settings
from diffalign.io.recipes import Where
from per_image import per_image as write_per_image

COUNT, K = 40, 5
NAMES = tuple(f"n{i:02d}" for i in range(COUNT))
RNG = np.random.default_rng(0)
A = RNG.standard_normal((COUNT, 6))
B = A + RNG.standard_normal((COUNT, 6))
SIDE = {
    "bundle": "left",
    "model": {"name": "left"},
    "noise": None,
    "conditioning": None,
    "autoencoder": None,
    "autoencoder_weights": None,
    "images": {"dataset": "theirs", "kind": "folder", "size": 8, "seed": 0, "manifest_sha256": ""},
    "code": "",
    "pooling": "mean",
    "weights": {"format": 1, "source": "hub", "sha256": {}},
    "torch": "",
    "modules": {"b0": "blocks.0"},
    "spreads": {"b0": 1.0},
}


def lists(features: np.ndarray, k: int = K) -> Neighbors:
    return nearest_neighbors(unit_rows(features, NAMES), k)


def write_lists(path: Path, features: np.ndarray) -> sides.Files:
    settings = {**preparation_settings(Preparation()), "k_max": COUNT - 1, "bounds": {}}
    write_neighbors(path, NAMES, {"b0": lists(features, COUNT - 1)}, settings, SIDE)
    return sides.Files(path)


def settings(tmp_path: Path) -> Path:
    path = tmp_path / "alignment.json"
    path.write_text(json.dumps({"k": K, "eps": 0, "rbf_sigma": 1}))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[sides.Files, sides.Files]:
    return write_lists(tmp_path / "a.npz", A), write_lists(tmp_path / "b.npz", B)


def test_every_column_is_its_definition() -> None:
    a, b = lists(A), lists(B)
    columns = per_image(a, b, K)
    own, other = ([set(side.indices[i].tolist()) for i in range(COUNT)] for side in (a, b))
    shared = [own[i] & other[i] for i in range(COUNT)]
    assert columns.shared.tolist() == [len(s) for s in shared]
    for i in range(COUNT):
        assert set(columns.neighbors_a[i][columns.is_shared_a[i]].tolist()) == shared[i]
        assert set(columns.neighbors_b[i][columns.is_shared_b[i]].tolist()) == shared[i]
        mutual = [j for j in shared[i] if i in shared[j]]
        expected = len(mutual) / len(shared[i]) if shared[i] else np.nan
        assert columns.reciprocal[i] == pytest.approx(expected, nan_ok=True)
        assert columns.in_degree_a[i] == sum(i in s for s in own)
        assert columns.in_degree_b[i] == sum(i in s for s in other)
    assert np.array_equal(columns.is_nearest_shared, a.indices[:, 0] == b.indices[:, 0])
    assert columns.similarity_b == pytest.approx(b.similarities.mean(axis=1))
    assert 0 < columns.shared.sum() < COUNT * K


def test_the_mean_overlap_is_mutual_knn() -> None:
    columns = per_image(lists(A), lists(B), K)
    score = measure("mutual_knn", A, B, k=K).value
    assert columns.shared.sum() / (COUNT * K) == score
    assert columns.overlap.mean() == pytest.approx(score, abs=1e-15)


def test_longer_lists_are_cut_to_k_and_shorter_ones_refused() -> None:
    long, short = per_image(lists(A, 12), lists(B, 12), K), per_image(lists(A), lists(B), K)
    assert np.array_equal(long.overlap, short.overlap)
    with pytest.raises(ValueError, match="k = 6 is more than the 5 neighbours that the lists hold"):
        per_image(lists(A), lists(B), 6)


def test_shares_of_a_label_are_counted_among_what_counts() -> None:
    neighbors = np.array([[1, 2], [0, 2], [0, 1]], np.int32)
    labels = ["cat", "cat", ""]
    assert same_label(neighbors, labels) == pytest.approx([0.5, 0.5, np.nan], nan_ok=True)
    counted = np.array([[True, False], [False, False], [True, True]])
    assert same_label(neighbors, labels, counted) == pytest.approx([1, np.nan, np.nan], nan_ok=True)


def test_agreement_is_the_mean_overlap_over_all_depths() -> None:
    long = lists(A, 12), lists(B, 12)
    by_hand = np.mean([per_image(*long, depth).overlap for depth in range(1, 13)], axis=0)
    assert agreement(*long) == pytest.approx(by_hand, abs=1e-12)
    # the shorter list counts
    assert agreement(lists(A, 12), lists(B, 7)) == pytest.approx(agreement(lists(A, 7), lists(B, 7)), abs=1e-12)
    assert agreement(long[0], long[0]) == pytest.approx(np.ones(COUNT))


def test_agreement_ends_where_ties_are_not_all_known(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.eye(4, dtype=np.float32)[np.arange(COUNT) % 4]
    # of a class nine others; the thirty of other classes are equally similar, and too many to be kept
    whole = lists(features, 12)
    monkeypatch.setattr(exact, "_FURTHER", COUNT * 5)
    short = lists(features, 12)
    assert (determined(whole), determined(short), determined(lists(A, 12))) == (12, 9, 12)
    assert agreement(short, lists(A, 12)) == pytest.approx(agreement(first(whole, 9), lists(A, 9)))
    agreed = agreement(short, short)
    # both sides break ties on their own
    assert agreed.max() < 1
    assert agreed.mean() == pytest.approx(0.5 + 0.5 / 9, abs=0.06)


def test_extremes_are_disjoint_and_ordered_by_the_finer_measure_where_overlap_ties() -> None:
    names = ["d", "b", "c", "a", "e", "f", "g", "h", "i"]
    ranked = extremes(np.arange(9) / 9, np.zeros(9), names, 3, 0)
    assert ranked == {"most": [8, 7, 6], "median": [3, 4, 5], "least": [0, 1, 2]}
    finer = np.array([0.5, 0.1, 0.9, 0.3, 0.2, 0.8, 0.7, 0.4, 0.6])
    tied = extremes(np.zeros(9), finer, names, 2, 0)
    assert (tied["most"], tied["least"]) == ([2, 5], [1, 4])
    assert set(tied["median"]) <= {0, 7, 8}
    # overlap comes first
    assert extremes(np.eye(9)[1], finer, names, 1, 0)["most"] == [1]
    few = extremes(np.arange(4) / 4, np.zeros(4), names[:4], 3, 0)
    assert few == {"most": [3, 2, 1], "median": [], "least": [0]}


def test_what_is_tied_in_all_is_drawn_by_lot_and_not_by_name_or_order() -> None:
    names = [f"n{i:02d}" for i in range(40)]
    zeros = np.zeros(40)

    def drawn(order: list[int], seed: int) -> dict[str, list[str]]:
        chosen = extremes(zeros, zeros, [names[i] for i in order], 3, seed)
        return {kind: [names[order[i]] for i in members] for kind, members in chosen.items()}

    first = drawn(list(range(40)), 0)
    assert drawn(list(range(39, -1, -1)), 0) == first
    assert drawn(list(range(40)), 1) != first
    # the first names are not the most aligned of every seed
    assert len({drawn(list(range(40)), seed)["most"][0] for seed in range(20)}) > 10


def manifest(path: Path, names: tuple[str, ...]) -> Path:
    images = [Image(name, f"class{i % 2}", i % 2, "", "", "", "") for i, name in enumerate(names)]
    path.write_text(print_manifest(images))
    return path


def test_the_table_and_its_recipe(files: tuple[sides.Files, sides.Files], tmp_path: Path) -> None:
    table, recipe = tmp_path / "t.parquet", tmp_path / "t.json"
    where = Where("theirs", "clean")
    listed = manifest(tmp_path / "manifest.tsv", (*NAMES, "n99"))
    write_per_image(files, ("b0", "b0"), settings(tmp_path), listed, where, table, recipe)
    frame = pd.read_parquet(table)
    assert frame["name"].tolist() == list(NAMES)
    assert frame["label"].tolist() == [f"class{i % 2}" for i in range(COUNT)]
    assert frame["same_label_a"].between(0, 1).all()
    content = json.loads(recipe.read_text())
    jsonschema.validate(content, yaml.safe_load((ROOT / "schemas" / "recipe.schema.yaml").read_text()))
    assert content["metric"] == "mutual_knn"
    assert content["value"] == frame["shared"].sum() / (COUNT * K) == measure("mutual_knn", A, B, k=K).value

    write_per_image(files, ("b0", "b0"), settings(tmp_path), None, where, table, recipe)
    bare = pd.read_parquet(table)
    assert (bare["label"] == "").all()
    assert bare["same_label_shared"].isna().all()
    assert bare["overlap"].equals(frame["overlap"])

    lacking = manifest(tmp_path / "manifest.tsv", NAMES[1:])
    with pytest.raises(StoreError, match="lacks 1 of 40 images, first: n00"):
        write_per_image(files, ("b0", "b0"), settings(tmp_path), lacking, where, table, recipe)


def test_a_gallery_is_drawn_and_a_missing_picture_is_named(
    files: tuple[sides.Files, sides.Files], tmp_path: Path
) -> None:
    folder = tmp_path / "png"
    folder.mkdir()
    for name in NAMES:
        Picture.fromarray(RNG.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / f"{name}.png")
    outputs = [tmp_path / "g.png", tmp_path / "g.pdf", tmp_path / "g.tsv", tmp_path / "g.parquet"]
    where = Where("theirs", "clean")
    gallery_figure.gallery_figure(files, ("b0", "b0"), settings(tmp_path), folder, where, 0, outputs, miniature=False)
    assert plt.imread(outputs[0]).shape[0] > 500
    before = outputs[1].read_bytes()
    gallery_figure.gallery_figure(files, ("b0", "b0"), settings(tmp_path), folder, where, 0, outputs, miniature=False)
    assert outputs[1].read_bytes() == before
    # all k neighbours of nine images, under both
    shown = pd.read_parquet(outputs[3])
    assert len(shown) == len(pd.read_csv(outputs[2], sep="\t")) == 9 * 2 * K
    compared = per_image(lists(A), lists(B), K)
    agreed = agreement(lists(A, COUNT - 1), lists(B, COUNT - 1))
    most = extremes(compared.overlap, agreed, NAMES, 3, 0)["most"][0]
    assert shown["name"].iloc[0] == NAMES[most]
    assert shown["neighbor"].iloc[:K].tolist() == [NAMES[i] for i in compared.neighbors_a[most]]
    (folder / f"{NAMES[most]}.png").unlink()
    with pytest.raises(StoreError, match=f"1 images have no PNG file, first: {NAMES[most]}"):
        gallery_figure.gallery_figure(
            files, ("b0", "b0"), settings(tmp_path), folder, where, 0, outputs, miniature=False
        )
