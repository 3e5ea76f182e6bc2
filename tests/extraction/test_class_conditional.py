"""Extraction of models that are told labels and read class tokens, and what it refuses before any latent is read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_latent_transformers import checkpoint, model_of

from diffalign import models
from diffalign.conditions import parse_condition
from diffalign.extraction.inputs import NoisyLatents
from diffalign.extraction.passes import pooled_features
from diffalign.io import feature_files
from diffalign.io.checkpoints import describe
from diffalign.io.headers import StoreError
from diffalign.io.latents import write_shard
from diffalign.io.manifest import Image, print_manifest
from diffalign.noise import NoiseLevel
from diffalign.randomness import SEEDINGS, SHARED_BY_ALL, NoiseKey, normal
from diffalign.specs import Compute, Model
from diffalign.stimuli.class_numbers import LabelError, class_numbers
from diffalign.stimuli.labels import check_same_classes, class_labels
from extract import LatentInputs, Whole, extract

NAMES = ("a", "b", "c", "d")
CPU = torch.device("cpu")


def image(name: str, label: str, index: int) -> Image:
    return Image(name, label, index, "", "", "", "")


@dataclass
class Study:
    """Files of a small study of one diffusion model; its latents and class tokens are random."""

    folder: Path
    model: Model
    conditioning: str = "uncond"
    labels: Sequence[int] = (3, 0, 9, 3)
    latent_shape: tuple[int, ...] = (4, 8, 8)
    tokens: feature_files.Features | None = None

    def run(self, batch_size: int = 3) -> feature_files.Features:
        at = self.folder
        at.mkdir(exist_ok=True)
        weights = at / "checkpoint"
        if not weights.exists():
            weights.mkdir()
            checkpoint(self.model.name, weights)
            describe(at / "weights.json", weights, {"source": "file"})
        rows = [image(name, f"class{index}", index) for name, index in zip(NAMES, self.labels, strict=True)]
        (at / "manifest.tsv").write_text(print_manifest(rows))
        torch.manual_seed(0)
        write_shard(at / "shard", rows, [torch.randn(4, *self.latent_shape)])
        channels = self.latent_shape[0]
        torch.save({"mean": torch.zeros(1, channels, 1, 1), "std": torch.ones(1, channels, 1, 1)}, at / "stats.pt")
        recipe = {"bundle": "x", "noise": "t0.5", "conditioning": self.conditioning, "model": self.model.recipe()}
        (at / "recipe.json").write_text(json.dumps(recipe))
        (at / "dataset.json").write_text("{}")
        if self.tokens is not None:
            feature_files.write_features(at / "tokens.pt", self.tokens)
        extract(
            *(at / name for name in ("recipe.json", "checkpoint", "weights.json", "dataset.json", "manifest.tsv")),
            parse_condition("clean"),
            LatentInputs(
                [at / "shard"],
                at / "stats.pt",
                at / "weights.json",
                class_tokens=None if self.tokens is None else at / "tokens.pt",
            ),
            Whole(at / "made.json", ["b0"], at / "shards"),
            Compute("cpu", batch_size, 0),
        )
        return feature_files.read_bundle(at / "made.json").read("b0")


def class_tokens(names: Sequence[str] = NAMES, width: int = 24) -> feature_files.Features:
    values = np.random.default_rng(1).standard_normal((len(names), width), dtype=np.float32)
    return feature_files.Features(values, tuple(names), {"bundle": "dinov2.cls"})


def test_the_null_label_and_the_label_of_the_image_are_told(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", model_of("sit"))
    found = {word: replace(study, conditioning=word).run().values for word in ("uncond", "label")}
    denoiser = models.load_denoiser(study.model, tmp_path / "study" / "checkpoint", CPU)
    loaded = denoiser.at(denoiser.level("t0.5"))
    torch.manual_seed(0)
    latents = dict(zip(NAMES, torch.randn(4, 4, 8, 8), strict=True))
    for word, told in (("uncond", [10] * 4), ("label", [3, 0, 9, 3])):
        noise = {name: torch.from_numpy(normal((4, 8, 8), study.model.noise_key, name, "noise")) for name in NAMES}
        noisy = torch.stack([0.5 * latents[name] + 0.5 * noise[name] for name in NAMES])
        batch = {"names": list(NAMES), "latents": noisy, "labels": torch.tensor(told)}
        _, expected = pooled_features(loaded, {"b0": "blocks.0"}, [batch])
        np.testing.assert_allclose(found[word], expected["b0"], atol=1e-5)
    assert not np.allclose(found["uncond"], found["label"], atol=1e-3)


def test_reg_reads_class_tokens_by_name_and_says_whose_they_are(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", model_of("reg", class_tokens="dinov2.cls"), tokens=class_tokens())
    found = study.run()
    assert found.recipe["class_tokens"] == {"bundle": "dinov2.cls"}
    np.testing.assert_allclose(study.run(batch_size=1).values, found.values, atol=1e-5)
    other = feature_files.Features(class_tokens().values + 1, NAMES, {})
    assert not np.allclose(replace(study, tokens=other).run().values, found.values, atol=1e-3)


@pytest.mark.parametrize("seeding", SEEDINGS)
def test_class_tokens_are_noised_with_the_same_t(seeding: str) -> None:
    level = NoiseLevel(0.75, 0.25, 0.25)
    latents = dict.fromkeys("ab", torch.ones(4, 8, 8))
    tokens = dict.fromkeys("ab", torch.full((24,), 2.0))
    rows = {"a": 0, "b": 1}
    key = NoiseKey(seeding, 7, "reg")
    dataset = NoisyLatents(latents, level, key, {"labels": torch.tensor([3, 4])}, rows, tokens)
    first, second = dataset[0], dataset[1]
    drawn = torch.from_numpy(normal((24,), key, "a", "class_token"))
    assert torch.allclose(first["class_tokens"], 0.75 * 2 + 0.25 * drawn)
    assert (int(first["labels"]), int(second["labels"])) == (3, 4)
    assert torch.equal(first["class_tokens"], second["class_tokens"]) == (seeding in SHARED_BY_ALL)
    # no part of the noise of the latents
    assert not torch.allclose(first["latents"].flatten()[:24] - 0.75, 0.25 * drawn)


@pytest.mark.parametrize(
    ("tokens", "error", "said"),
    [
        (class_tokens(width=25), ValueError, r"reg reads class tokens of 24 numbers, .*'dinov2\.cls', have 25"),
        (class_tokens(("a", "b", "c")), StoreError, r"1 only in .*manifest\.tsv: d"),
        (class_tokens(("a", "b", "c", "e")), StoreError, r"images differ: .*: d; 1 only in .*tokens\.pt: e"),
    ],
)
def test_class_tokens_of_other_images_or_models_are_refused(
    tokens: feature_files.Features, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        Study(tmp_path / "study", model_of("reg", class_tokens="dinov2.cls"), tokens=tokens).run()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (
            {"latent_shape": (4, 16, 16)},
            ValueError,
            "fixed table of positions for inputs of side 8, but 4 of 4 are of side 16",
        ),
        ({"latent_shape": (8, 8, 8)}, ValueError, "sit reads latents of 4 channels, but those of .* have 8"),
        ({"labels": (3, -1, 9, -1), "conditioning": "label"}, LabelError, "2 images have no label, first: b, d"),
        ({"labels": (3, 0, 10, 3), "conditioning": "label"}, LabelError, r"outside 0 to 9, first: c \(10\)"),
        ({"conditioning": "caption"}, ValueError, "unknown conditioning 'caption' of a class-conditional model"),
    ],
)
def test_what_does_not_fit_is_refused_before_latents_are_read(
    changes: dict[str, Any], error: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untouched(*_: object) -> None:
        raise AssertionError("a latent was read")

    monkeypatch.setattr("diffalign.io.latents.Latents.__getitem__", untouched)
    with pytest.raises(error, match=said):
        replace(Study(tmp_path / "study", model_of("sit")), **changes).run()
    assert not (tmp_path / "study" / "made").exists()


def test_other_latents_are_taken_where_positions_may_be_interpolated(tmp_path: Path) -> None:
    study = Study(tmp_path / "study", model_of("sit", interpolate_positions=True))
    assert replace(study, latent_shape=(4, 6, 6)).run().values.shape == (4, 48)
    with pytest.raises(ValueError, match="sit takes inputs whose side is a multiple of 2, but 4 of 4 are of side 7"):
        replace(study, latent_shape=(4, 7, 7)).run()


def test_latents_are_multiplied_after_they_are_normalised(tmp_path: Path) -> None:
    found = {}
    for multiplier in (1.0, 0.5):
        study = Study(tmp_path / str(multiplier), model_of("lightningdit", latent_multiplier=multiplier))
        found[multiplier] = replace(study, latent_shape=(8, 4, 4)).run().values
    assert not np.allclose(found[1.0], found[0.5], atol=1e-3)


def test_labels_of_some_of_imagenets_classes_are_refused() -> None:
    whole = [image("a", "n01440764", 0), image("b", "n15075141", 999)]
    assert class_labels(whole, "label", 1000) == [0, 999]
    assert class_labels(whole, "uncond", 1000) == [1000, 1000]
    part = [image("a", "n01440764", 0), image("b", "n15075141", 1), image("c", "n00000000", 2)]
    with pytest.raises(LabelError, match=r"2 images .* b \(n15075141 is 999, not 1\), c \(n00000000 is none, not 2\)"):
        class_labels(part, "label", 1000)
    # another set of classes has indices of its own
    assert class_labels(part, "label", 10) == [0, 1, 2]


def test_classes_that_are_numbers_are_these_numbers() -> None:
    assert class_numbers(["10", "9", "0"]) == {"0": 0, "10": 10, "9": 9}
    assert class_numbers(["010", "009"]) == {"009": 9, "010": 10}
    # which begin at 1
    assert class_numbers(["10", *"123456789"])["10"] == 9
    assert class_numbers(["1", "3"]) == {"1": 1, "3": 3}
    # in order, also beside numbers
    assert class_numbers(["tench", "9", "10"]) == {"10": 0, "9": 1, "tench": 2}
    with pytest.raises(LabelError, match="the labels '07' and '7' are one number"):
        class_numbers(["7", "07", "8"])


def test_words_are_no_classes_of_imagenet() -> None:
    numbers = [image("a", "2", 2), image("b", "0010", 10)]
    assert class_labels(numbers, "label", 1000) == [2, 10]
    words = [image("a", "goldfish", 0), image("b", "tench", 1)]
    with pytest.raises(
        LabelError, match=r"2 images .* no class of ImageNet, first: a \(goldfish\), b \(tench\); a model"
    ):
        class_labels(words, "label", 1000)
    # of a model that was trained on them
    assert class_labels(words, "label", 1000, own_classes=True) == [0, 1]
    assert class_labels(words, "label", 2) == [0, 1]


def test_classes_are_those_that_a_model_was_trained_on() -> None:
    trained = {"cat": 0, "dog": 1, "frog": 2}
    same = [image("a", "cat", 0), image("b", "frog", 2), image("c", "", -1)]
    check_same_classes(same, trained, "digits.sit")
    check_same_classes([image("a", "apple", 0)], None, "sit")
    with pytest.raises(
        LabelError, match=r"2 images are of other classes than digits\.sit .* a \(apple, 0\), b \(cat, 1\)"
    ):
        check_same_classes([image("a", "apple", 0), image("b", "cat", 1)], trained, "digits.sit")
