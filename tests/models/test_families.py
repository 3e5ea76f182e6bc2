"""Every family, narrow but at its real depth, through the conditions that apply to it: photographs to features, in one
process, by the scripts that the rules run.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from skimage import data
from test_models import load_any
from test_study import load

from diffalign.conditions import parse_condition
from diffalign.config.study import Study
from diffalign.dataset_specs import Dataset, Texts
from diffalign.io import feature_files
from diffalign.io.manifest import read_manifest
from diffalign.models import all_families
from diffalign.specs import Compute, Model
from extract import LatentInputs, Whole, extract
from images import images
from latents import latents
from miniature_weights import miniature_weights
from prompts import prompts
from transformed_images import transformed_images
from untrained_weights import Twin, untrained_weights
from weights import weights as link_weights

CONDITIONS = ("clean", "equivariance", "noise_0.100")
COMPUTE = Compute("cpu", batch_size=3, workers=0)
SIDE = 64


@dataclass(frozen=True)
class Stimuli:
    """The files of one condition."""

    folder: Path
    manifest: Path
    spec: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stimuli]:
    """Four photographs under every condition; their scales differ."""
    root = tmp_path_factory.mktemp("stimuli")
    (root / "source").mkdir()
    for name in ("astronaut", "cat", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()[:256, :256]).save(root / "source" / f"{name}.png")
    found = {
        name: Stimuli(root / name / "png", root / name / "manifest.tsv", root / name / "dataset.json")
        for name in CONDITIONS
    }
    clean = found["clean"]
    clean.folder.parent.mkdir()
    images("four", Dataset("folder", SIDE, str(root / "source")), None, 0, clean.folder, clean.manifest, clean.spec)
    for name, made in list(found.items())[1:]:
        made.folder.parent.mkdir()
        transformed_images(
            parse_condition(name),
            "name",
            0,
            None,
            clean.folder,
            clean.manifest,
            clean.spec,
            made.folder,
            made.manifest,
            made.spec,
            0,
        )
    assert len({row.scale for row in read_manifest(found["equivariance"].manifest)}) > 1
    return found


@dataclass(frozen=True)
class Bench:
    """Where the files of one test lie."""

    root: Path
    study: Study
    stimuli: dict[str, Stimuli]

    def weights(self, model: Model) -> tuple[Path, Path]:
        folder, record = self.root / model.name / "checkpoint", self.root / model.name / "weights.json"
        if not all_families()[model.family].has_weights:
            link_weights(model.name, model.weights, folder, record, self.root)
        elif not record.exists():
            miniature_weights(model.family, model.miniature, 0, folder, record)
        return folder, record

    def latents(self, model: Model, condition: str) -> tuple[list[Path], Path]:
        folder = self.root / "latents" / condition / model.name
        folder.mkdir(parents=True, exist_ok=True)
        made, statistics = self.stimuli[condition], folder / "latents_stats.pt"
        shards = [folder / f"latents_rank00_shard{i:03d}.safetensors" for i in range(2)]
        of_clean = None
        if condition != "clean":
            of_clean = self.root / "latents" / "clean" / model.name / "latents_stats.pt"
        latents(
            model,
            *self.weights(model),
            made.manifest,
            made.folder,
            parse_condition(condition),
            of_clean,
            shards,
            statistics,
            COMPUTE,
        )
        return shards, statistics

    def features(self, model: Model, condition: str) -> dict[str, feature_files.Features]:
        """Features of the first and last layers and one between, by alias."""
        aliases = list(model.layers)
        layers = sorted({aliases[0], aliases[len(aliases) // 2], aliases[-1], model.default_layer}, key=aliases.index)
        made, reads = self.stimuli[condition], self.reads(model, condition)
        folder = self.root / "features" / condition / model.name
        folder.mkdir(parents=True, exist_ok=True)
        conditioning = model.vocabulary.conditionings[0] if model.vocabulary.conditionings else None
        content = {
            "format": 1,
            "bundle": model.name,
            "model": model.recipe(),
            "noise": model.noise,
            "conditioning": conditioning,
        }
        (folder / "recipe.json").write_text(json.dumps({**content, "autoencoder": None, "code": ""}))
        made_json = folder.with_name(f"{folder.name}.json")
        extract(
            folder / "recipe.json",
            *self.weights(model),
            made.spec,
            made.manifest,
            parse_condition(condition),
            reads,
            Whole(made_json, list(layers), folder / "shards"),
            COMPUTE,
        )
        return {alias: feature_files.read_bundle(made_json).read(alias) for alias in layers}

    def reads(self, model: Model, condition: str) -> Path | LatentInputs:
        made = self.stimuli[condition]
        if model.latents is None:
            return made.folder
        encoder = self.study.models[model.latents]
        shards, statistics = self.latents(encoder, condition)
        told = tokens = None
        if all_families()[model.family].conditioned_on == "prompts":
            told = self.root / f"{model.name}-uncond.safetensors"
            prompts(model, "uncond", Texts({}, None), *self.weights(model), made.manifest, told, "cpu")
        if model.class_tokens is not None:
            other = self.study.models[model.class_tokens]
            self.features(other, condition)
            tokens = self.root / "features" / condition / other.name / f"{other.default_layer}.pt"
        return LatentInputs(shards, statistics, self.weights(encoder)[1], told, tokens)


STUDY = load()
# language models see no image: tests/extraction/test_language.py
SEEN = ("pixels", "latents")
ONE_OF_EACH = {
    model.family: name for name, model in reversed(STUDY.models.items()) if all_families()[model.family].reads in SEEN
}
# SAM takes inputs of one side only
ONE_OF_EACH["transformers_vision"] = "siglip2"


def test_the_catalogue_has_a_model_of_every_family() -> None:
    assert set(ONE_OF_EACH) == {name for name, kind in all_families().items() if kind.reads in SEEN}


@pytest.mark.parametrize("family", sorted(ONE_OF_EACH))
def test_a_family_runs_under_the_conditions_that_apply(family: str, made: dict[str, Stimuli], tmp_path: Path) -> None:
    model = STUDY.models[ONE_OF_EACH[family]]
    bench = Bench(tmp_path, STUDY, made)
    found = {}
    for condition in CONDITIONS:
        asked = model
        interpolates = "interpolate_positions" in all_families()[family].takes
        if condition == "equivariance" and (interpolates or family == "gaussian"):
            with pytest.raises(ValueError, match=f"{model.name} has a fixed table of positions"):
                bench.features(model, condition)
            if not interpolates:
                continue
            asked = replace(model, interpolate_positions=True)
        found[condition] = bench.features(asked, condition)
    clean = found["clean"]
    for condition, layers in found.items():
        for alias, features in layers.items():
            assert features.names == ("astronaut", "cat", "coffee", "rocket")
            assert features.values.shape == clean[alias].values.shape
            # images differ, and a condition changes what is seen of them
            # by more than rounding
            least = 100 * np.finfo(np.float32).eps * np.abs(features.values).max()
            assert pdist(features.values, "chebyshev").min() > least, (condition, alias)
            changed = np.abs(features.values - clean[alias].values).max() > least
            assert condition == "clean" or changed, (condition, alias)


@pytest.mark.parametrize("name", ["sit", "repa", "reg", "lightningdit", "vavae", "vfmvae"])
def test_an_untrained_twin_is_written_from_its_architecture(name: str, tmp_path: Path) -> None:
    model = STUDY.models[name]
    twin = Twin(model.family, model.built, 7)
    untrained_weights("miniature", twin, tmp_path / "checkpoint", tmp_path / "weights.json")
    weights = load_any(model, tmp_path / "checkpoint").module.state_dict()
    miniature_weights(model.family, model.miniature, 7, tmp_path / "narrow", tmp_path / "narrow.json")
    same = load_any(model, tmp_path / "narrow").module.state_dict()
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[key], same[key]) for key in weights)
    record = json.loads((tmp_path / "weights.json").read_text())
    assert (record["untrained"], record["seed"]) == (True, 7)


def test_every_family_that_learns_has_untrained_twins() -> None:
    learn = [kind for kind in all_families().values() if kind.reads != "features" and kind.has_weights]
    # what is fitted to latents alone has no weights to begin with
    assert {kind.untrained for kind in learn if not kind.fitted} == {"configuration", "architecture"}
    assert {kind.untrained for kind in learn if kind.fitted} == {None}
