"""DiT through diffusers: its clock of discrete steps, its labels, and checkpoints of both kinds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_models import STUDY

from diffalign import models
from diffalign.extraction.taps import Taps
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.noise import nearest_step

CPU = torch.device("cpu")
DIT = STUDY.models["dit"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("dit")
    models.find_family("diffusers_dit").make_miniature(DIT.miniature, made, 0)
    return made


def test_t_is_the_nearest_of_the_published_steps(folder: Path) -> None:
    # the schedule of DiT: a thousand betas from 0.0001 to 0.02
    kept, schedule = 1.0, []
    for step in range(1000):
        kept *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
        schedule.append((math.sqrt(kept), math.sqrt(1 - kept)))
    found = models.load_denoiser(DIT, folder, CPU)
    for t in (0.0, 0.2, 0.5, 0.8, 1.0):
        level = found.level(f"t{t}")
        alpha, sigma = schedule[int(level.timestep)]
        assert (level.alpha, level.sigma) == pytest.approx((alpha, sigma), abs=1e-5)
        nearest = min(schedule, key=lambda each: abs(each[1] / (each[0] + each[1]) - t))
        assert level.t == pytest.approx(nearest[1] / sum(nearest), abs=1e-5)
    assert found.level("t0").timestep == 0
    assert found.level("t1").timestep == 999
    with pytest.raises(ValueError, match="no img2img strength 's20'"):
        found.level("s20")
    with pytest.raises(ValueError, match="outside"):
        nearest_step([0.5], 1.5)


def test_every_layer_sees_the_label_and_the_step_and_no_other_image(folder: Path) -> None:
    torch.manual_seed(0)
    latents = torch.randn(3, 4, 8, 8)
    denoiser = models.load_denoiser(DIT, folder, CPU)

    def stages(t: str, labels: list[int], rows: slice = slice(None)) -> dict[str, torch.Tensor]:
        loaded = denoiser.at(denoiser.level(t))
        batch: dict[str, Any] = {"latents": latents[rows], "labels": torch.tensor(labels)[rows]}
        with torch.inference_mode(), Taps(loaded.module, DIT.layers, loaded.tokens) as taps:
            return taps.run(lambda: loaded.forward(batch))

    null = stages("t0.5", [1000] * 3)
    assert list(null) == ["embed", *(f"b{i}" for i in range(28)), "final"]
    assert all(tokens.shape[:2] == (3, 16) for tokens in null.values())
    told, later = stages("t0.5", [1000, 7, 999]), stages("t0.6", [1000] * 3)
    for alias in ("b0", "b27", "final"):
        assert torch.allclose(told[alias][0], null[alias][0], atol=1e-5)
        assert not torch.allclose(told[alias][1], null[alias][1], atol=1e-3)
        assert not torch.allclose(later[alias][0], null[alias][0], atol=1e-4)
        alone = stages("t0.5", [1000, 7, 999], slice(1, 2))
        assert torch.allclose(alone[alias][0], told[alias][1], atol=1e-4)


def test_weights_of_older_pipelines_are_read_without_running_code(folder: Path, tmp_path: Path) -> None:
    for part in ("transformer", "scheduler"):
        (tmp_path / part).mkdir()
        for file in (folder / part).glob("*.json"):
            (tmp_path / part / file.name).write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"neither diffusion_pytorch_model\.safetensors nor"):
        models.load_denoiser(DIT, tmp_path, CPU)
    weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
    torch.save(weights, tmp_path / "transformer" / "diffusion_pytorch_model.bin")
    loaded = models.load_denoiser(DIT, tmp_path, CPU)
    assert (loaded.latent_channels, loaded.only_side, loaded.classes, loaded.multiple) == (4, 8, 1000, 2)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.module.state_dict().items())


def test_a_transformer_that_is_no_dit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder of diffusers"):
        models.load_denoiser(DIT, tmp_path, CPU)
    (tmp_path / "transformer").mkdir()
    config = json.loads((folder / "transformer" / "config.json").read_text())
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({**config, "norm_type": "layer_norm"}))
    (tmp_path / "transformer" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match="so this is no DiT"):
        models.load_denoiser(DIT, tmp_path, CPU)
