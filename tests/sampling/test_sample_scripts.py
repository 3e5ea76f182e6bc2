"""Samples, their quality and their sheet, from checkpoints and images to files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image as Picture
from test_latent_transformers import checkpoint, model_of
from test_models import STUDY

from diffalign.conditions import parse_condition
from diffalign.io import feature_files, quality_files
from diffalign.io.checkpoints import describe
from diffalign.io.headers import StoreError
from diffalign.io.manifest import Image, print_manifest
from diffalign.io.sample_files import read_samples
from diffalign.models.families import diffusers_vae, timm_vision
from diffalign.sample_quality import MEASURES, ImageSet, measured
from diffalign.specs import Compute, ImageInput, Model, Weights
from diffalign.stimuli.class_numbers import LabelError
from extract import Whole, extract
from latents import latents
from sample_quality import Reader, sample_quality
from sample_quality_table import given_quality_table, sample_quality_table
from sample_sheet_figure import sample_sheet_figure
from samples import Autoencoder, samples

CLEAN = parse_condition("clean")
HALF = (0.5, 0.5, 0.5)
# ten features, which stand for the logits of ten classes
NARROW = {"architecture": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 16, "embed_dim": 10, "depth": 2}
VIT = Model(
    "vit",
    "timm_vision",
    Weights("miniature"),
    {"b0": "blocks.0", "wide": "blocks.0.mlp.fc1", "b1": "blocks.1"},
    "b1",
    ImageInput(32, "bicubic", True, HALF, HALF),
    miniature={**NARROW, "num_heads": 2},
)


@dataclass
class Study:
    """Files of a study of one SiT of ten classes, an autoencoder and a transformer; all weights are random."""

    folder: Path
    model: Model = field(default_factory=lambda: model_of("sit"))
    labels: tuple[int, ...] = tuple(n % 10 for n in range(40))
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"method": "euler", "steps": 2, "guidance": 2.0})
    batch: int = 16

    @property
    def pictures(self) -> Path:
        return self.folder / "png"

    def prepare(self) -> None:
        """Images, latents, and the checkpoints of the three models."""
        self.pictures.mkdir(parents=True)
        random = np.random.default_rng(0)
        rows = [Image(f"i{n:02d}", f"c{label}", label, "", "", "", "") for n, label in enumerate(self.labels)]
        for row in rows:
            Picture.fromarray(random.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(self.png(row.name))
        (self.folder / "manifest.tsv").write_text(print_manifest(rows))
        (self.folder / "dataset.json").write_text('{"dataset": "noise", "size": 64}')
        vae = STUDY.models["sdvae"]
        for name in ("sit", "vae", "vit"):
            (self.folder / name).mkdir()
        checkpoint("sit", self.folder / "sit")
        diffusers_vae.make_miniature(vae.miniature, self.folder / "vae", 0)
        timm_vision.make_miniature(VIT.miniature, self.folder / "vit", 0)
        for name in ("sit", "vae", "vit"):
            describe(self.folder / f"{name}.json", self.folder / name, {"source": "file"})
        latents(
            replace(vae, latent_statistics="measured"),
            *(self.folder / name for name in ("vae", "vae.json", "manifest.tsv", "png")),
            CLEAN,
            None,
            [self.folder / "shard"],
            self.folder / "stats.pt",
            Compute("cpu", 16, 0),
        )

    def png(self, name: str) -> Path:
        return self.pictures / f"{name}.png"

    def recipe(self, name: str, **content: Any) -> Path:
        path = self.folder / f"{name}_recipe.json"
        path.write_text(json.dumps(content))
        return path

    def sample(self, seeds: tuple[int, ...] = (3, 0), per_class: int = 3, step: int | None = 300) -> Path:
        content = {
            "format": 1,
            "model": replace(self.model, step=step).recipe(),
            "autoencoder": replace(STUDY.models["sdvae"], latent_statistics="measured").encoder(),
            "sampler": dict(self.sampler),
            "per_class": per_class,
            "seeds": list(seeds),
        }
        output = self.folder / f"samples{step}.safetensors"
        samples(
            self.recipe("samples", **content),
            *(self.folder / name for name in ("sit", "sit.json", "dataset.json", "manifest.tsv")),
            Autoencoder(*(self.folder / name for name in ("vae", "vae.json")), [self.folder / "shard"], self.stats),
            output,
            output.with_suffix(".json"),
            Compute("cpu", self.batch, 0),
        )
        return output

    @property
    def stats(self) -> Path:
        return self.folder / "stats.pt"

    def extract(self, pictures: Path, manifest: Path, into: Path) -> dict[str, feature_files.Features]:
        """Features of PNG files by the transformer, through the script."""
        made = into.with_name(f"{into.name}.json")
        extract(
            self.recipe("vit", format=1, bundle="vit", model=VIT.recipe(), noise=None, conditioning=None),
            *(self.folder / name for name in ("vit", "vit.json", "dataset.json")),
            manifest,
            CLEAN,
            pictures,
            Whole(made, list(VIT.layers), into / "shards"),
            Compute("cpu", 7, 0),
        )
        return {layer: feature_files.read_bundle(made).read(layer) for layer in VIT.layers}

    def reader(self, layer: str) -> Reader:
        files = (self.folder / name for name in ("vit_recipe.json", "vit", "vit.json"))
        return Reader(*files, layer, self.folder / "held_out" / f"{layer}.pt")  # type: ignore[call-arg, arg-type]

    def measure(self, of: Path, classifier: str = "b1", features: str = "b0") -> tuple[pd.DataFrame, dict[str, Any]]:
        outputs = {key: of.with_name(f"{of.stem}_quality.{key}") for key in ("tsv", "parquet", "recipe")}
        sample_quality(
            of,
            self.folder / "manifest.tsv",
            self.reader(classifier),
            self.reader(features),
            4,
            0,
            outputs,
            Compute("cpu", 7, 0),
        )
        return pd.read_parquet(outputs["parquet"]), json.loads(outputs["recipe"].read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    made = Study(tmp_path_factory.mktemp("study") / "files")
    made.prepare()
    made.extract(made.pictures, made.folder / "manifest.tsv", made.folder / "held_out")
    return made


def test_samples_are_of_every_class_and_seed_and_depend_on_no_batch(study: Study) -> None:
    path = study.sample()
    found = read_samples(path)
    assert found.images.shape == (2 * 10 * 3, 64, 64, 3)
    assert found.seeds.tolist() == [0] * 30 + [3] * 30
    assert found.labels.tolist() == [n // 3 for n in range(30)] * 2
    assert found.names[:4] == ("class_0_00000", "class_0_00001", "class_0_00002", "class_1_00000")
    recipe = json.loads(path.with_suffix(".json").read_text())
    assert (recipe["classes"], recipe["model"]["step"], recipe["images"]["dataset"]) == (10, 300, "noise")
    assert [level["t"] for level in recipe["noise_levels"]] == [1, 0.5, 0]
    assert recipe["weights"]["sha256"]
    again = read_samples(replace(study, batch=7).sample(seeds=(0, 3)))
    # a rounding error may take a pixel to the next whole number
    assert np.abs(again.images.astype(int) - found.images).max() <= 1
    alone = read_samples(study.sample(seeds=(3,), per_class=1))
    rows = [i for i in range(30, 60) if found.names[i].endswith("_00000")]
    assert np.abs(alone.images.astype(int) - found.images[rows]).max() <= 1
    assert np.abs(found.images[:30].astype(int) - found.images[30:]).max() > 20


def test_quality_is_that_of_features_that_extraction_gives_for_png_files(study: Study, tmp_path: Path) -> None:
    path = study.sample()
    drawn = read_samples(path)
    table, recipe = study.measure(path)
    assert set(table["measure"]) == set(MEASURES)
    assert table["seed"].unique().tolist() == [0, 3]
    held = {layer: feature_files.read_features(study.folder / "held_out" / f"{layer}.pt") for layer in VIT.layers}
    real = ImageSet(held["b1"].values, held["b0"].values, np.array(study.labels))
    for seed, images, labels in drawn.by_seed():
        folder = tmp_path / str(seed)
        folder.mkdir()
        for name, image in images.items():
            Picture.fromarray(image).save(folder / f"{name}.png")
        (tmp_path / "manifest.tsv").write_text(print_manifest([Image(name, "", -1, "", "", "", "") for name in images]))
        made = study.extract(folder, tmp_path / "manifest.tsv", tmp_path / f"features{seed}")
        expected = measured(ImageSet(made["b1"].values, made["b0"].values, labels), real, 4)
        rows = table[table["seed"] == seed].set_index("measure")
        assert rows["value"].to_dict() == pytest.approx(expected, rel=1e-4)
    summary = recipe["measures"]["diversity"]
    values = table.loc[table["measure"] == "diversity", "value"]
    assert summary["value"] == pytest.approx(values.mean())
    # Student's t of one degree of freedom
    assert summary["high"] - summary["value"] == pytest.approx(12.706 * values.std() / np.sqrt(2), rel=1e-3)
    assert summary["seeds"] == 2
    assert "not to other trainings" in recipe["interval"]
    frechet = table[table["measure"] == "frechet"]
    assert set(frechet["note"]) == {""}
    assert (frechet["reference"] > 0).all()
    assert set(frechet["step"]) == {300}


def test_too_few_images_for_a_covariance_are_noted_and_one_seed_has_no_interval(study: Study) -> None:
    table, recipe = study.measure(study.sample(seeds=(0,), per_class=2), features="wide")
    notes = table.set_index("measure")["note"].to_dict()
    assert notes.pop("frechet") == "20 images span at most 19 of 40 directions: covariances are singular"
    assert set(notes.values()) == {""}
    assert recipe["measures"]["frechet"]["note"]
    assert recipe["measures"]["frechet"]["low"] is None
    assert recipe["interval"].startswith("none")


def test_features_of_another_checkpoint_and_layers_that_are_no_logits_are_refused(study: Study, tmp_path: Path) -> None:
    path = study.sample(seeds=(0,), per_class=2)
    timm_vision.make_miniature(VIT.miniature, tmp_path / "vit", 1)
    describe(tmp_path / "record.json", tmp_path / "vit", {"source": "file"})
    other = replace(study.reader("b1"), weights=tmp_path / "vit", record=tmp_path / "record.json")
    outputs = {key: tmp_path / key for key in ("tsv", "parquet", "recipe")}
    for classifier, said in (
        (other, r"b1\.pt: its weights are not those of .*record\.json"),
        (study.reader("wide"), "the classifier vit_wide gives 40 numbers, but samples are of 10 classes"),
    ):
        with pytest.raises(ValueError, match=said):
            sample_quality(
                path, study.folder / "manifest.tsv", classifier, study.reader("b0"), 4, 0, outputs, Compute("cpu", 7, 0)
            )
    assert not outputs["tsv"].exists()


def test_samples_and_classifiers_of_other_classes_are_refused(study: Study, tmp_path: Path) -> None:
    other = Study(tmp_path / "files")
    other.prepare()
    path = other.sample()
    exchanged = {**{f"c{n}": n for n in range(10)}, "c3": 4, "c4": 3}
    for name in ("sit", "vit"):
        describe(other.folder / f"{name}.json", other.folder / name, {"source": "training", "classes": exchanged})
    with pytest.raises(LabelError, match="8 images are of other classes than sit was trained on"):
        other.sample(step=999)
    other.extract(other.pictures, other.folder / "manifest.tsv", other.folder / "held_out")
    with pytest.raises(LabelError, match="8 images are of other classes than the classifier was trained on"):
        other.measure(path)
    assert not list(other.folder.glob("*_quality.*"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": tuple(n % 9 for n in range(40))}, "without images of 1 of them, first: 9"),
        ({"sampler": {"method": "ddpm", "steps": 2, "guidance": 1.0}}, "unknown sampler 'ddpm'"),
        ({"sampler": {"method": "heun", "steps": 0, "guidance": 1.0}}, "0 steps; expected at least 1"),
    ],
)
def test_samples_that_cannot_be_are_refused(changes: dict[str, Any], said: str, study: Study, tmp_path: Path) -> None:
    if "labels" in changes:
        wrong = Study(tmp_path / "files", **changes)
        wrong.prepare()
    else:
        wrong = replace(study, **changes)
    with pytest.raises(ValueError, match=said):
        wrong.sample(step=999)
    assert not (wrong.folder / "samples999.safetensors").exists()


def test_weights_that_overflow_stop_at_a_step(study: Study, tmp_path: Path) -> None:
    wrong = Study(tmp_path / "files")
    wrong.prepare()
    path = wrong.folder / "sit" / "last.pt"
    content = torch.load(path, weights_only=True)
    content["ema"]["final_layer.linear.bias"].fill_(torch.nan)
    torch.save(content, path)
    describe(wrong.folder / "sit.json", wrong.folder / "sit", {"source": "file"})
    with pytest.raises(ValueError, match=r"after step 1 of 2, from t = 1\.000 to 0\.500, for class_0_00000, .* …"):
        wrong.sample()


def test_the_table_has_the_mean_of_every_checkpoint(study: Study, tmp_path: Path) -> None:
    paths = []
    for step in (0, 300):
        of = study.sample(step=step)
        study.measure(of)
        paths.append(of.with_name(f"{of.stem}_quality.parquet"))
    outputs = {key: tmp_path / f"table.{key}" for key in ("tsv", "parquet")}
    sample_quality_table(paths, outputs)
    table = pd.read_parquet(outputs["parquet"])
    assert list(table.columns) == list(quality_files.SUMMARY)
    assert len(table) == 2 * len(MEASURES)
    row = table[(table["step"] == 300) & (table["measure"] == "recall")].iloc[0]
    values = pd.read_parquet(paths[1]).query("measure == 'recall'")["value"]
    assert row["value"] == pytest.approx(values.mean())
    assert (row["seeds"], row["samples"], row["images"]) == (2, 30, 40)
    assert pd.read_csv(outputs["tsv"], sep="\t")["value"].tolist() == pytest.approx(table["value"].tolist())


GIVEN = "model\tstep\tfid\tprecision\nnet\t0\t90.5\t0.1\nnet\t100\t1e1\t0.5\n"
KNOWN = {"net": (0, 100), "net.s1": (0,)}


def test_a_table_of_the_user_s_stands_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text(GIVEN)
    (tmp_path / "mine.csv").write_text(GIVEN.replace("\t", ","))
    outputs = {key: tmp_path / f"table.{key}" for key in ("tsv", "parquet")}
    for name in ("mine.tsv", "mine.csv"):
        given_quality_table(tmp_path / name, "digits", KNOWN, outputs)
        table = pd.read_parquet(outputs["parquet"])
        assert list(table.columns) == list(quality_files.SUMMARY)
        assert table["measure"].tolist() == ["fid", "precision"] * 2
        assert table["value"].tolist() == [90.5, 0.1, 10, 0.5]
        assert table["step"].tolist() == [0, 0, 100, 100]
        assert table["low"].isna().all()
        assert set(table["note"]) == {f"from {name}"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("net\t0", "nett\t0", r"line 2: unknown model 'nett'.*net"),
        ("net\t0", "net\t7", "line 2: net has no step 7; its steps: 0, 100"),
        ("net\t0", "net\t0.5", "line 2: step '0.5' is no whole number"),
        ("net\t0", "net\t100", "line 3: step 100 of net stands twice"),
        ("90.5", "", "line 2, fid: '' is no finite number"),
        ("90.5", "nan", "line 2, fid: 'nan' is no finite number"),
        ("90.5", "inf", "line 2, fid: 'inf' is no finite number"),
        ("step", "at", "has columns model, at, fid, precision, but not step"),
        ("\tfid\tprecision", "", "mine.tsv"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.tsv").write_text(GIVEN.replace(old, new, 1))
    with pytest.raises(StoreError, match=said):
        list(quality_files.read_given(tmp_path / "mine.tsv", "digits", KNOWN))


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    for name, content, said in (
        ("mine.xlsx", "", r"'\.xlsx' is not known here; allowed: \.tsv, \.csv"),
        ("mine.tsv", "model\tstep\n", "but not a measure"),
        ("mine.csv", "model,step,fid\n", "has no rows"),
        ("empty.tsv", "", "cannot be read as a table"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(StoreError, match=said):
            list(quality_files.read_given(tmp_path / name, "digits", KNOWN))
    with pytest.raises(StoreError, match=r"absent\.tsv: no such file"):
        list(quality_files.read_given(tmp_path / "absent.tsv", "digits", KNOWN))


def test_the_sheet_shows_the_samples_of_every_checkpoint(study: Study, tmp_path: Path) -> None:
    paths = [study.sample(step=step) for step in (0, 300)]
    for path in paths:
        study.measure(path)
    outputs = [tmp_path / "sheet.png", tmp_path / "sheet.pdf"]
    recipes = [path.with_name(f"{path.stem}_quality.recipe") for path in paths]
    sample_sheet_figure(paths, recipes, study.folder / "manifest.tsv", study.pictures, outputs, miniature=True)
    with Picture.open(outputs[0]) as picture:
        assert picture.width == pytest.approx(6.75 * 300, abs=20)
        assert picture.height > 2.4 * 300
    assert outputs[1].stat().st_size > 1000
