from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_stimuli import rows

from diffalign.io import latents
from diffalign.io.headers import StoreError
from diffalign.io.latents import Latents, RunningMoments


def test_moments_of_batches_equal_those_of_the_whole() -> None:
    torch.manual_seed(0)
    whole = 3 + 2 * torch.randn(50, 4, 6, 6)
    moments = RunningMoments()
    for part in whole.split([1, 7, 30, 12]):
        moments.add(part)
    mean, std = moments.result()
    assert mean.shape == std.shape == (1, 4, 1, 1)
    assert torch.allclose(mean.flatten(), whole.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(std.flatten(), whole.transpose(0, 1).flatten(1).std(1), atol=1e-5)


def test_shards_are_in_the_published_layout_and_read_back_by_name(tmp_path: Path) -> None:
    images = rows(*(f"näme{i:02d}" for i in range(10)))
    torch.manual_seed(0)
    encoded = torch.randn(10, 4, 3, 3)
    shards = [tmp_path / f"latents_rank00_shard{i:03d}.safetensors" for i in range(3)]
    parts = latents.split(images, 3)
    assert [len(part) for part in parts] == [3, 3, 4]
    at = 0
    for path, part in zip(shards, parts, strict=True):
        latents.write_shard(path, part, encoded[at : at + len(part)].split(2))
        at += len(part)
    layout = load_file(shards[0])
    assert {key: (value.shape[0], value.dtype) for key, value in layout.items()} == {
        "latents": (3, torch.float32),
        "labels": (3, torch.int64),
        "names": (3, torch.uint8),
    }
    statistics = tmp_path / "latents_stats.pt"
    mean, std = torch.randn(1, 4, 1, 1), torch.rand(1, 4, 1, 1) + 1
    torch.save({"mean": mean, "std": std}, statistics)
    read = Latents(shards, statistics)
    assert list(read) == [image.name for image in images]
    for image, latent in zip(images, encoded, strict=True):
        assert torch.allclose(read[image.name], ((latent - mean) / std)[0], atol=1e-6)


def test_latents_that_cannot_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"latents.shards is 3, but there are only 2 images"):
        latents.split(rows("a", "b"), 3)
    broken = torch.zeros(2, 1, 1, 1)
    broken[1] = torch.nan
    with pytest.raises(StoreError, match="NaN or infinite for b"):
        latents.check_finite(broken, ["a", "b"])
    latents.write_shard(tmp_path / "s.safetensors", rows("a", "b"), [torch.zeros(2, 4, 1, 1)])
    torch.save({"mean": torch.zeros(1, 16, 1, 1), "std": torch.ones(1, 16, 1, 1)}, tmp_path / "stats.pt")
    with pytest.raises(StoreError, match=r"stats.pt: mean and std of the shape \(1, 16, 1, 1\) do not .* \(4, 1, 1\)"):
        Latents([tmp_path / "s.safetensors"], tmp_path / "stats.pt")
