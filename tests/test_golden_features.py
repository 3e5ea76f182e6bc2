"""The published Stable Diffusion 3 features, measured on tiny pipelines by running the published code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import golden
from test_stimuli import rows

from diffalign import models
from diffalign.extraction import inputs
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.taps import Taps
from diffalign.latents import Latents, write_shard
from diffalign.models import family
from diffalign.study import ImageInput, Model, Weights

CPU = torch.device("cpu")
LAYERS = {f"b{i}": f"transformer_blocks.{i}" for i in range(4)}
PIXELS = ImageInput(384, "bicubic", True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NOWHERE = Weights("folder")
# the published rule: one generator seeded with 42 for every image, posterior sample first, noise second
PUBLISHED = {"seeding": "constant", "seed": 42}


@pytest.mark.parametrize("strength", [5, 20, 60])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_sd3_features_equal_the_published_ones(strength: int, batch_size: int, tmp_path: Path) -> None:
    folder = golden("pipelines") / "stable-diffusion-3-tiny"
    published = np.load(golden("stable_diffusion_features.npz"))
    assert json.loads(golden("stable_diffusion_features.json").read_text())["seed_per_image"] == 42
    vae = Model(
        "sd3vae",
        "diffusers_vae",
        NOWHERE,
        {"latent": "posterior"},
        "latent",
        input=PIXELS,
        posterior="sample",
        **PUBLISHED,
    )
    sd3 = Model("sd3", "diffusers_mmdit", NOWHERE, LAYERS, "b0", latents="sd3vae", noise=f"s{strength}", **PUBLISHED)
    images = torch.from_numpy(published["images_sd3"])
    names = ["a", "b", "c"]

    encoder = models.load(vae, folder, None, CPU)
    mean, std = encoder.latent_statistics
    pixels = {"pixels": inputs.normalised(images, PIXELS), "names": names}
    with torch.inference_mode(), Taps(encoder.module, vae.layers, lambda output: output) as taps:
        encoded = taps.run(lambda: encoder.forward(pixels))["latent"]
    shard, statistics = tmp_path / "latents_rank00_shard000.safetensors", tmp_path / "latents_stats.pt"
    write_shard(shard, rows(*names), [encoded])
    torch.save({"mean": mean, "std": std}, statistics)

    prompts = family(sd3.family).embed_prompts(folder, [""], CPU)
    level = family(sd3.family).noise_level(sd3, folder, sd3.noise)
    dataset = inputs.NoisyLatents(
        Latents([shard], statistics), level, sd3.seeding, sd3.seed, prompts, dict.fromkeys(names, 0)
    )
    transformer = models.load(sd3, folder, sd3.noise, CPU)
    _, features = pooled_features(transformer, LAYERS, inputs.Batches(dataset, batch_size, 0, CPU))

    checked = 0
    for alias, path in LAYERS.items():
        key = f"sd3|{strength}|uncond|{path}"
        if key in published:
            assert np.abs(features[alias] - published[key][:, 0].mean(axis=1)).max() <= 1e-4
            checked += 1
    assert checked == 4
