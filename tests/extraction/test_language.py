"""Language models: hidden states, both poolings, losses, and what goes wrong."""

import csv
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import things
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from test_study import load, mistakes

from diffalign import models
from diffalign.extraction.texts import TextFeatures, last_token, masked_mean, text_features
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.triplets import read_triplets
from diffalign.io import bundles, feature_files, language_files
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.headers import StoreError
from diffalign.models import LoadedLanguage, find_family
from diffalign.specs import Compute, Model
from extract_texts import Part, extract_texts
from merge_texts import merge_texts
from miniature_weights import miniature_weights
from untrained_configuration import untrained_configuration

CPU = torch.device("cpu")
STUDY = load()
# one of every class, and one with a table of positions
GPT2 = {"class": "GPT2LMHeadModel", "special": ["eos"], "n_embd": 48, "n_layer": 3, "n_head": 4, "bos_token_id": 256}
NAMES = ("bloom560m", "openllama3b", "olmo1b", "gemma2b", "mistral7b", "mixtral8x7b", "minilm", "gpt2")
CAUSAL = tuple(name for name in NAMES if name != "minilm")
TEXTS = {
    "c": "a red motorcycle parked in a garage",
    "a": "the Moon",
    "d": "höllisch grün, ¿sí?",
    "b": "x",
    "e": "the Moon",
}


def entry(name: str) -> Model:
    if name != "gpt2":
        return STUDY.models[name]
    return replace(STUDY.models["olmo1b"], name="gpt2", layers={f"h{i}": str(i) for i in range(4)}, miniature=GPT2)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, folder in folders.items():
        find_family("transformers_language").make_miniature(entry(name).miniature, folder, 0)
    return folders


def loaded(name: str, checkpoints: Mapping[str, Path], **changes: Any) -> LoadedLanguage:
    return models.load_language(replace(entry(name), **changes), checkpoints[name], CPU)


def features(name: str, found: LoadedLanguage, texts: Mapping[str, str] = TEXTS, batch_size: int = 8) -> TextFeatures:
    return text_features(found, entry(name).layers, texts, batch_size)


@pytest.mark.parametrize("name", NAMES)
def test_every_hidden_state_gives_finite_distinct_features(name: str, checkpoints: dict[str, Path]) -> None:
    found = features(name, loaded(name, checkpoints))
    assert found.names == ("a", "b", "c", "d", "e")
    for pooled in (found.mean, found.last):
        assert list(pooled) == list(entry(name).layers)
        for values in pooled.values():
            assert (values.shape, values.dtype) == ((5, 48), np.float32)
            assert np.array_equal(values[0], values[4])
        kept = list(pooled.values())
        assert all(not np.allclose(a, b, atol=1e-4) for a, b in zip(kept, kept[1:], strict=False))
        assert len(np.unique(kept[-1], axis=0)) == 4
    assert not np.allclose(found.mean["h1"], found.last["h1"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_features_do_not_depend_on_the_batch(name: str, checkpoints: dict[str, Path]) -> None:
    model = loaded(name, checkpoints)
    whole = features(name, model)
    for key, text in TEXTS.items():
        alone = features(name, model, {key: text}, 1)
        row = whole.names.index(key)
        for pooled in ("mean", "last"):
            for alias, values in getattr(whole, pooled).items():
                np.testing.assert_allclose(getattr(alone, pooled)[alias][0], values[row], atol=1e-5)
        np.testing.assert_allclose(alone.measures[0, :5], whole.measures[row, :5], rtol=1e-5)


@pytest.mark.parametrize("name", CAUSAL)
def test_features_do_not_depend_on_the_side_of_the_padding(name: str, checkpoints: dict[str, Path]) -> None:
    model = loaded(name, checkpoints)
    tokens = [text.ids for text in model.tokenize(list(TEXTS.values()))]
    width = max(map(len, tokens))
    pooled = {}
    for side in ("left", "right"):
        ids, mask = torch.full((len(tokens), width), model.pad), torch.zeros(len(tokens), width, dtype=torch.int64)
        for i, text in enumerate(tokens):
            where = slice(width - len(text), None) if side == "left" else slice(len(text))
            ids[i, where], mask[i, where] = torch.tensor(text), 1
        with torch.inference_mode():
            states, _ = model.forward(ids, mask)
        pooled[side] = [(masked_mean(state, mask), last_token(state, mask)) for state in states]
    for left, right in zip(pooled["left"], pooled["right"], strict=True):
        for a, b in zip(left, right, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_bits_per_byte_are_those_of_a_loop_over_tokens(name: str, checkpoints: dict[str, Path]) -> None:
    model = loaded(name, checkpoints)
    found = language_files.quality(features(name, model).measures)
    losses, bits = [], []
    for text in TEXTS.values():
        (tokens,) = model.tokenize([text])
        nats = 0.0
        for end in range(1, len(tokens.ids)):
            seen = torch.tensor([tokens.ids[:end]])
            with torch.inference_mode():
                logits = model.forward(seen, torch.ones_like(seen))[1]
            assert logits is not None
            nats -= float(logits[0, -1].log_softmax(0)[tokens.ids[end]])
        if len(tokens.ids) > 1:
            losses.append(nats / (len(tokens.ids) - 1))
            bits.append(nats / math.log(2) / len(text.encode()))
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(np.mean(bits), rel=1e-5)
    assert found["unpredicted"] == 5 - len(losses)


def test_totals_weigh_tokens_and_bytes() -> None:
    measures = np.array([[3, 3, 10, 2, 4.0, 8], [5, 4, 6, 3, 3.0, 8], [1, 1, 2, 0, 0.0, 8]])
    found = language_files.quality(measures)
    assert (found["texts"], found["tokens"], found["bytes"], found["truncated"], found["unpredicted"]) == (
        3,
        8,
        18,
        1,
        1,
    )
    assert found["loss"] == pytest.approx((4 / 2 + 3 / 3) / 2)
    assert found["bits_per_byte"] == pytest.approx((4 / 10 + 3 / 6) / 2 / math.log(2))
    assert found["total"]["loss"] == pytest.approx(7 / 5)
    assert found["total"]["bits_per_byte"] == pytest.approx(7 / 16 / math.log(2))
    assert language_files.quality(measures[2:])["loss"] is None


def test_hidden_states_are_those_of_transformers(checkpoints: dict[str, Path]) -> None:
    net = transformers.LlamaForCausalLM.from_pretrained(checkpoints["openllama3b"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoints["openllama3b"])
    found = features("openllama3b", loaded("openllama3b", checkpoints))
    for row, name in enumerate(found.names):
        with torch.inference_mode():
            states = net(**tokenizer(TEXTS[name], return_tensors="pt"), output_hidden_states=True).hidden_states
        assert len(states) == 27
        for i, state in enumerate(states):
            np.testing.assert_allclose(found.mean[f"h{i}"][row], state[0].mean(0).numpy(), atol=1e-5)
            np.testing.assert_allclose(found.last[f"h{i}"][row], state[0, -1].numpy(), atol=1e-5)


def test_an_encoder_predicts_nothing(checkpoints: dict[str, Path]) -> None:
    found = language_files.quality(features("minilm", loaded("minilm", checkpoints)).measures)
    assert found["bits_per_byte"] is None
    assert found["unpredicted"] == 5


def test_the_beginning_of_the_sequence_may_be_left_out(checkpoints: dict[str, Path]) -> None:
    model = loaded("openllama3b", checkpoints, exclude_bos=True)
    found, whole = features("openllama3b", model), features("openllama3b", loaded("openllama3b", checkpoints))
    (tokens,) = model.tokenize([TEXTS["c"]])
    with torch.inference_mode():
        states, _ = model.forward(torch.tensor([tokens.ids]), torch.ones(1, len(tokens.ids), dtype=torch.int64))
    np.testing.assert_allclose(found.mean["h5"][2], states[5][0, 1:].mean(0).numpy(), atol=1e-5)
    assert np.array_equal(found.last["h5"], whole.last["h5"])
    assert np.array_equal(found.measures, whole.measures)
    with pytest.raises(CheckpointError, match="bloom560m.exclude_bos: the tokenizer puts no such token"):
        loaded("bloom560m", checkpoints, exclude_bos=True)


def test_longer_texts_are_cut_and_counted(checkpoints: dict[str, Path]) -> None:
    model = loaded("openllama3b", checkpoints, context=4)
    found = features("openllama3b", model, {"long": "höllisch", "short": "abc"})
    # the beginning and three bytes: h and both bytes of ö; short texts are whole
    assert found.measures[:, :4].tolist() == [[10, 4, 3, 3], [4, 4, 3, 3]]
    assert language_files.quality(found.measures)["truncated"] == 1
    ends = loaded("minilm", checkpoints, context=4).tokenize(["abcdef"])[0]
    assert (len(ends.ids), ends.length, ends.size) == (4, 8, 2)


def test_without_a_padding_token_another_one_is_masked(checkpoints: dict[str, Path]) -> None:
    said = loaded("openllama3b", checkpoints).facts["padding"]
    assert said == "masked end-of-sequence tokens, for the tokenizer has no padding token"
    assert loaded("bloom560m", checkpoints).facts["padding"] == "masked padding tokens"


def test_memory_that_runs_out_halves_the_batch(checkpoints: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    model = loaded("olmo1b", checkpoints)
    seen = []

    def forward(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        seen.append(len(ids))
        if len(ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model.forward(ids, mask)

    found = features("olmo1b", replace(model, forward=forward), batch_size=4)
    assert seen == [4, 2, 1, 1, 1, 1]
    assert found.measures[:, -1].tolist() == [1] * 5
    assert "out of memory: from here on 1 texts at a time" in caplog.text
    for alias, values in features("olmo1b", model).mean.items():
        np.testing.assert_allclose(found.mean[alias], values, atol=1e-5)

    def never(ids: torch.Tensor, mask: torch.Tensor) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MemoryError, match="a single text of 35 tokens"):
        features("olmo1b", replace(model, forward=never))


def test_a_model_without_hidden_states_is_refused(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = transformers.GPT2LMHeadModel.forward

    def without(self: Any, **told: Any) -> Any:
        return whole(self, **{**told, "output_hidden_states": False})

    model = loaded("gpt2", checkpoints)
    monkeypatch.setattr(transformers.GPT2LMHeadModel, "forward", without)
    with pytest.raises(ValueError, match="gpt2: GPT2LMHeadModel gives no hidden states"):
        features("gpt2", model)


def test_a_layer_that_does_not_exist_is_named(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="4 hidden states, 0 to 3, so there is no h4"):
        text_features(loaded("gpt2", checkpoints), {"h3": "3", "h4": "4"}, TEXTS, 8)


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        (["ViTModel"], "ViTModel reads pixel_values and no texts"),
        (["T5ForConditionalGeneration"], "is an encoder and a decoder in one"),
        (["NoSuchModel"], "has no model 'NoSuchModel'"),
        ([], "names 0 architectures"),
    ],
)
def test_what_reads_no_texts_is_refused(
    architectures: list[str], message: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(checkpoints["gpt2"], tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": architectures}))
    with pytest.raises(CheckpointError, match=message):
        models.load_language(entry("gpt2"), tmp_path / "copy", CPU)


@pytest.mark.parametrize("name", ["bloom560m", "minilm"])
def test_a_checkpoint_with_a_missing_key_is_refused(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(checkpoints[name], tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    tensors = load_file(path)
    dropped = next(key for key in sorted(tensors) if "layer" in key and key.endswith("weight"))
    save_file({key: value for key, value in tensors.items() if key != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="keys 1 missing"):
        models.load_language(entry(name), tmp_path / "copy", CPU)


def test_what_is_not_installed_is_named(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=r"models.gpt2.device_map needs the package accelerate"):
        loaded("gpt2", checkpoints, device_map="auto")
    with pytest.raises(CheckpointError, match=r"models.gpt2.quantization needs the package"):
        loaded("gpt2", checkpoints, quantization="4bit")


def test_a_language_model_is_held_in_its_precision(checkpoints: dict[str, Path]) -> None:
    half, whole = loaded("gpt2", checkpoints, precision="bfloat16"), loaded("gpt2", checkpoints)
    for alias, values in features("gpt2", half).mean.items():
        exact = features("gpt2", whole).mean[alias]
        assert values.dtype == np.float32
        assert 0 < np.abs(values - exact).max() < 0.1


def test_miniatures_and_untrained_twins_are_seeded(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    miniature_weights("transformers_language", GPT2, 0, tmp_path / "again", tmp_path / "again.json")
    a, b = load_file(checkpoints["gpt2"] / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(a[key], b[key]) for key in a)
    model = entry("gpt2")
    untrained_configuration("gpt2", model.weights, checkpoints["gpt2"], tmp_path / "twin", tmp_path / "twin.json")
    assert not list((tmp_path / "twin").glob("*.safetensors"))
    twins = [
        models.load_language(replace(model, untrained=True, seed=seed), tmp_path / "twin", CPU) for seed in (0, 0, 1)
    ]
    first, same, other = (features("gpt2", twin).mean["h3"] for twin in twins)
    assert np.array_equal(first, same)
    assert not np.allclose(first, other)


def test_parameters_are_counted_once(checkpoints: dict[str, Path]) -> None:
    net = transformers.GPT2LMHeadModel.from_pretrained(checkpoints["gpt2"])
    assert loaded("gpt2", checkpoints).parameters == sum(p.numel() for p in net.parameters())


def outputs(folder: Path) -> language_files.Outputs:
    files = ("gpt2.json", "gpt2-last.json", "losses.json", "losses.tsv")
    return language_files.Outputs(*(folder / name for name in files))


def test_one_job_or_its_parts_write_both_bundles(tmp_path: Path) -> None:
    model = replace(entry("gpt2"), context=30)
    weights, record = tmp_path / "checkpoint", tmp_path / "weights.json"
    miniature_weights("transformers_language", GPT2, 0, weights, record)
    recipe, texts = tmp_path / "recipe.json", tmp_path / "texts.json"
    recipe.write_text(
        json.dumps({"format": 1, "bundle": "gpt2", "conditioning": "caption", "noise": None, "model": model.recipe()})
    )
    language_files.write_texts(texts, language_files.Texts(TEXTS, {"conditioning": "caption"}, {"dataset": "five"}))
    layers = list(model.layers)
    given, compute = (recipe, weights, record, texts, layers), Compute("cpu", 2, 0)
    whole, merged = outputs(tmp_path / "whole"), outputs(tmp_path / "merged")
    extract_texts(*given, whole, compute, tmp_path / "shards")
    parts = [tmp_path / f"{part}-of-2.safetensors" for part in range(2)]
    for part, path in enumerate(parts):
        extract_texts(*given, Part(path, part, 2), compute, tmp_path / "shards")
    merge_texts(parts, merged, 2)
    for kind in ("mean", "last"):
        for alias in layers:
            a, b = (feature_files.read_bundle(getattr(each, kind)).read(alias) for each in (whole, merged))
            np.testing.assert_allclose(a.values, b.values, atol=1e-5)
            assert a.names == b.names == tuple(sorted(TEXTS))
            assert a.recipe == b.recipe
            assert a.recipe["bundle"] == ("gpt2-last" if kind == "last" else "gpt2")
            assert a.recipe["pooling"] == ("last token" if kind == "last" else "mean")
            assert a.recipe["model"].get("last", False) == (kind == "last")
            assert a.recipe["prompts"]["truncated"] == 1
    quality = language_files.read_quality(whole.losses)
    assert quality["miniature"]
    assert quality["bits_per_byte"] == pytest.approx(language_files.read_quality(merged.losses)["bits_per_byte"])
    rows = list(csv.DictReader(whole.table.read_text().splitlines(), delimiter="\t"))
    assert [row["name"] for row in rows] == sorted(TEXTS)
    assert rows[1]["loss"] == ""
    assert json.loads(whole.mean.read_text())["count"] == 5
    with pytest.raises(StoreError, match="2 parts hold 4 images of 5|hold 2 images"):
        bundles.read_parts(parts[:1])


def test_keys_of_other_families_mean_nothing_to_a_language_model() -> None:
    found = mistakes(
        {
            "models": {
                "bloom560m": {"noise": "t0.5", "conditionings": ["uncond", "caption"], "tokens": "class"},
                "dinov2": {"exclude_bos": True},
            }
        }
    )
    assert "models.bloom560m.noise: means nothing" in found
    assert "a language model reads no 'uncond'; allowed: label, caption, description, caption2" in found
    assert "models.bloom560m.tokens: means nothing" in found
    assert "models.dinov2.exclude_bos: means nothing for family 'timm_vision'" in found


def test_names_of_language_models() -> None:
    assert STUDY.bundle("bloom560m-caption_h3") == "bloom560m"
    assert STUDY.bundle("bloom560m-description-untrained-last_h3") == "bloom560m-description-untrained-last"
    assert STUDY.model_of("minilm-last").last
    assert STUDY.layer("minilm-last") == "h6"
    with pytest.raises(ValueError, match="dinov2 has no variant 'last'"):
        STUDY.bundle("dinov2-last")
    # how a model is spread over devices changes no recipe
    assert replace(STUDY.models["minilm"], device_map="auto").recipe() == STUDY.models["minilm"].recipe()


def concepts() -> tuple[NDArray[np.str_], dict[str, dict[str, str]]]:
    path = things("things_concepts.tsv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
    (definition,) = [key for key in rows[0] if key.startswith("Definition")]
    words = {row["uniqueID"]: row["Word"] for row in rows}
    return np.array([row["uniqueID"] for row in rows]), {
        "word": words,
        "photo": {name: f"a photo of a {word}" for name, word in words.items()},
        "definition": {row["uniqueID"]: row[definition] or row["Word"] for row in rows},
    }


@pytest.mark.parametrize(
    ("said", "published"),
    [
        ("word", [0.3771, 0.3846, 0.3880, 0.4098, 0.4130, 0.4134, 0.4140]),
        ("photo", [0.3588, 0.3701, 0.3809, 0.4078, 0.4286, 0.4188, 0.4460]),
        ("definition", [0.4478, 0.4388, 0.4356, 0.4632, 0.4736, 0.4721, 0.4991]),
    ],
)
def test_real_minilm_chooses_the_odd_one_as_it_is_known_to(said: str, published: list[float], tmp_path: Path) -> None:
    order, texts = concepts()
    from weights import weights

    model = STUDY.models["minilm"]
    weights("minilm", model.weights, tmp_path / "checkpoint", tmp_path / "weights.json", tmp_path / "downloads")
    found = text_features(models.load_language(model, tmp_path / "checkpoint", CPU), model.layers, texts[said], 64)
    position = {name: row for row, name in enumerate(found.names)}
    rows = [position[name] for name in order]
    choices = read_triplets(things("test_triplets.csv"), len(order), first=1, odd="column")
    accuracy = [odd_one_out(values[rows], choices).credit().mean() for values in found.mean.values()]
    assert accuracy == pytest.approx(published, abs=0.002)
