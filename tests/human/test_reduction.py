"""Tokens before they are averaged: on disk, in blocks, pooled, reduced, beside people."""

import json
from collections import namedtuple
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Workflow
from PIL import Image
from sklearn.decomposition import PCA

from diffalign.human.choices import closest_pairs
from diffalign.human.odd_one_out import DISTANCES, Choices, odd_one_out, pair_similarities, similarities_of_products
from diffalign.human.reduction import components_of_products, pooled, products
from diffalign.human.triplets import Triplets, published_sample

OBJECTS = 24
Usage = namedtuple("Usage", "total used free")


def choices(count: int, objects: int = OBJECTS) -> Triplets:
    draws = np.random.default_rng(0)
    return Triplets(np.array([draws.permutation(objects)[:3] for _ in range(count)], np.int32), objects)


def tokens(seed: int = 0, shape: tuple[int, int, int] = (OBJECTS, 30, 11)) -> np.ndarray:
    """With a mean far from zero, which costs digits where products are not centred."""
    return (np.random.default_rng(seed).standard_normal(shape) + 20).astype(np.float32)


@pytest.mark.parametrize("distance", DISTANCES)
def test_blocks_of_columns_say_what_the_dense_rows_say(distance: str) -> None:
    flat, triplets = tokens().reshape(OBJECTS, -1), choices(500)
    dense, sizes = pair_similarities(flat, triplets, distance)
    for memory_mb in (1000, 0):
        similarities, of = similarities_of_products(products(flat, memory_mb), triplets, distance)
        np.testing.assert_allclose(similarities, dense, rtol=1e-10, atol=1e-10 * sizes.max())
        np.testing.assert_allclose(of, sizes, rtol=1e-10)
        assert np.array_equal(
            closest_pairs(triplets.objects, similarities, of), closest_pairs(triplets.objects, dense, sizes)
        )


@pytest.mark.parametrize("count", [3, 10, OBJECTS - 1])
def test_components_are_those_of_scikit_learn(count: int) -> None:
    flat, triplets = tokens().reshape(OBJECTS, -1), choices(500)
    scores = components_of_products(products(flat, 0).centred, OBJECTS)
    assert scores.shape == (OBJECTS, OBJECTS - 1)
    expected = PCA(count, svd_solver="full").fit_transform(flat.astype(np.float64))
    np.testing.assert_allclose(np.abs(scores[:, :count]), np.abs(expected), rtol=1e-8, atol=1e-8)
    # correlation depends on the signs of components, which are arbitrary: tests/config/test_study.py
    for distance in sorted(set(DISTANCES) - {"correlation"}):
        ours, theirs = (odd_one_out(rows, triplets, distance).odd for rows in (scores[:, :count], expected))
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_pooling_does_not_depend_on_blocks(dtype: type[np.floating]) -> None:
    values = tokens().astype(dtype)
    for pooling, expected in (("mean", values.astype(np.float64).mean(1)), ("max", values.max(1))):
        for memory_mb in (1000, 0):
            np.testing.assert_allclose(pooled(values, pooling, memory_mb), expected, rtol=1e-12)


def test_similarities_are_of_as_many_objects_as_triplets() -> None:
    with pytest.raises(ValueError, match="24 rows of features for 25 objects"):
        similarities_of_products(products(tokens().reshape(OBJECTS, -1), 1), choices(5, OBJECTS + 1))
    with pytest.raises(ValueError, match="unknown distance 'manhattan'; allowed: cosine"):
        similarities_of_products(products(tokens().reshape(OBJECTS, -1), 1), choices(5), "manhattan")


def test_the_published_sample_is_the_begin_of_a_permutation() -> None:
    triplets = choices(50)
    taken = published_sample(triplets, 20)
    assert np.array_equal(taken.objects, triplets.objects[np.random.RandomState(42).permutation(50)[:20]])
    assert published_sample(triplets, 50) is triplets


def test_a_diffusion_model_before_its_tokens_are_averaged(fresh: Workflow, tmp_path: Path) -> None:
    names = [f"object{i:02d}" for i in range(OBJECTS)]
    header = "Word\tuniqueID\tDefinition (from WordNet, Google, or Wikipedia)\tTop-down Category (manual selection)\n"
    (tmp_path / "concepts.tsv").write_text(header + "".join(f"{name}\t{name}\t\t\n" for name in names))
    (tmp_path / "images").mkdir()
    draws = np.random.default_rng(0)
    for name in names:
        small = draws.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(small).resize((64, 64)).save(tmp_path / "images" / f"{name}.png")
    np.save(tmp_path / "chosen.npy", choices(400).objects)
    overlay = {
        "datasets": {
            "things": {
                "concepts": {"path": str(tmp_path / "concepts.tsv"), "sha256": None},
                "dimensions": None,
                "triplets": {"test": {"path": str(tmp_path / "chosen.npy"), "first": 0, "odd": "last", "sha256": None}},
                "path": str(tmp_path / "images"),
                "size": 64,
            }
        },
        "human": {
            "reduction": {"of": ["sd1-t0.2_up1", "sd1-t0.2_mid"], "components": [2, 5, 1000], "triplets": 300},
        },
    }
    place = "things/clean/sd1-t0.2"
    done = fresh.run(f"results/reduction/{place}.tsv", f"results/odd_one_out/{place}.tsv", overlay=overlay)
    assert done.code == 0, done.output
    # tokens are gone when they have been used
    assert not (fresh.directory / f"results/unpooled/{place}").exists()
    table = pd.read_csv(fresh.directory / f"results/reduction/{place}.tsv", sep="\t", keep_default_na=False)
    recipe = json.loads((fresh.directory / f"results/reduction/{place}.json").read_text())
    assert recipe["choices"]["choices"] == 300
    (of_mid, of_up1) = (recipe["shapes"][layer] for layer in ("mid", "up1"))
    assert (of_mid[0], of_mid[1] < of_up1[1]) == (OBJECTS, True)
    for layer, shape in recipe["shapes"].items():
        for pooling, width in (("mean", shape[2]), ("max", shape[2]), ("none", shape[1] * shape[2])):
            rows = table[(table["layer"] == layer) & (table["pooling"] == pooling)]
            assert rows["reduction"].tolist() == ["none", "pca", "pca", "pca"]
            assert rows["dimensions"].tolist() == [width, 2, 5, OBJECTS - 1]
            assert rows["accuracy"].between(rows["low"], rows["high"]).all()
    # the mean of tokens is what features are
    whole = np.load(fresh.directory / f"results/odd_one_out/{place}.npz")
    taken = np.random.RandomState(42).permutation(400)[:300]
    for layer in ("mid", "up1"):
        closest = whole["closest"][whole["layers"].tolist().index(layer)][taken]
        mean = table[(table["layer"] == layer) & (table["pooling"] == "mean") & (table["reduction"] == "none")]
        assert mean["accuracy"].item() == pytest.approx(Choices(closest).credit().mean(), abs=1 / 300)
