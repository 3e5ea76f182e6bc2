"""Class-conditional samples: names, noise by name, batches, and images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_latent_transformers import checkpoint, model_of

from diffalign import models
from diffalign.io.manifest import Image
from diffalign.models import Denoiser
from diffalign.sampling.classes import (
    Sampler,
    check_classes,
    class_samples,
    images,
    noise_levels,
    sample_names,
    starting_noise,
)

CPU = torch.device("cpu")


def loaded(name: str, folder: Path) -> Denoiser:
    return models.load_denoiser(model_of(name), checkpoint(name, folder), CPU)


def made(
    denoiser: Denoiser, labels: Mapping[str, int], sampler: Sampler, seed: int = 0, batch: int = 99
) -> dict[str, torch.Tensor]:
    """Name -> latents, in batches."""
    assert denoiser.only_side is not None
    at = noise_levels(denoiser, denoiser.only_side, sampler.steps, CPU)
    found: dict[str, torch.Tensor] = {}
    for start in range(0, len(labels), batch):
        here = dict(list(labels.items())[start : start + batch])
        rows = class_samples(denoiser, at, here, denoiser.only_side, "net", seed, sampler, CPU)
        found |= dict(zip(here, rows, strict=True))
    return found


def test_names_are_those_of_classes_and_numbers_in_order() -> None:
    assert sample_names(2, 2) == {"class_0_00000": 0, "class_0_00001": 0, "class_1_00000": 1, "class_1_00001": 1}
    many = list(sample_names(1000, 3))
    assert many[7 * 3 + 2] == "class_007_00002"
    assert many == sorted(many)
    assert set(sample_names(10, 3)) < set(sample_names(10, 5))


@pytest.mark.parametrize("name", ["sit", "lightningdit", "reg"])
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_samples_depend_on_no_other_sample(name: str, method: str, tmp_path: Path) -> None:
    denoiser, labels = loaded(name, tmp_path), sample_names(4, 2)
    sampler = Sampler(method, 3, 2.0)
    whole = made(denoiser, labels, sampler)
    reordered = dict(sorted(labels.items(), reverse=True))
    for other in (made(denoiser, labels, sampler, batch=3), made(denoiser, reordered, sampler, batch=1)):
        for each in labels:
            torch.testing.assert_close(other[each], whole[each], atol=1e-4, rtol=1e-4)
    names = list(whole)
    assert all(not torch.allclose(whole[a], whole[b], atol=0.1) for a in names for b in names if a != b)


def test_the_class_and_guidance_matter(tmp_path: Path) -> None:
    denoiser = loaded("sit", tmp_path)
    labels = {"class_0_00000": 0}
    plain, guided = (made(denoiser, labels, Sampler("euler", 4, by)) for by in (1.0, 3.0))
    other = made(denoiser, {"class_0_00000": 1}, Sampler("euler", 4, 1.0))
    for each in (guided, other):
        assert not torch.allclose(each["class_0_00000"], plain["class_0_00000"], atol=1e-3)
    # without guidance, only the class is asked
    at = noise_levels(denoiser, 8, 4, CPU)
    x = starting_noise(["class_0_00000"], (4, 8, 8), "net", 0)
    for here, there in zip(at, at[1:], strict=False):
        found = denoiser.predict(x, here, {"labels": torch.tensor([0])})
        x = there.alpha * found.x0 + there.sigma * found.eps
    torch.testing.assert_close(plain["class_0_00000"], x[0], atol=1e-5, rtol=1e-5)


def test_noise_is_keyed_by_seed_model_name_and_what_it_is_of() -> None:
    first = starting_noise(["a", "b"], (4, 8, 8), "net", 0)
    assert torch.equal(first[1:], starting_noise(["b"], (4, 8, 8), "net", 0))
    others = [
        starting_noise(["a"], (4, 8, 8), "net", 1),
        starting_noise(["a"], (4, 8, 8), "other", 0),
        starting_noise(["a"], (4, 8, 8), "net", 0, "class_tokens"),
        first[1:],
    ]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack([first[0].flatten(), other.flatten()]))[0, 1])) < 0.25
    everything = starting_noise(list(sample_names(10, 10)), (4, 8, 8), "net", 0)
    assert float(everything.mean()) == pytest.approx(0, abs=0.03)
    assert float(everything.std()) == pytest.approx(1, abs=0.02)


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    denoiser = replace(loaded("sit", tmp_path), classes=None)
    with pytest.raises(ValueError, match="is not conditioned on classes"):
        noise_levels(denoiser, 8, 2, CPU)


def labelled(*labels: int) -> list[Image]:
    return [Image(f"i{n}", f"c{label}", label, "", "", "", "") for n, label in enumerate(labels)]


def test_classes_of_another_data_set_are_refused() -> None:
    check_classes(labelled(0, 1, 2, 1, 0, 2), 3, "net")
    for labels, said in (
        ((0, 1, 2, 1), "2 classes of the data set have one image, first: 0, 2; diversity is of pairs"),
        ((0, 2), "net has classes 0 to 2, but the data set is without images of 1 of them, first: 1$"),
        ((0, 1, 2, 3), "with 1 others, first: 3$"),
        ((0, 1, 7), "without images of 1 of them, first: 2 and with 1 others, first: 7$"),
        ((0, 1, -1), "1 images have no class, first: i2"),
    ):
        with pytest.raises(ValueError, match=said):
            check_classes(labelled(*labels), 3, "net")


def test_images_are_rounded_and_what_is_no_image_is_named() -> None:
    latents = torch.tensor([0.0, 0.001, 0.003, 0.5, 1.0, 1.2]).view(6, 1, 1, 1).expand(6, 3, 2, 1)
    found = images(latents, lambda z: z, [str(n) for n in range(6)])
    assert found.shape == (6, 2, 1, 3)
    assert found.dtype == np.uint8
    assert found[:, 0, 0, 0].tolist() == [0, 0, 1, 128, 255, 255]
    with pytest.raises(ValueError, match="decoded images are NaN or infinite for b$"):
        images(torch.tensor([0.0, torch.inf]).view(2, 1, 1, 1).expand(2, 3, 1, 1), lambda z: z, ["a", "b"])
