"""The script: from images, latents and a teacher to checkpoints that load, records and losses; what it refuses."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from diffalign import logs, models, training
from diffalign.extraction.inputs import Batches, ImageFiles
from diffalign.extraction.passes import pooled_features
from diffalign.io.checkpoints import read_record, verify
from diffalign.io.headers import StoreError
from diffalign.io.latents import write_shard
from diffalign.io.manifest import Image as Row
from diffalign.io.manifest import write_manifest
from diffalign.io.token_files import TokenBatch, write_tokens
from diffalign.io.training_checkpoints import TrainingFolder
from diffalign.specs import Compute, ImageInput, Model, Training, Weights
from diffalign.stimuli.class_numbers import LabelError
from diffalign.training import TrainingError
from train import Teacher, TrainingInputs, TrainingOutputs, train

CPU = torch.device("cpu")
SIDE = 16
INPUT = ImageInput(SIDE, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
HELD, STREAMED = Compute("cpu", 1, 0, memory_mb=1000), Compute("cpu", 1, 2, memory_mb=0)

VIT = Model(
    "digits.vit",
    "timm_vision",
    Weights("training"),
    {"b0": "blocks.0", "final": "norm", "logits": "head"},
    "final",
    input=INPUT,
    architecture={
        "architecture": "vit_tiny_patch16_224",
        "img_size": SIDE,
        "patch_size": 8,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 4,
        "global_pool": "avg",
        "class_token": False,
        "fc_norm": False,
    },
    training=Training("tinted", "classification", steps=40, batch_size=8, learning_rate=0.01),
)
VAE = Model(
    "digits.vae",
    "diffusers_vae",
    Weights("training"),
    {"latent": "posterior"},
    "latent",
    input=INPUT,
    architecture={
        "class": "AutoencoderKL",
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "mid_block_add_attention": False,
    },
    training=Training("tinted", "reconstruction", steps=6, batch_size=8, learning_rate=0.003, kl=1e-4),
)
SIT = Model(
    "digits.sit",
    "sit",
    Weights("training"),
    {"b1": "blocks.1"},
    "b1",
    latents="digits.vae",
    path="linear",
    architecture={
        "input_size": 8,
        "in_channels": 4,
        "patch_size": 4,
        "hidden_size": 16,
        "depth": 2,
        "num_heads": 2,
        "num_classes": 4,
        "learn_sigma": False,
    },
    training=Training("tinted", "flow_matching", steps=6, batch_size=8, learning_rate=0.01, ema=0.9),
)
REPA = replace(
    SIT,
    name="digits.repa",
    training=replace(SIT.training, teacher="digits.vit_final", teacher_layer="b1", projector=24),
)


@dataclass(frozen=True)
class Tinted:
    """32 images: noise, and a tint that is their class."""

    folder: Path
    rows: Sequence[Row]

    def inputs(self, model: Model, teacher: Path | None = None) -> TrainingInputs:
        files = (self.folder / "dataset.json", self.folder / "manifest.tsv")
        aligned = None if teacher is None else Teacher(teacher, "final")
        if model.latents is None:
            return TrainingInputs(*files, images=self.folder / "images", teacher=aligned)
        shard, statistics, record = (self.folder / name for name in ("shard.safetensors", "stats.pt", "weights.json"))
        torch.manual_seed(1)
        write_shard(shard, self.rows, [torch.randn(len(self.rows), 4, 8, 8)])
        torch.save({"mean": torch.zeros(1, 4, 1, 1), "std": torch.ones(1, 4, 1, 1)}, statistics)
        record.write_text('{"format": 1, "source": "training", "sha256": {}}')
        return TrainingInputs(
            *files, latents=[shard], statistics=statistics, autoencoder_record=record, teacher=aligned
        )

    def tokens(self, names: Sequence[str] | None = None, layer: str = "final", count: int = 4, **said: Any) -> Path:
        names = [row.name for row in self.rows] if names is None else names
        rng = np.random.default_rng(0)
        values = {layer: rng.standard_normal((len(names), count, 16), dtype=np.float32)}
        write_tokens(self.folder / "tokens", names, [TokenBatch(names, values)], {"bundle": "digits.vit", **said})
        return self.folder / "tokens"


def tinted(folder: Path, classes: Sequence[int] = (0, 1, 2, 3)) -> Tinted:
    rng = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir(parents=True)
    for number in range(32):
        label = classes[number % len(classes)]
        pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[..., label % 4 : label % 4 + 1] += 150
        name = f"{number:03d}"
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
        rows.append(Row(name, str(label), label, "", "0" * 64, "", ""))
    write_manifest(folder / "manifest.tsv", folder / "dataset.json", rows, {"dataset": "tinted"})
    return Tinted(folder, rows)


def trained(
    model: Model, where: Path, reads: TrainingInputs, steps: Sequence[int] = (0, 6), compute: Compute = HELD
) -> TrainingOutputs:
    where.mkdir(exist_ok=True)
    (where / "recipe.json").write_text(json.dumps({"format": 1, "model": {**model.recipe(), "layers": model.layers}}))
    writes = TrainingOutputs(
        steps,
        [where / str(step) / "checkpoint" for step in steps],
        [where / str(step) / "weights.json" for step in steps],
        where / "losses.tsv",
        where / "losses.parquet",
    )
    train(where / "recipe.json", reads, writes, TrainingFolder(where / "state"), compute)
    return writes


def layers(model: Model, checkpoint: Path, images: Tinted) -> dict[str, Any]:
    loaded = models.load(model, checkpoint, CPU)
    files = {row.name: images.folder / "images" / f"{row.name}.png" for row in images.rows}
    batches = Batches(ImageFiles(files, INPUT), 10, 0, CPU)
    order, features = pooled_features(loaded, model.layers, list(batches))
    assert list(order) == [row.name for row in images.rows]
    return features


def test_a_classifier_learns_and_its_logits_are_a_layer(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    made = trained(VIT, tmp_path / "vit", images.inputs(VIT), (0, 20, 40))
    labels = [row.label_index for row in images.rows]
    shares = []
    for checkpoint in made.checkpoints:
        features = layers(VIT, checkpoint, images)
        assert {alias: values.shape for alias, values in features.items()} == {
            "b0": (32, 16),
            "final": (32, 16),
            "logits": (32, 4),
        }
        shares.append(float((features["logits"].argmax(axis=1) == labels).mean()))
    assert shares[0] < 0.6
    assert shares[2] > 0.9
    losses = pd.read_csv(made.tsv, sep="\t")
    assert list(losses.columns) == ["model", "step", "learning_rate", "loss", "accuracy"]
    assert losses["step"].tolist() == list(range(1, 41))
    assert losses["loss"][-8:].mean() < 0.5 * losses["loss"][:8].mean()
    pd.testing.assert_frame_equal(pd.read_parquet(made.parquet), losses, check_dtype=False, rtol=1e-6)


def test_the_first_checkpoint_is_what_training_begins_with(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    for model in (VIT, SIT):
        made = trained(model, tmp_path / model.name, images.inputs(model), (0,))
        begun = models.trainable(model, CPU).module.state_dict()
        written = load_file(made.checkpoints[0] / "model.safetensors")
        assert begun.keys() == written.keys()
        assert all(torch.equal(begun[key], written[key]) for key in begun)


def test_records_say_what_was_trained_on_what(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    made = trained(REPA, tmp_path / "repa", images.inputs(REPA, images.tokens()))
    for step, checkpoint, record in zip(made.steps, made.checkpoints, made.records, strict=True):
        said = verify(record, checkpoint)
        assert (said["source"], said["step"]) == ("training", step)
        assert said["recipe"]["model"]["training"]["teacher"] == "digits.vit_final"
        assert said["images"] == json.loads((tmp_path / "dataset.json").read_text())
        assert said["autoencoder_weights"] == read_record(tmp_path / "weights.json")
        assert said["teacher"] == {"bundle": "digits.vit"}
    assert not (tmp_path / "repa" / "state").exists()


def test_a_latent_has_unit_variance_by_what_its_checkpoint_says(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    made = trained(VAE, tmp_path / "vae", images.inputs(VAE))
    scales = []
    for checkpoint in made.checkpoints:
        loaded = models.load(VAE, checkpoint, CPU, decoder=True)
        files = {row.name: images.folder / "images" / f"{row.name}.png" for row in images.rows}
        (batch,) = Batches(ImageFiles(files, INPUT), 32, 0, CPU)
        with torch.no_grad():
            latents = loaded.forward(batch)
        assert isinstance(latents, torch.Tensor)
        assert latents.shape == (32, 4, 8, 8)
        assert loaded.latent_statistics is not None
        mean, std = loaded.latent_statistics
        normalised = (latents - mean) / std
        assert float(normalised.mean()) == pytest.approx(0, abs=1e-4)
        assert float(normalised.std()) == pytest.approx(1, abs=1e-4)
        assert loaded.decode(latents).shape == (32, 3, SIDE, SIDE)
        scales.append(float(std[0, 0, 0, 0]))
    assert scales[0] != scales[1]


def test_a_projector_is_in_no_checkpoint_and_changes_what_is_trained(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    plain = trained(SIT, tmp_path / "sit", images.inputs(SIT))
    aligned = trained(REPA, tmp_path / "repa", images.inputs(REPA, images.tokens()))
    begun, last = (
        [load_file(made.checkpoints[number] / "model.safetensors") for made in (plain, aligned)] for number in (0, 1)
    )
    assert begun[0].keys() == begun[1].keys() == last[1].keys()
    assert all(torch.equal(begun[0][key], begun[1][key]) for key in begun[0])
    assert not torch.equal(last[0]["blocks.0.attn.qkv.weight"], last[1]["blocks.0.attn.qkv.weight"])
    assert models.load_denoiser(REPA, aligned.checkpoints[1], CPU).classes == 4
    columns = list(pd.read_csv(aligned.tsv, sep="\t").columns)
    assert columns == ["model", "step", "learning_rate", "loss", "velocity", "cosine"]
    # until weights differ, so do no draws
    first = [pd.read_csv(made.tsv, sep="\t")["velocity"][0] for made in (plain, aligned)]
    assert first[0] == first[1]


@pytest.mark.parametrize("model", [VIT, VAE, REPA], ids=lambda model: str(model.name))
def test_workers_and_memory_change_no_byte(model: Model, tmp_path: Path) -> None:
    images = tinted(tmp_path)
    model = replace(model, training=replace(model.training, steps=6))
    reads = images.inputs(model, images.tokens() if model is not VIT and model.latents else None)
    held = trained(model, tmp_path / "held", reads)
    streamed = trained(model, tmp_path / "streamed", reads, compute=STREAMED)
    for a, b in zip((*held.records, held.tsv), (*streamed.records, streamed.tsv), strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ["000", "001"]}, r"images differ: 30 only in .*manifest\.tsv: 002, 003, 004, 005, 006 …"),
        ({"images": {"manifest_sha256": "0" * 64}}, "tokens: the teacher saw other images of the same names; rerun it"),
        ({"layer": "b3"}, r"tokens: no layer 'final'; there: b3"),
        ({"count": 9}, r"layer 'b1' gives \(4, 16\) for an image, but the teacher digits\.vit_final has 9 tokens"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    images = tinted(tmp_path)
    with pytest.raises(ValueError, match=message):
        trained(REPA, tmp_path / "repa", images.inputs(REPA, images.tokens(**changes)))
    assert not (tmp_path / "repa" / "losses.tsv").exists()


@pytest.mark.parametrize("model", [VIT, SIT], ids=lambda model: str(model.name))
def test_a_class_without_images_is_named(model: Model, tmp_path: Path) -> None:
    images = tinted(tmp_path, classes=(0, 1, 3))
    with pytest.raises(StoreError, match=r"manifest\.tsv: 1 of 4 classes have no image: 2"):
        trained(model, tmp_path / "out", images.inputs(model))


def test_labels_beyond_the_classes_are_named(tmp_path: Path) -> None:
    images = tinted(tmp_path, classes=(0, 1, 2, 3, 7))
    with pytest.raises(LabelError, match=r"6 images have labels outside 0 to 3, first: 004 \(7\)"):
        trained(VIT, tmp_path / "out", images.inputs(VIT))


@pytest.mark.parametrize(
    ("model", "changes", "steps", "message"),
    [
        (VIT, {"batch_size": 33}, (0, 6), "a batch of 33 images is larger than the data set, which has 32"),
        (VIT, {}, (0, 41), r"digits\.vit: checkpoint 41 lies beyond the last step, 40"),
        (VAE, {"loss": "classification"}, (0,), "family 'diffusers_vae' has no loss 'classification'; .*timm_vision"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(
    model: Model, changes: dict[str, Any], steps: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    images = tinted(tmp_path)
    model = replace(model, training=replace(model.training, **changes))
    with pytest.raises(ValueError, match=message):
        trained(model, tmp_path / "out", images.inputs(model), steps)


def test_a_training_goes_on_from_no_state_of_other_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tinted(tmp_path)
    reads, keys = images.inputs(SIT), []

    class Seen(Exception):
        pass

    def seen(*arguments: Any) -> Any:
        keys.append(arguments[-1])
        raise Seen

    monkeypatch.setattr(training, "train", seen)

    def key() -> Any:
        with pytest.raises(Seen):
            trained(SIT, tmp_path / "out", reads)
        return keys[-1]

    first = key()
    assert key() == first
    for path in (*reads.latents, reads.statistics):
        assert path is not None
        before = key()
        os.utime(path, (0, 0))
        assert key() != before
        assert {**key(), "read": ""} == {**first, "read": ""}


def test_a_training_that_diverges_says_where_and_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    images = tinted(tmp_path)
    model = replace(VIT, training=replace(VIT.training, optimizer="sgd", learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"digits\.vit: .* at step \d+, where the learning rate is .*e\+\d+") as e:
        trained(model, tmp_path / "out", images.inputs(model), (0, 40))
    assert str(tmp_path / "out" / "state" / "weights-0.pt") in str(e.value)
    assert TrainingFolder(tmp_path / "out" / "state").read_weights(0)


def test_classifiers_and_autoencoders_without_what_a_loss_needs_are_refused() -> None:
    headless = {key: value for key, value in VIT.architecture.items() if key != "num_classes"}
    with pytest.raises(
        ValueError, match=r"models\.digits\.vit\.architecture: .* needs 'architecture' and 'num_classes'"
    ):
        models.trainable(replace(VIT, architecture=headless), CPU)
    with pytest.raises(ValueError, match="an AutoencoderTiny is not trained here; allowed: AutoencoderKL"):
        models.trainable(replace(VAE, architecture={"class": "AutoencoderTiny"}), CPU)


def test_checkpoints_of_an_earlier_recipe_take_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    images = tinted(tmp_path)
    made = training.train

    def during(*arguments: Any) -> Any:
        losses = made(*arguments)
        (tmp_path / "vit" / "recipe.json").write_text("{}")
        return losses

    monkeypatch.setattr(training, "train", during)

    def late() -> None:
        with logs.attached(tmp_path / "log", "train"):
            trained(replace(VIT, training=replace(VIT.training, steps=6)), tmp_path / "vit", images.inputs(VIT))

    with pytest.raises(SystemExit):
        late()
    assert "recipe.json changed while this job ran, so it belongs to an earlier run" in capfd.readouterr().err
    assert not list((tmp_path / "vit").glob("[06]/*"))
