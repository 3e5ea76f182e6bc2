"""The published Stable Diffusion features, un-pooled, measured on tiny pipelines by running the published code."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, catalogue, golden, merge, read_yaml
from test_stimuli import rows

from diffalign import models
from diffalign.alignment.metrics import METRICS
from diffalign.config.study import Study, load
from diffalign.extraction import inputs
from diffalign.extraction.taps import Taps
from diffalign.io.latents import Latents, write_shard
from diffalign.models import all_families, find_family
from diffalign.specs import Model, Weights
from diffalign.stimuli.captions import label_prompt

CPU = torch.device("cpu")
NAMES = ("a", "b", "c")
NOWHERE = Weights("folder")
# settings are those of the profile; the tiny pipelines stand in the place of its weights, and run in the precision that
# the published code takes on a CPU
PROFILE = ("config.yaml", "profiles/things/published.yaml")
PIPELINES = {"sd1": "stable-diffusion-1-tiny", "sd3": "stable-diffusion-3-tiny"}
IMAGES = {"sd1": "images", "sd3": "images_sd3"}
# the row of a guided batch that is told the prompt; of Stable Diffusion 1 only this one was kept
ROW = {"uncond": 0, "cond": 1}
PROMPTS = {"uncond": "", "cond": label_prompt("cat")}
CONDITIONINGS = {"uncond": "uncond", "cond": "label"}


@pytest.fixture(scope="module")
def published() -> Mapping[str, np.ndarray]:
    assert json.loads(golden("stable_diffusion_features.json").read_text())["seed_per_image"] == 42
    return dict(np.load(golden("stable_diffusion_features.npz")))


@pytest.fixture(scope="module")
def study() -> Study:
    config: dict[str, Any] = {}
    for file in PROFILE:
        merge(config, read_yaml(ROOT / file))
    return load(config, catalogue(), all_families(), METRICS)


@pytest.fixture(scope="module")
def latents(
    study: Study, published: Mapping[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Latents]:
    found = {}
    for name, pipeline in PIPELINES.items():
        images = torch.from_numpy(published[IMAGES[name]])
        entry = study.models[str(study.models[name].latents)]
        pixels = replace(entry.input, size=images.shape[-1])
        vae = replace(entry, layers={"latent": entry.layers["latent"]}, input=pixels, precision="float32")
        encoder = models.load(vae, golden("pipelines") / pipeline, CPU)
        batch = {"pixels": inputs.normalised(images, pixels), "names": list(NAMES)}
        with torch.inference_mode(), Taps(encoder.module, vae.layers, lambda output: output) as taps:
            encoded = taps.run(lambda encoder=encoder, batch=batch: encoder.forward(batch))["latent"]
        folder = tmp_path_factory.mktemp(name)
        write_shard(folder / "shard.safetensors", rows(*NAMES), [encoded])
        mean, std = encoder.latent_statistics
        torch.save({"mean": mean, "std": std}, folder / "stats.pt")
        found[name] = Latents([folder / "shard.safetensors"], folder / "stats.pt")
    return found


@pytest.mark.parametrize(
    ("name", "family_name"), [("sd1", "diffusers_unet"), ("sd3", "diffusers_mmdit"), ("sd3", "diffusers_pipeline")]
)
@pytest.mark.parametrize("condition", ["5|uncond", "20|uncond", "60|uncond", "20|cond"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_features_equal_the_published_ones(
    name: str,
    family_name: str,
    condition: str,
    batch_size: int,
    study: Study,
    published: Mapping[str, np.ndarray],
    latents: dict[str, Latents],
) -> None:
    strength, told = condition.split("|")
    prefix = f"{name}|{condition}|"
    modules = [key.removeprefix(prefix) for key in published if key.startswith(prefix)]
    entry = study.model_of(f"{name}-s{strength}-{CONDITIONINGS[told]}")
    layers = {alias: module for alias, module in entry.layers.items() if module in modules}
    assert len(layers) == {"sd1": 5, "sd3": 4}[name]
    folder = golden("pipelines") / PIPELINES[name]
    default = next(iter(layers))
    model = replace(entry, family=family_name, layers=layers, default_layer=default, precision="float32")
    prompts = find_family(family_name).embed_prompts(model, folder, [PROMPTS[told]], CPU)
    del prompts["text"]
    denoiser = models.load_denoiser(model, folder, CPU)
    level = denoiser.level(str(model.noise))
    dataset = inputs.NoisyLatents(latents[name], level, model.noise_key, prompts, dict.fromkeys(NAMES, 0))
    loaded = denoiser.at(level)
    parts: dict[str, list[torch.Tensor]] = {alias: [] for alias in layers}
    with torch.inference_mode(), Taps(loaded.module, layers, loaded.tokens) as taps:
        for batch in inputs.Batches(dataset, batch_size, 0, CPU):
            for alias, tokens in taps.run(lambda batch=batch: loaded.forward(batch)).items():
                parts[alias].append(tokens)
    for alias, tokens in parts.items():
        expected = torch.from_numpy(published[prefix + layers[alias]])
        expected = expected.flatten(2).transpose(1, 2) if name == "sd1" else expected[:, ROW[told]]
        # relative: features reach 26, and narrow instruction sets sum in another order
        assert (torch.cat(tokens) - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))


def test_a_text_alone_is_its_last_token(published: Mapping[str, np.ndarray]) -> None:
    folder = golden("pipelines") / PIPELINES["sd1"]
    model = Model("sd1", "diffusers_unet", NOWHERE, {}, "")
    texts = ["a cat that sleeps", label_prompt("cat"), ""]
    found = find_family(model.family).embed_prompts(model, folder, texts, CPU)
    expected = published["sd1|text|a photo of a cat"]
    assert np.abs(found["prompt_embeds"][1, :14].numpy() - expected[0]).max() <= 1e-4
    assert np.abs(found["text"][1].numpy() - expected[0, -1]).max() <= 1e-4


def test_every_key_of_the_golden_is_checked(published: Mapping[str, np.ndarray]) -> None:
    conditions = {tuple(key.split("|")[1:3]) for key in published if key.count("|") == 3}
    assert conditions == {("5", "uncond"), ("20", "uncond"), ("60", "uncond"), ("20", "cond")}
    assert {key for key in published if key.count("|") != 3} == {*IMAGES.values(), "sd1|text|a photo of a cat"}
