"""Runs of trajectories: samples and their conditions, starts, samplers, and what is refused; and the script's files."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_latent_transformers import checkpoint, model_of
from test_models import STUDY
from test_sample_scripts import Study

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.checkpoints import describe
from diffalign.io.headers import StoreError
from diffalign.io.latents import write_shard
from diffalign.io.manifest import read_manifest
from diffalign.io.trajectory_files import Trajectories, read_trajectories
from diffalign.models import find_family
from diffalign.sampling.classes import Sampler, class_samples, starting_noise
from diffalign.sampling.runs import Files, Run, prepare
from diffalign.sampling.trajectories import State
from diffalign.specs import Compute, Model, Weights
from diffalign.stimuli.class_numbers import LabelError
from trajectories import trajectories

IMAGES_RECORD = {"dataset": "squares", "manifest_sha256": "0" * 64}
CPU = torch.device("cpu")
GAUSSIAN = Model(
    "gaussian",
    "gaussian",
    Weights("miniature"),
    {},
    "",
    latents="vae",
    path="linear",
    miniature={"in_channels": 4, "input_size": 8},
)
MODELS = {"sit": model_of("sit"), "reg": model_of("reg"), "sd1": STUDY.models["sd1"], "gaussian": GAUSSIAN}
# the sampler of each model that asks it least
PLAIN: dict[str, Any] = {
    "name": "plain",
    "start": "noise",
    "strength": None,
    "sampler": "euler",
    "steps": 3,
    "guidance": 1.0,
    "prompts": None,
    "classes": None,
    "samples": 5,
}


@dataclass
class Place:
    """Checkpoints of some models, and the files of the study of samples: 40 images of ten classes, an autoencoder."""

    study: Study

    def files(self, name: str) -> Files:
        folder = self.study.folder
        weights = folder / f"weights_{name}"
        if not weights.exists():
            weights.mkdir()
            if name in ("sit", "reg"):
                checkpoint(name, weights)
            else:
                model = MODELS[name]
                find_family(model.family).make_miniature(model.miniature, weights, 0)
            describe(folder / f"weights_{name}.json", weights, {"source": "file"})
        return Files(
            *(folder / each for each in (f"weights_{name}", f"weights_{name}.json", "vae", "vae.json")),
            (folder / "shard",),
            folder / "stats.pt",
            folder / "manifest.tsv",
        )

    def recipe(self, name: str, **changes: Any) -> dict[str, Any]:
        return {
            "format": 1,
            "model": MODELS[name].recipe(),
            "autoencoder": replace(STUDY.models["sdvae"], latent_statistics="measured").encoder(),
            "configuration": {**PLAIN, **changes},
            "code": [],
        }

    def run(self, name: str, **changes: Any) -> Run:
        return prepare(self.recipe(name, **changes), self.files(name), CPU)

    def written(self, name: str, folder: Path, batch: int = 2, seed: int = 3, **changes: Any) -> Trajectories:
        recipe = folder.with_suffix(".json")
        recipe.write_text(json.dumps(self.recipe(name, **changes)))
        images = self.study.folder / "dataset.json"
        images.write_text(json.dumps(IMAGES_RECORD))
        trajectories(recipe, self.files(name), images, seed, folder, Compute("cpu", batch, 0))
        made = read_trajectories(folder)
        assert made.recipe["images"] == IMAGES_RECORD
        return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    study = Study(tmp_path_factory.mktemp("runs") / "files")
    study.prepare()
    return Place(study)


def states_of(run: Run, names: list[str] | None = None, seed: int = 0) -> list[State]:
    return list(run.states(names or list(run.groups), seed))


def test_a_seed_is_written_whole_and_depends_on_no_batch(place: Place, tmp_path: Path) -> None:
    settings = {"sampler": "heun", "guidance": 2.0, "classes": [1, 3]}
    found = place.written("sit", tmp_path / "two", **settings)
    assert found.names == ("class_1_00000", "class_1_00001", "class_1_00002", "class_3_00000", "class_3_00001")
    assert found.groups == ("class_1",) * 3 + ("class_3",) * 2
    assert [level.t for level in found.levels] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert found.recipe["seed"] == 3
    assert found.recipe["configuration"] == {**PLAIN, **settings}
    assert found.recipe["weights"]["sha256"]
    assert [len(part.names) for part in found.chunks("x0")] == [2, 2, 1]
    parts = list(found.chunks())
    every = {key: np.concatenate([part.arrays[key] for part in parts]) for key in found.tensors}
    assert {key: array.shape for key, array in every.items()} == {
        "latents": (5, 4, 4, 8, 8),
        "x0": (5, 4, 4, 8, 8),
        "images": (5, 4, 64, 64, 3),
        "x0_images": (5, 4, 64, 64, 3),
    }
    np.testing.assert_array_equal(every["x0"][:, -1], every["latents"][:, -1])
    np.testing.assert_array_equal(every["x0_images"][:, -1], every["images"][:, -1])
    assert np.abs(every["x0_images"][:, 0] - every["images"][:, 0].astype(np.float32)).max() > 0.1
    assert every["images"].min() >= 0
    assert every["images"].max() <= 1
    for batch, folder in ((5, "five"), (1, "one")):
        again = place.written("sit", tmp_path / folder, batch, **settings)
        np.testing.assert_allclose(again.final_latents(), found.final_latents(), atol=1e-4, rtol=1e-4)
    more = place.written("sit", tmp_path / "more", 4, **{**settings, "samples": 8})
    rows = [more.names.index(name) for name in found.names]
    np.testing.assert_allclose(more.final_latents()[rows], found.final_latents(), atol=1e-4, rtol=1e-4)
    other = place.written("sit", tmp_path / "seed", 5, 4, **settings)
    assert np.abs(other.final_latents() - found.final_latents()).max() > 0.1


def test_samples_of_classes_are_those_of_the_rule_samples(place: Place) -> None:
    run = place.run("sit", sampler="heun", guidance=1.5, samples=10)
    labels = {name: int(group.removeprefix("class_")) for name, group in run.groups.items()}
    assert sorted(labels.values()) == list(range(10))
    expected = class_samples(run.denoiser, run.levels, labels, 8, "sit", 7, Sampler("heun", 3, 1.5), CPU)
    torch.testing.assert_close(states_of(run, seed=7)[-1].latents, expected)


def test_stored_states_can_be_asked_again(place: Place) -> None:
    for name, tokens in (("sit", False), ("reg", True), ("gaussian", False)):
        run = place.run(name)
        names = list(run.groups)
        for state in states_of(run)[:-1]:
            beside = {"class_tokens": state.class_tokens} if state.class_tokens is not None else {}
            assert bool(beside) == tokens
            again = run.denoiser.predict(state.latents, state.level, {**run.conditioning(names), **beside})
            assert state.prediction is not None
            assert torch.equal(again.x0, state.prediction.x0)
        with pytest.raises(ValueError, match="1 of 1 names are no samples of this run: nobody"):
            run.conditioning(["nobody"])


def test_class_tokens_are_stored_where_a_model_has_them(place: Place, tmp_path: Path) -> None:
    found = place.written("reg", tmp_path / "reg")
    assert found.tensors[-1] == "class_tokens"
    assert next(found.chunks("class_tokens")).arrays["class_tokens"].shape[:2] == (2, 4)
    with pytest.raises(ValueError, match="reg has class tokens, which images of a start 'img2img' do not"):
        place.run("reg", start="img2img", strength=0.5)


def test_models_without_conditions_have_samples_and_no_guidance(place: Place) -> None:
    plain, other = (place.run("gaussian", guidance=by, prompts=["a cat"], classes=[2]) for by in (1.0, 4.0))
    assert dict(plain.groups) == {f"sample_{n:05d}": f"sample_{n:05d}" for n in range(5)}
    assert plain.conditioning(["sample_00001"]) == {}
    assert torch.equal(states_of(plain)[-1].latents, states_of(other)[-1].latents)


@pytest.mark.parametrize("sampler", ["sde", "heun"])
def test_noise_is_of_the_sample_and_the_step(place: Place, sampler: str) -> None:
    run = place.run("gaussian", sampler=sampler, samples=3, steps=4)
    whole = [state.latents for state in states_of(run)]
    alone = [state.latents for state in states_of(run, ["sample_00002"])]
    for every, one in zip(whole, alone, strict=True):
        torch.testing.assert_close(every[2:], one)
    # the seed and the step of noise matter: what steps of the SDE added is another for each
    first = starting_noise(list(run.groups), (4, 8, 8), "gaussian", 0)
    assert torch.equal(whole[0], first)
    moved = []
    for here, there in zip(states_of(run)[:-2], states_of(run)[1:-1], strict=True):
        assert here.prediction is not None
        ode = there.level.alpha * here.prediction.x0 + there.level.sigma * here.prediction.eps
        moved.append((there.latents - ode).flatten())
    drawn = bool(torch.stack(moved).std() > 0.1)
    assert drawn == (sampler == "sde")
    if drawn:
        assert float(torch.corrcoef(torch.stack(moved))[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("name", "settings"), [("sit", {"sampler": "sde", "classes": [2]}), ("sd1", {"sampler": "DDPMScheduler"})]
)
def test_samples_of_several_seeds_in_one_batch_are_those_of_each(
    place: Place, name: str, settings: dict[str, Any]
) -> None:
    run = place.run(name, samples=2, **settings)
    names = list(run.groups)
    together = list(run.states([*names, *names], [0, 0, 7, 7]))
    for at, seed in ((slice(0, 2), 0), (slice(2, 4), 7)):
        for every, one in zip(together, states_of(run, seed=seed), strict=True):
            torch.testing.assert_close(every.latents[at], one.latents, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="3 seeds of 2 names; expected one for all or one for each"):
        next(run.states(names, [0, 1, 2]))


def test_prompts_are_dealt_and_the_pipeline_s_scheduler_runs(place: Place) -> None:
    run = place.run("sd1", sampler="pipeline", guidance=4.0, prompts=["a cat", "a dog"], samples=3)
    assert dict(run.groups) == {"prompt_0_00000": "a cat", "prompt_0_00001": "a cat", "prompt_1_00000": "a dog"}
    assert run.facts["scheduler"]["class"] == "PNDMScheduler"
    assert set(run.conditioning(["prompt_0_00000"])) == {"prompt_embeds"}
    steps: list[int] = []

    @contextmanager
    def around(step: int) -> Iterator[None]:
        steps.append(step)
        yield

    states = list(run.states(list(run.groups), 0, around))
    assert [state.level for state in states] == list(run.levels)
    assert len(states) == 4
    # entered once a step, although the warm-up of PNDM asks twice for its first
    assert steps == [0, 1, 2]
    alone = states_of(run, ["prompt_1_00000"])
    torch.testing.assert_close(alone[-1].latents, states[-1].latents[2:], atol=1e-4, rtol=1e-4)
    same = place.run("sd1", sampler="DDIMScheduler", guidance=4.0, prompts=["a dog", "a dog"], samples=2)
    assert set(same.groups.values()) == {"a dog"}
    embeds = run.conditioning(["prompt_0_00000", "prompt_1_00000"])["prompt_embeds"]
    torch.testing.assert_close(same.conditioning(["prompt_0_00000"])["prompt_embeds"][0], embeds[1])
    assert not torch.allclose(embeds[0], embeds[1], atol=1e-3)


def test_trajectories_of_images_begin_at_the_strength(place: Place) -> None:
    for name, sampler, nearest in (("sit", "heun", 0.0), ("sd1", "DDIMScheduler", 0.05), ("sd1", "euler", 1e-6)):
        run = place.run(name, start="img2img", strength=0.4, sampler=sampler, steps=30, samples=2)
        names = list(run.groups)
        assert dict(run.groups) == {name: name for name in names}
        assert abs(run.levels[0].t - 0.4) <= nearest + 1e-9
        first, *_, last = states_of(run)
        clean = torch.stack([run.latents[each] for each in names])
        noise = starting_noise(names, (4, 8, 8), name, 0)
        expected = first.level.alpha * clean + first.level.sigma * noise
        torch.testing.assert_close(first.latents, expected, atol=1e-5, rtol=1e-5)
        assert last.latents.isfinite().all()
    assert len(place.run("sit", start="img2img", strength=0.4, steps=30).levels) == 31


def test_images_are_noised_at_every_level_with_one_noise(place: Place) -> None:
    run = place.run("sit", start="noising", samples=4, sampler=None)
    names = list(run.groups)
    assert names == sorted(names)
    smaller = place.run("sit", start="noising", samples=2, sampler=None)
    assert set(smaller.groups) < set(names)
    clean = torch.stack([run.latents[each] for each in names])
    noise = starting_noise(names, (4, 8, 8), "sit", 5)
    states = states_of(run, seed=5)
    for state in states:
        torch.testing.assert_close(state.latents, state.level.alpha * clean + state.level.sigma * noise)
    assert [state.level.t for state in states] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert states[-1].prediction is None
    # each is asked for its class
    labels = {image.name: image.label_index for image in read_manifest(place.study.folder / "manifest.tsv")}
    assert run.conditioning(names)["labels"].tolist() == [labels[name] for name in names]
    of_class = place.run("sit", start="noising", samples=4, classes=[3], sampler=None)
    assert Counter(labels[name] for name in of_class.groups) == {3: 4}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("sit", {"steps": 1}, "1 steps; dynamics need at least 2"),
        ("sit", {"samples": 0}, "0 samples; expected at least 1"),
        ("sit", {"start": "noising", "samples": 0}, "0 images; expected at least 1"),
        ("sit", {"start": "noising", "samples": 41}, "41 images are asked for, and the data set has 40"),
        ("sit", {"start": "noising", "classes": [3]}, "5 images of classes 3 are asked for, and the data set has 4"),
        ("sit", {"start": "photo"}, "unknown start 'photo'; allowed: noise, img2img, noising"),
        ("sit", {"sampler": "pipeline"}, "family 'sit' has no scheduler of diffusers, .* allowed: euler, heun, sde"),
        ("gaussian", {"sampler": "DDIMScheduler"}, "family 'gaussian' has no scheduler of diffusers"),
        ("sit", {"classes": [3, 10]}, "sit has classes 0 to 9, not 10"),
        ("sit", {"classes": [1, 2, 3], "samples": 2}, "2 samples are fewer than the 3 classes"),
        ("sd1", {"prompts": ["a", "b", "c"], "samples": 2}, "2 samples are fewer than the 3 prompts"),
        ("sit", {"start": "img2img"}, r"strength None; expected t in \(0, 1\.000\]"),
        ("sd1", {"start": "img2img", "strength": 0.99}, r"strength 0\.99; expected t in \(0, 0\.936\]"),
        (
            "sd1",
            {"sampler": "FlowMatchHeunDiscreteScheduler"},
            "compatible with its PNDMScheduler: DDIMScheduler, .*sde",
        ),
        ("sd1", {"start": "img2img", "sampler": "pipeline", "strength": 2.0}, r"strength 2\.0; expected t in \(0, 1\]"),
        ("sd1", {"start": "img2img", "sampler": "DDIMScheduler", "strength": 0.01}, "1 step of DDIMScheduler is left"),
    ],
)
def test_what_a_model_cannot_follow_is_refused(place: Place, name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        place.run(name, **changes)


def test_files_that_make_no_trajectories_are_refused(place: Place, tmp_path: Path) -> None:
    recipe, files = place.recipe("sit"), place.files("sit")
    vfm = {**recipe, "autoencoder": {**recipe["autoencoder"], "name": "dino", "family": "timm_vision"}}
    with pytest.raises(CheckpointError, match="dino: family 'timm_vision' has no decoder here; families with one: "):
        prepare(vfm, files, CPU)
    images = read_manifest(files.manifest)
    for shape, said in (((4, 8, 6), "latents are 8 x 6; dynamics need square images"), ((4, 6, 6), "of side 8, but")):
        write_shard(tmp_path / "shard", images, [torch.zeros(len(images), *shape)])
        with pytest.raises(ValueError, match=said):
            prepare(recipe, replace(files, latents=(tmp_path / "shard",)), CPU)
    write_shard(tmp_path / "shard", images[:-1], [torch.zeros(len(images) - 1, 4, 8, 8)])
    with pytest.raises(StoreError, match="1 only in .*manifest.tsv"):
        prepare(place.recipe("sit", start="noising", sampler=None), replace(files, latents=(tmp_path / "shard",)), CPU)


def test_images_are_of_the_classes_that_a_model_was_trained_on(place: Place, tmp_path: Path) -> None:
    files = replace(place.files("sit"), record=tmp_path / "record.json")

    def groups(trained: dict[str, int], **changes: Any) -> int:
        describe(files.record, files.weights, {"source": "training", "classes": trained})
        return len(prepare(place.recipe("sit", start="noising", sampler=None, **changes), files, CPU).groups)

    same = {f"c{n}": n for n in range(10)}
    assert groups(same, samples=40) == 40
    exchanged = {**same, "c3": 4, "c4": 3}
    with pytest.raises(LabelError, match=r"8 images are of other classes than sit was .* first: i03 \(c3, 3\), i04"):
        groups(exchanged, samples=40)
    # only the images that are asked for
    assert groups(exchanged, samples=4, classes=[5]) == 4


def test_nothing_is_written_where_latents_are_no_numbers(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(recipe: Any, files: Files, device: torch.device) -> Run:
        run = prepare(recipe, files, device)
        convert = run.denoiser.convert

        def breaks(output: Any, x_t: torch.Tensor, level: Any, conditioning: Any) -> Any:
            found = convert(output, x_t, level, conditioning)
            if level.t < 0.5 and 3 in conditioning["labels"].tolist():
                found.x0[conditioning["labels"] == 3] = torch.nan
            return found

        return replace(run, denoiser=replace(run.denoiser, convert=breaks))

    monkeypatch.setattr("trajectories.prepare", broken)
    with pytest.raises(ValueError, match=r"after step 3 of 3, from t = 0\.333 to 0\.000, for class_3_00000$"):
        place.written("sit", tmp_path / "0")
    assert [path.name for path in tmp_path.iterdir()] == ["0.json"]
