"""What one side of a score was given of the other: read or trained towards, by itself or through its autoencoder."""

from typing import Any

import pytest
from conftest import ROOT

from diffalign.config.catalogue import read_catalogue
from diffalign.io.score_recipes import leak

DINO = {"model": {"name": "dinov2"}}
GIANT = {"model": {"name": "dinov2.g"}}
SDVAE = {"model": {"name": "sdvae"}}
REPA = {"model": {"name": "repa", "trained_towards": ["dinov2"]}, "autoencoder": {"name": "sdvae"}}
REG = {"model": {**REPA["model"], "name": "reg", "reads": ["dinov2"], "class_tokens": "dinov2.cls"}}
VAVAE = {"model": {"name": "vavae", "trained_towards": ["dinov2"]}, "autoencoder": None}
OWN = {"model": {"name": "own.repa", "training": {"teacher": "own.vit_b5"}, "step": 300}}


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (REPA, DINO, "repa was trained towards dinov2"),
        (DINO, REPA, "repa was trained towards dinov2"),
        (REPA, GIANT, "repa was trained towards dinov2"),
        (REG, DINO, "reg reads dinov2; reg reads dinov2.cls; reg was trained towards dinov2"),
        # what is read does not depend on weights
        ({"model": {**REG["model"], "untrained": True}}, GIANT, "reg reads dinov2"),
        ({"model": {**REPA["model"], "untrained": True}}, DINO, None),
        (
            {"model": {"name": "lightningdit"}, "autoencoder": VAVAE["model"]},
            DINO,
            "vavae was trained towards dinov2",
        ),
        (REPA, SDVAE, "repa reads sdvae"),
        (OWN, {"model": {"name": "own.vit"}}, "own.repa was trained towards own.vit"),
        ({"model": {**OWN["model"], "step": 0}}, {"model": {"name": "own.vit"}}, None),
        (OWN, {"model": {"name": "own.sit"}}, None),
        (REPA, VAVAE, "both trained towards dinov2"),
        (REPA, {"model": {"name": "dinov3"}}, None),
        (REPA, REPA, None),
        # of labels, there is no model
        ({"bundle": "labels"}, REPA, None),
    ],
)
def test_a_side_that_knows_the_other_is_told(a: dict[str, Any], b: dict[str, Any], said: str | None) -> None:
    assert leak(a, b) == said


def test_the_catalogue_says_what_published_models_were_given() -> None:
    entries = read_catalogue(ROOT / "catalogue")
    towards = {name: entry["trained_towards"] for name, entry in entries.items() if "trained_towards" in entry}
    reads = {name: entry["reads"] for name, entry in entries.items() if "reads" in entry}
    assert towards == {"repa": ["dinov2"], "vavae": ["dinov2"]}
    assert reads == {"reg": ["dinov2"], "vfmvae": ["siglip2"]}
    assert entries["reg"]["like"] == "repa"
