"""Features of language models as platonic-rep's extract_features.py writes them, and what it calls files of scores."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from test_study import load

from diffalign import models
from diffalign.extraction.texts import text_features
from diffalign.io import feature_files, language_files
from diffalign.io.feature_files import Features
from diffalign.io.headers import StoreError
from diffalign.io.layouts import platonic
from diffalign.io.layouts.feature_tables import read_layers
from diffalign.models import find_family
from export_features import export_features

MODEL = load().models["openllama3b"]
TEXTS = {"c": "a red motorcycle in a garage", "a": "the Moon", "d": "höllisch grün, ¿sí?", "b": "an x"}
LAYERS = list(MODEL.layers)[::13]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    find_family("transformers_language").make_miniature(MODEL.miniature, folder, 0)
    return folder


def published(checkpoint: Path, texts: list[str], layers: list[int]) -> dict[str, Any]:
    """What the published script keeps of its model, in batches of two, by its definitions."""
    net = transformers.LlamaForCausalLM.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    tokens = tokenizer(texts, padding="longest", return_tensors="pt")
    feats, losses, bits = [], [], []
    for start in range(0, len(texts), 2):
        ids, mask = (tokens[key][start : start + 2] for key in ("input_ids", "attention_mask"))
        with torch.inference_mode():
            output = net(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        states = torch.stack([output.hidden_states[layer] for layer in layers], dim=1)
        feats.append((states * mask[:, None, :, None]).sum(2) / mask.sum(1)[:, None, None])
        each = torch.nn.functional.cross_entropy(output.logits[:, :-1].mT, ids[:, 1:], reduction="none")
        each = each * mask[:, :-1]
        losses.append(each.sum(1) / mask[:, :-1].sum(1))
        sizes = torch.tensor([len(text.encode()) for text in texts[start : start + 2]])
        bits.append(each.sum(1) / math.log(2) / sizes)
    return {
        "feats": torch.cat(feats),
        "num_params": sum(each.numel() for each in net.parameters()),
        "mask": tokens["attention_mask"],
        "loss": torch.cat(losses).mean(),
        "bpb": torch.cat(bits).mean(),
    }


def extracted(checkpoint: Path, folder: Path) -> language_files.Outputs:
    """The files of an extraction."""
    loaded = models.load_language(MODEL, checkpoint, torch.device("cpu"))
    found = text_features(loaded, {alias: MODEL.layers[alias] for alias in LAYERS}, TEXTS, 4)
    files = ("mean.json", "last.json", "losses.json", "losses.tsv")
    outputs = language_files.Outputs(*(folder / name for name in files))
    recipe = {
        "bundle": "openllama3b",
        "model": {**MODEL.recipe(), "layers": {alias: MODEL.layers[alias] for alias in LAYERS}},
        "conditioning": "caption",
        "class": "LlamaForCausalLM",
        "prompts": {},
        "weights": {"source": "miniature"},
    }
    parameters = loaded.parameters
    language_files.write(
        outputs, found.names, found.mean.__getitem__, found.last.__getitem__, found.measures, recipe, parameters, 4
    )
    return outputs


def test_a_language_model_is_exported_as_the_published_script_writes_it(checkpoint: Path, tmp_path: Path) -> None:
    made = extracted(checkpoint, tmp_path)
    sources = [feature_files.layer_path(made.mean, alias) for alias in LAYERS]
    path, names, recipe = tmp_path / "m.pt", tmp_path / "m.txt", tmp_path / "recipe.json"
    export_features("platonic", "clean", sources, None, path, names, recipe, losses=made.losses, tokens=made.table)
    ours = torch.load(path, weights_only=True)
    theirs = published(checkpoint, [TEXTS[name] for name in sorted(TEXTS)], [int(MODEL.layers[a]) for a in LAYERS])
    assert set(ours) == {"feats", "num_params", "mask", "loss", "bpb"} == set(theirs)
    for key, value in theirs.items():
        if key != "num_params":
            assert (ours[key].shape, ours[key].dtype) == (value.shape, value.dtype), key
            torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-5)
    assert ours["num_params"] == theirs["num_params"]
    # and both readers of such files take it
    assert platonic.read_quality(path)["bits_per_byte"] == pytest.approx(float(theirs["bpb"]), rel=1e-6)
    assert np.array_equal(read_layers(path, ["1"]).values[0], feature_files.read_features(sources[1]).values)


def test_what_is_not_known_has_no_key(tmp_path: Path) -> None:
    layer = Features(np.ones((2, 3), np.float32), ("a", "b"), {})
    path, names = tmp_path / "m.pt", tmp_path / "m.txt"

    def keys(predictions: platonic.Predictions | None) -> set[str]:
        platonic.write_features(path, names, [layer], predictions)
        return set(torch.load(path, weights_only=True))

    assert keys(None) == {"feats"}
    assert keys(platonic.Predictions(7, 1.0, 2.0)) == {"feats", "num_params", "loss", "bpb"}
    assert keys(platonic.Predictions(7, None, None, {"a": 1, "b": 3})) == {"feats", "num_params", "mask"}
    assert torch.load(path, weights_only=True)["mask"].tolist() == [[0, 0, 1], [1, 1, 1]]
    with pytest.raises(StoreError, match="images differ"):
        keys(platonic.Predictions(7, None, None, {"a": 1, "c": 3}))


def test_a_table_without_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("name\tread\na\tmany\n")
    with pytest.raises(StoreError, match=r"x.tsv: is no table of losses with the columns name and read \(invalid"):
        language_files.read_tokens(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_text("name\na\n")
    with pytest.raises(StoreError, match="is no table of losses"):
        language_files.read_tokens(tmp_path / "x.tsv")


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("mutual_knn", "mutual_knn_k7"),
        ("edit_distance_knn", "edit_distance_knn_k7"),
        ("cknna", "cknna_k7"),
        ("cka", "cka"),
        ("unbiased_cka", "unbiased_cka"),
        ("svcca", "svcca"),
    ],
)
def test_k_stands_in_the_names_of_files_that_have_it_there(metric: str, name: str) -> None:
    assert platonic.alignment_name(metric, 7) == name
