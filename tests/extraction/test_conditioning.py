"""What models are told, the clocks of their schedulers, and variants without an image or without training."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_models import load_any
from test_stimuli import rows
from test_study import load
from transformers import CLIPTokenizer

from diffalign import models
from diffalign.extraction.passes import pooled_features
from diffalign.extraction.taps import Taps
from diffalign.io import prompt_files
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.headers import StoreError
from diffalign.io.latents import encode_names
from diffalign.io.manifest import Image
from diffalign.models import find_family, schedules
from diffalign.models.text_encoders import tell_cut_texts, write_clip
from diffalign.randomness import SEEDINGS, NoiseKey, normal
from diffalign.specs import Model
from diffalign.stimuli.captions import CaptionError, label_prompt, prompt_texts, read_texts, read_words

CPU = torch.device("cpu")
STUDY = load()
PIPELINES = ("flux", "pixart", "sana", "lumina", "qwenimage")
# channels and side of a latent
LATENTS = {"sd1": (4, 8), "pixart": (4, 8), "sana": (32, 2)}


def image(name: str, **said: Any) -> Image:
    return Image(**{**vars(rows(name)[0]), **said})


def test_labels_become_prompts_as_published() -> None:
    # concepts of THINGS: digits tell homonyms apart, underscores stand for blanks
    assert label_prompt("bat1") == "a photo of a bat"
    assert label_prompt("ice_cream") == "a photo of a ice cream"
    images = [image("a", label="cat"), image("b", label="ice_cream"), image("c", label="cat")]
    assert prompt_texts(images, "label") == (["a photo of a cat", "a photo of a ice cream"], [0, 1, 0])


def test_texts_come_from_the_manifest_or_from_a_file() -> None:
    images = [image("a", caption="x"), image("b", caption="y", description="z")]
    assert prompt_texts(images, "caption") == (["x", "y"], [0, 1])
    assert prompt_texts(images, "caption2", {"b": "u", "a": "v", "other": "w"}) == (["v", "u"], [0, 1])
    with pytest.raises(CaptionError, match="1 of 2 images have no description, first: a "):
        prompt_texts(images, "description")
    with pytest.raises(CaptionError, match="2 of 2 images have no caption2, first: a, b "):
        prompt_texts(images, "caption2")
    with pytest.raises(CaptionError, match="1 of 2 images have no caption, first: b "):
        prompt_texts(images, "caption", {"a": "x"})


def test_synsets_are_no_words() -> None:
    images = [image("a", label="n01440764")]
    with pytest.raises(CaptionError, match="WordNet synsets.* first: a; let datasets"):
        prompt_texts(images, "label")
    assert prompt_texts(images, "label", {"n01440764": "tench"}) == (["a photo of a tench"], [0])
    with pytest.raises(CaptionError, match="no label, first: a "):
        prompt_texts(images, "label", {"n01443537": "goldfish"})


def test_files_of_texts(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": "a cat", "y": "ein Hund für alle"}))
    assert read_texts(tmp_path / "a.json") == {"x": "a cat", "y": "ein Hund für alle"}
    (tmp_path / "a.tsv").write_text('name\tcaption\nx\ta "cat"\ny\t a dog, too\n')
    assert read_texts(tmp_path / "a.tsv") == {"x": 'a "cat"', "y": " a dog, too"}
    (tmp_path / "words.txt").write_text("n01440764 tench, Tinca tinca\n\nn01443537 goldfish\n")
    assert read_words(tmp_path / "words.txt") == {"n01440764": "tench", "n01443537": "goldfish"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", '{"x": "a", "x": "b"}', "1 names stand more than once, first: x"),
        ("a.json", '{"x": 3}', "expected a mapping of names to texts"),
        ("a.json", "{", "cannot be read"),
        ("a.tsv", "name\ttext\nx\ta\nx\tb\n", "1 names stand more than once, first: x"),
        ("a.tsv", "x\ta\n", "expected two columns"),
        ("a.npz", "", "'.npz' is not known here; allowed: .json, .tsv, .npy"),
    ],
)
def test_files_of_texts_that_cannot_be_used(file: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(CaptionError, match=message) as caught:
        read_texts(tmp_path / file)
    assert str(tmp_path / file) in str(caught.value)


def test_given_embeddings_are_joined_on_names(tmp_path: Path) -> None:
    embeds = np.arange(24, dtype=np.float32).reshape(3, 2, 4)
    np.savez(tmp_path / "a.npz", names=np.array(["c", "a", "b"]), prompt_embeds=embeds)
    found = prompt_files.read_embeddings(tmp_path / "a.npz", ["a", "c"])
    assert np.array_equal(found["prompt_embeds"], embeds[[1, 0]])
    assert np.array_equal(found["text"], embeds[[1, 0]].mean(1))
    save_file(
        {"names": encode_names(["b", "a"]), "prompt_embeds": torch.eye(2), "pooled_prompt_embeds": torch.ones(2, 3)},
        tmp_path / "a.safetensors",
    )
    found = prompt_files.read_embeddings(tmp_path / "a.safetensors", ["a", "b"])
    assert found["prompt_embeds"].tolist() == [[[0, 1]], [[1, 0]]]
    assert found["pooled_prompt_embeds"].shape == (2, 3)
    prompt_files.write_prompts(tmp_path / "p.safetensors", found, [0, 1], ["a", "b"], {"conditioning": "optim"})
    read = prompt_files.read_prompts(tmp_path / "p.safetensors")
    assert (read.row_of, read.facts) == ({"a": 0, "b": 1}, {"conditioning": "optim"})
    assert sorted(read.arguments) == ["pooled_prompt_embeds", "prompt_embeds"]
    assert torch.equal(read.text, found["text"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": np.array(["a"]), "prompt_embeds": np.ones((1, 2))}, "no embedding for 1 images, first: b"),
        ({"names": np.array(["a", "a"]), "prompt_embeds": np.ones((2, 2))}, "1 names stand more than once, first: a"),
        ({"names": np.array(["a", "b"]), "prompt_embeds": np.ones((3, 2))}, "a row for each of the 2 names"),
        ({"names": np.array(["a", "b"]), "prompt_embeds": np.ones(2)}, r"shape \(2,\); expected"),
        ({"names": np.array([1, 2]), "prompt_embeds": np.ones((2, 2))}, "names are int64"),
        ({"names": np.array(["a", "b"]), "embeds": np.ones((2, 2))}, "holds embeds, names, but no prompt_embeds"),
        ({"names": np.array(["a", {}], dtype=object), "prompt_embeds": np.ones((2, 2))}, "cannot be read"),
    ],
)
def test_embeddings_that_cannot_be_used(arrays: Mapping[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        prompt_files.read_embeddings(tmp_path / "a.npz", ["a", "b"])
    assert str(tmp_path / "a.npz") in str(caught.value)


def test_prompts_that_are_not_finite_are_named(tmp_path: Path) -> None:
    tensors = {"prompt_embeds": torch.tensor([[1.0], [float("nan")]]), "text": torch.zeros(2, 1)}
    with pytest.raises(StoreError, match="prompt_embeds is NaN or infinite for b, c"):
        prompt_files.write_prompts(tmp_path / "p", tensors, [0, 1, 1], ["a", "b", "c"], {})


SCHEDULERS = {name: STUDY.models[name].miniature["scheduler"] for name in ("sd1", "sd2", "sd2turbo")}


@pytest.fixture(scope="module")
def scheduler_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, entry in SCHEDULERS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        settings = {key: value for key, value in entry.items() if key != "class"}
        betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        getattr(diffusers, entry["class"])(**betas, **settings).save_pretrained(folders[name] / "scheduler")
    return folders


@pytest.mark.parametrize(
    ("name", "strength", "step", "t"),
    [("sd1", 20, 201, 0.37), ("sd1", 1, 11, None), ("sd2", 20, 191, 0.36), ("sd2turbo", 20, 199, 0.36)],
)
def test_published_strengths_are_the_steps_of_each_scheduler(
    name: str, strength: int, step: int, t: float | None, scheduler_folders: dict[str, Path]
) -> None:
    level = schedules.noise_level(scheduler_folders[name], f"s{strength}")
    assert (level.timestep, level.strength) == (step, strength)
    if t is not None:
        # the table is rounded
        assert level.t == pytest.approx(t, abs=0.0055)


def test_strengths_of_a_scheduler_of_second_order_are_those_of_first_order(tmp_path: Path) -> None:
    """It lists two calls a step, of which a pipeline skips order times as many."""
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for kind in ("HeunDiscreteScheduler", "EulerDiscreteScheduler"):
        getattr(diffusers, kind)(**betas).save_pretrained(tmp_path / kind / "scheduler")
    for strength in ("s20", "s80"):
        heun, euler = (
            schedules.noise_level(tmp_path / kind, strength, 100)
            for kind in ("HeunDiscreteScheduler", "EulerDiscreteScheduler")
        )
        assert heun.t == pytest.approx(euler.t, abs=0.01)


def test_labels_that_are_numbers_say_nothing_to_a_text_encoder() -> None:
    numbered = [Image(f"i{n}", str(n), n, "", "", "", "") for n in range(2)]
    with pytest.raises(
        CaptionError, match="the labels of 2 images are numbers, which prompts leave out, first: i0, i1"
    ):
        prompt_texts(numbered, "label")
    assert prompt_texts(numbered, "label", {"0": "zero", "1": "one"})[0] == ["a photo of a zero", "a photo of a one"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_strength_is_of_the_steps_that_are_asked_for(name: str, scheduler_folders: dict[str, Path]) -> None:
    folder = scheduler_folders[name]
    scheduler = schedules.scheduler_of(folder)
    scheduler.set_timesteps(20)
    # diffusers: steps - int(steps * strength)
    assert schedules.noise_level(folder, "s25", 20).timestep == float(scheduler.timesteps[15])
    assert schedules.noise_level(folder, "t0.5", 20) == schedules.noise_level(folder, "t0.5")
    with pytest.raises(CheckpointError, match="s1 is less than one of 20 steps"):
        schedules.noise_level(folder, "s1", 20)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [5, 60, 100])
def test_latents_at_a_strength_are_what_the_scheduler_makes(
    name: str, strength: int, scheduler_folders: dict[str, Path]
) -> None:
    scheduler = schedules.scheduler_of(scheduler_folders[name])
    scheduler.set_timesteps(100)
    level = schedules.noise_level(scheduler_folders[name], f"s{strength}")
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    step = scheduler.timesteps[100 - strength]
    noised = scheduler.scale_model_input(scheduler.add_noise(latents, noise, step[None]), step)
    assert torch.allclose(level.alpha * latents + level.sigma * noise, noised, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_noise_level_is_exact_and_its_clock_lies_between_two_steps(
    name: str, scheduler_folders: dict[str, Path]
) -> None:
    squared = schedules.scheduler_of(scheduler_folders[name]).alphas_cumprod.double().numpy()
    step_levels = np.sqrt(1 - squared) / (np.sqrt(squared) + np.sqrt(1 - squared))
    before = -1.0
    for t in (0, 0.05, 0.2, 0.5, 0.9, 1):
        level = schedules.noise_level(scheduler_folders[name], f"t{t}")
        assert level.t == pytest.approx(t, abs=1e-12)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert level.timestep > before
        before = level.timestep
        if 0 < t < 1:
            assert step_levels[math.floor(level.timestep)] <= t <= step_levels[math.ceil(level.timestep)]
    # a step's own level is told as this step
    level = schedules.variance_preserving(float(step_levels[353]), squared)
    assert level.timestep == pytest.approx(353, abs=1e-6)


def test_a_strength_on_a_schedule_that_depends_on_the_image_is_refused(tmp_path: Path) -> None:
    diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).save_pretrained(tmp_path / "scheduler")
    assert schedules.noise_level(tmp_path, "t0.3").timestep == pytest.approx(300)
    with pytest.raises(CheckpointError, match="shifts its steps by the size of the image"):
        schedules.noise_level(tmp_path, "s20")
    with pytest.raises(CheckpointError, match="scheduler_config.json: missing"):
        schedules.noise_level(tmp_path / "nowhere", "t0.3")


def test_further_draws_are_others_and_the_first_is_the_one_there_was() -> None:
    def draw(index: int, seeding: str = "name", name: str = "a") -> np.ndarray:
        return normal((4, 8), NoiseKey(seeding, 42, "m"), name, "noise", index)

    assert np.array_equal(draw(0), normal((4, 8), NoiseKey("name", 42, "m"), "a", "noise"))
    drawn = [draw(index, seeding) for seeding in SEEDINGS if seeding != "published" for index in range(3)]
    assert all(not np.allclose(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert np.array_equal(draw(1, "constant", "a"), draw(1, "constant", "b"))
    # as published: seeds 42 + 1000 i
    again = torch.Generator().manual_seed(1042)
    torch.randn(4, 8, generator=again)
    assert np.array_equal(draw(1, "constant"), torch.randn(4, 8, generator=again).numpy())
    # whatever the seed of the study
    published = NoiseKey("published", 0, "m")
    assert np.array_equal(normal((4, 8), published, "b", "noise", 1), draw(1, "constant"))
    first = torch.Generator().manual_seed(42)
    assert np.array_equal(normal((4, 8), published, "b", "posterior"), torch.randn(4, 8, generator=first).numpy())
    assert np.array_equal(normal((4, 8), published, "b", "noise"), torch.randn(4, 8, generator=first).numpy())


TEXTS = ["", "a photo of a cat", "a cat that sleeps on a wall"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in ("sd1", *PIPELINES):
        folders[name] = tmp_path_factory.mktemp(name)
        find_family(STUDY.models[name].family).make_miniature(STUDY.models[name].miniature, folders[name], 0)
    return folders


@pytest.fixture(scope="module")
def prompts(checkpoints: dict[str, Path]) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: find_family(STUDY.models[name].family).embed_prompts(STUDY.models[name], folder, TEXTS, CPU)
        for name, folder in checkpoints.items()
    }


def batch(name: str, told: Mapping[str, torch.Tensor], texts: list[int]) -> dict[str, Any]:
    channels, side = LATENTS.get(name, (16, 8))
    latents = torch.randn(len(texts), channels, side, side, generator=torch.Generator().manual_seed(1))
    arguments = {key: value[texts] for key, value in told.items() if key != "text"}
    return {"names": [f"image{i}" for i in range(len(texts))], "latents": latents, **arguments}


@pytest.mark.parametrize("name", ["sd1", *PIPELINES])
def test_every_layer_sees_image_and_text_and_no_batch(
    name: str, checkpoints: dict[str, Path], prompts: dict[str, dict[str, torch.Tensor]]
) -> None:
    model = STUDY.models[name]
    loaded = load_any(model, checkpoints[name])
    whole = batch(name, prompts[name], [0, 1, 2])
    _, features = pooled_features(loaded, model.layers, [whole])
    assert list(features) == list(model.layers)
    kept = list(features.values())
    for values in kept:
        assert np.isfinite(values).all()
        assert not np.allclose(values[0], values[1])
    for shallow, deep in zip(kept, kept[1:], strict=False):
        assert shallow.shape != deep.shape or not np.allclose(shallow, deep, atol=1e-4)
    tensors = {key: value for key, value in whole.items() if key != "names"}
    singles = [{"names": ["x"], **{key: value[i : i + 1] for key, value in tensors.items()}} for i in range(3)]
    _, alone = pooled_features(loaded, model.layers, singles)
    assert max(np.abs(alone[alias] - features[alias]).max() for alias in features) <= 1e-5
    _, others = pooled_features(loaded, model.layers, [batch(name, prompts[name], [1, 1, 1])])
    deepest = list(features)[-1]
    assert not np.allclose(others[deepest][0], features[deepest][0], atol=1e-4)
    assert np.allclose(others[deepest][1], features[deepest][1], atol=1e-5)


@pytest.mark.parametrize("name", ["sd1", "flux", "qwenimage"])
def test_texts_are_embedded_alike_alone_and_among_others(
    name: str, checkpoints: dict[str, Path], prompts: dict[str, dict[str, torch.Tensor]]
) -> None:
    model = STUDY.models[name]
    alone = find_family(model.family).embed_prompts(model, checkpoints[name], TEXTS[1:2], CPU)
    among = prompts[name]
    assert torch.allclose(alone["text"][0], among["text"][1], atol=1e-6)
    length = alone["prompt_embeds"].shape[1]
    assert torch.allclose(alone["prompt_embeds"][0], among["prompt_embeds"][1, :length], atol=1e-6)
    # shorter texts end in padding
    mask = among.get("prompt_embeds_mask")
    assert mask is None or mask.sum(1).tolist() == [mask[0].sum(), length, mask.shape[1]]
    assert not torch.allclose(among["text"][1], among["text"][2])


def test_tokens_of_the_image_follow_those_of_the_text(
    checkpoints: dict[str, Path], prompts: dict[str, dict[str, torch.Tensor]]
) -> None:
    model = STUDY.models["lumina"]
    loaded = load_any(model, checkpoints["lumina"])
    seen: dict[str, torch.Tensor] = {}

    def keep(output: torch.Tensor) -> torch.Tensor:
        seen["joint"] = output
        seen["image"] = loaded.tokens(output)
        return output

    # texts of other lengths: the images begin at other places
    told = {**prompts["lumina"], "prompt_attention_mask": prompts["lumina"]["prompt_attention_mask"].clone()}
    told["prompt_attention_mask"][0, 100:] = 0
    with torch.inference_mode(), Taps(loaded.module, {"b3": "layers.3"}, keep) as taps:
        taps.run(lambda: loaded.forward(batch("lumina", told, [0, 1, 2])))
    lengths = told["prompt_attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        assert torch.equal(seen["image"][row], seen["joint"][row, length : length + 16])


def test_what_a_pipeline_cannot_do_is_said(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = STUDY.models["flux"]
    index = json.loads((checkpoints["flux"] / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluksPipeline"}))
    with pytest.raises(CheckpointError, match=r"has no 'FluksPipeline'"):
        models.load_denoiser(model, tmp_path, CPU)
    del index["transformer"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="names neither of transformer, unet"):
        models.load_denoiser(model, tmp_path, CPU)


@pytest.mark.parametrize("name", ["dinov2", "siglip2", "sdvae", "sd1", "pixart", "dit"])
def test_an_untrained_twin_needs_the_configuration_alone(name: str, tmp_path: Path) -> None:
    model = STUDY.models[name]
    found = find_family(model.family)
    found.make_miniature(model.miniature, tmp_path, 0)
    trained = load_any(model, tmp_path).module.state_dict()
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()

    def twin(seed: int) -> dict[str, torch.Tensor]:
        untrained = Model(**{**vars(model), "untrained": True, "seed": seed})
        if name == "sd1":
            assert found.embed_prompts(untrained, tmp_path, ["a cat"], CPU)["text"].shape == (1, 32)
        return load_any(untrained, tmp_path).module.state_dict()

    first, again, other = twin(7), twin(7), twin(8)
    assert first.keys() == trained.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert any(not torch.equal(first[key], trained[key]) for key in first)
    with pytest.raises(CheckpointError):
        load_any(model, tmp_path)


def test_a_variant_is_the_model_that_its_name_means() -> None:
    study = load({"models": {"sd1": {"embeddings": {"optim": "{dataset}.npz"}}}})
    shared = study.model_of("sd1-s20-optim-shared-draws4-untrained_mid")
    assert (shared.noise, shared.seeding, shared.draws, shared.untrained) == ("s20", "constant", 4, True)
    for typed in ("sd1-textlast-label", "sd1-optim"):
        alone = study.model_of(typed)
        assert (list(alone.layers), alone.default_layer, alone.noise, alone.latents) == (["text"], "text", None, None)
        assert study.layer(typed) == "text"
    typed_names = ("sd1", "sd1-shared", "sd1-commonnoise", "sd1-draws2", "sd1-untrained")
    recipes = {typed: study.model_of(typed).recipe() for typed in typed_names}
    assert len({json.dumps(recipe, sort_keys=True) for recipe in recipes.values()}) == 5
    assert recipes["sd1-commonnoise"] == {**recipes["sd1"], "seeding": "common"}
    assert Model.from_recipe(recipes["sd1-draws2"]).draws == 2
    # the seed of an untrained twin is one of its weights
    other = load({"seed": 7})
    assert other.model_of("dinov2").recipe() == study.model_of("dinov2").recipe()
    assert other.model_of("dinov2-untrained").recipe() != study.model_of("dinov2-untrained").recipe()
    # prompts depend on no layer and no latents
    more = load({"models": {"sd1": {"layers": {"extra": "conv_out"}, "latents": "sdvae"}}})
    assert more.models["sd1"].prompt_spec() == study.models["sd1"].prompt_spec()


def test_texts_that_a_tokenizer_cuts_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_clip(tmp_path, "", 1, width=32, projection=False)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    pipeline = SimpleNamespace(
        components={"tokenizer": tokenizer, "tokenizer_2": None},
        tokenizer=tokenizer,
        tokenizer_2=None,
        encode_prompt=lambda prompt: None,
    )
    with caplog.at_level("WARNING", logger="diffalign"):
        tell_cut_texts(pipeline, ["a cat", "b" * 75])
        assert caplog.text == ""
        tell_cut_texts(pipeline, ["a cat", "b" * 76])
    assert (
        f"1 of 2 texts are longer than the 77 tokens that tokenizer reads, and are cut, first: {'b' * 76}"
        in caplog.text
    )
