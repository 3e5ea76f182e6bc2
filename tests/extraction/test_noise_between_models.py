"""Pure noise, t = 1, in two networks with random weights: alike where they share it, at chance where they do not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_study import load

from diffalign import models
from diffalign.alignment.arrays import array_layer
from diffalign.alignment.calibration import calibrate
from diffalign.alignment.metrics import Settings, measure_grid
from diffalign.extraction.inputs import Batches, NoisyLatents
from diffalign.extraction.passes import pooled_features
from diffalign.io.score_recipes import shared_noise
from diffalign.models import find_family
from diffalign.noise import NoiseLevel
from diffalign.specs import Model

CPU = torch.device("cpu")
COUNT, K = 200, 10
NAMES = [f"image{i:03d}" for i in range(COUNT)]
# wide, so that a random projection keeps neighbours
WIDE: dict[str, Any] = {"miniature": {"hidden_size": 1024, "depth": 1}, "take": ["embed", 0], "default_layer": 0}
STUDY = load({"defaults": {"weights": "miniature"}, "models": {"sit": WIDE, "repa": WIDE}})


def features(typed: str, folder: Path, weights: int) -> np.ndarray:
    """Features (N, D) of block 0 of a network whose weights are drawn by a seed of their own."""
    model = STUDY.model_of(typed)
    find_family(model.family).make_miniature(model.miniature, folder, weights)
    denoiser = models.load_denoiser(model, folder, CPU)
    level = denoiser.level(str(model.noise))
    assert (level.alpha, level.sigma) == pytest.approx((0, 1), abs=1e-12)
    latents = torch.randn(COUNT, 4, 8, 8, generator=torch.Generator().manual_seed(weights))
    told = {"labels": torch.tensor([denoiser.classes])}
    dataset = NoisyLatents(
        dict(zip(NAMES, latents, strict=True)), level, model.noise_key, told, dict.fromkeys(NAMES, 0)
    )
    names, found = pooled_features(denoiser.at(level), {"b0": model.layers["b0"]}, Batches(dataset, 64, 0, CPU))
    assert names == NAMES
    return found["b0"]


@pytest.mark.parametrize("option", ["", "-commonnoise"])
def test_two_networks_agree_on_pure_noise_only_where_they_share_it(option: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = features(f"sit-t1{option}", tmp_path / "a", 0)
    b = features(f"repa-t1{option}", tmp_path / "b", 1)
    layers = [array_layer(side, NAMES, K) for side in (a, b)]
    metrics = ["mutual_knn", "cknna"]
    scores = measure_grid(metrics, layers[:1], layers[1:], Settings(K, 0.0, 1.0))
    found = calibrate(scores, layers[:1], layers[1:], Settings(K, 0.0, 1.0), 199, 0.05, 0)
    score = float(scores["mutual_knn"][0, 0])
    p = [float(found[metric].p[0, 0]) for metric in metrics]
    if option:
        assert score > 0.8
        assert p == [0.005, 0.005]
    else:
        assert abs(score - K / (COUNT - 1)) < 0.01
        assert min(p) > 0.05


def test_variants_of_a_model_see_the_same_noise() -> None:
    keys = {
        typed: STUDY.model_of(typed).noise_key for typed in ("sit", "sit-t1", "sit-untrained", "sit-label", "repa-t1")
    }
    assert len({keys[typed] for typed in ("sit", "sit-t1", "sit-untrained", "sit-label")}) == 1
    assert keys["repa-t1"] != keys["sit-t1"]


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        ("sit", "repa", None),
        ("sit-commonnoise", "repa-commonnoise", "common"),
        ("sit-commonnoise", "repa", None),
        ("sit-shared", "repa-shared", "constant"),
        ("sit-t0.2", "sit-t1", "model"),
        ("sit-untrained", "sit", "model"),
        ("sit-redraw1", "sit", None),
        ("sit-t0.2-redraw2", "sit-t1-redraw2", "model"),
        ("sit-redraw1", "sit-draws4", "model"),
        ("sit-redraw4", "sit-draws4", None),
        ("sit-shared-redraw1", "repa-shared", None),
        ("sit-commonnoise-redraw1", "repa-commonnoise-redraw1", "common"),
        ("sit", "dinov2", None),
        ("dinov2", "dinov2-untrained", None),
    ],
)
def test_a_recipe_says_how_two_sides_share_their_noise(a: str, b: str, word: str | None) -> None:
    first, second = ({"model": STUDY.model_of(typed).recipe()} for typed in (a, b))
    assert shared_noise(first, second) == shared_noise(second, first) == word


def test_a_redraw_is_one_of_the_draws_that_a_mean_is_of() -> None:
    drawn = {typed: list(STUDY.model_of(typed).noise_draws) for typed in ("sit", "sit-draws3", "sit-redraw2")}
    assert drawn == {"sit": [0], "sit-draws3": [0, 1, 2], "sit-redraw2": [2]}
    model = STUDY.model_of("sit-t1-redraw2")
    assert STUDY.models["sit"].recipe().keys().isdisjoint({"draws", "redraw"})
    assert Model.from_recipe(model.recipe()).noise_draws == range(2, 3)
    level = NoiseLevel(0.0, 1.0, 1.0)
    told = {"labels": torch.zeros(1)}
    latents = {NAMES[0]: torch.zeros(4, 8, 8)}
    noises = [
        NoisyLatents(latents, level, model.noise_key, told, {NAMES[0]: 0}, index=index)[0]["latents"]
        for index in (*STUDY.model_of("sit-t1-draws3").noise_draws, *model.noise_draws)
    ]
    assert torch.equal(noises[2], noises[3])
    assert not torch.equal(noises[0], noises[3])


def test_the_published_rule_is_one_noise_of_seed_42() -> None:
    vae = {"posterior": "sample", "seeding": "published"}
    both = load(
        {"models": {"sdvae": vae, "sit": {"seeding": "published"}, "repa": {"seeding": "constant", "seed": 42}}}
    )
    a, b, c = ({"model": both.model_of(typed).recipe()} for typed in ("sit", "repa", "dit-shared"))
    assert shared_noise(a, b) == "constant"
    assert shared_noise(a, c) is None
    # it is no variant of another rule
    assert "shared" not in both.models["sit"].vocabulary.options
    assert "commonnoise" not in both.models["sit"].vocabulary.options


def test_another_seed_is_another_noise() -> None:
    seeded = load({"models": {"sit": {"seed": 7}}})
    a, b = ({"model": seeded.model_of(typed).recipe()} for typed in ("sit-commonnoise", "repa-commonnoise"))
    assert shared_noise(a, b) is None
