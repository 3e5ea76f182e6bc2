"""Names, targets and layers of any text: parsed, or refused with a message."""

import re
from functools import cache

from conftest import demo_config
from fuzzing import fuzz
from hypothesis import strategies as st
from test_study import load

from diffalign import names
from diffalign.alignment.metrics import METRICS
from diffalign.conditions import parse_condition
from diffalign.config.study import Study
from diffalign.names import UnknownName
from diffalign.plan import targets


@cache
def study() -> Study:
    return load()


_MODELS = ("dinov2", "siglip2", "sd3", "sdvae", "sd1", "sit", "bloom560m", "digits.sit", "minilm")
_WORDS = (
    *_MODELS,
    *names.CONDITIONINGS,
    *names.OPTIONS,
    *("t0.5", "t0.50", "t1", "s20", "s101", "draws4", "redraw1", "b0", "b8", "b99", "final", "embed", "mid", "text"),
    *("-", "_", "@", "@0", "@300", "_vs_", "_minus_", ".", "/", "..", "{0..3}", "{}", "\n", "\x00", "é", "ß", "٣"),
)
typed = st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=8).map("".join)
_FOLDERS = (
    "results",
    "resources",
    "features",
    "neighbors",
    "figures",
    "tables",
    "layers",
    "cknna",
    "mutual_knn",
    "photographs",
)
paths = st.lists(
    st.sampled_from((*_FOLDERS, "clean", "layer_maps", "weights", "prompts", "human")) | typed, max_size=6
).map("/".join)


def _check_name(text: str) -> None:
    catalogue = study().vocabularies
    try:
        found = names.parse_representation(text, catalogue)
    except UnknownName as error:
        assert str(error)
    else:
        vocabulary = catalogue[found.model]
        bundle = found.bundle(vocabulary)
        assert names.parse_representation(bundle, catalogue).bundle(vocabulary) == bundle
        assert re.fullmatch(r"[a-z0-9.@-]+", bundle)
        assert "/" not in bundle
    for parse in (
        lambda: names.parse_pair(text, catalogue),
        lambda: names.split_contrast(text),
        lambda: names.canonical_noise(text),
        lambda: names.expand_layers({text: "blocks.{}"}),
        lambda: names.resolve_layer(text, {"b0": "blocks.0", "final": "norm"}, "m"),
    ):
        try:
            parse()
        except UnknownName as error:
            assert str(error)
    try:
        parse_condition(text)
    except ValueError as error:
        assert text in str(error) or repr(text) in str(error)


def test_any_text_is_a_name_or_refused() -> None:
    fuzz(_check_name, typed, examples=400)


_OUTPUTS = (
    "results/{metric}/{dataset}/{condition}/layers/{a}_vs_{b}.npy",
    "results/{metric}/{a}_vs_{b}.npy",
    "results/features/{dataset}/{condition}/{bundle}/{layer}.pt",
    "results/neighbors/{dataset}/{condition}/{bundle}.npz",
    "results/figures/{dataset}/{condition}/layer_maps/{a}_vs_{b}.png",
    "results/prompts/{dataset}/{model}-{conditioning}.safetensors",
    "results/contrasts/{dataset}/{condition}/{a}_vs_{b}_minus_{c}_vs_{d}.tsv",
    "results/tables/alignment.tsv",
    "resources/weights/{model}/weights.json",
)


def _check_target(target: str) -> None:
    said = targets.explain(target, _OUTPUTS, study(), METRICS)
    assert target in said


def test_any_target_is_answered() -> None:
    assert demo_config()
    fuzz(_check_target, st.builds("{}/{}".format, st.sampled_from(["results", "resources"]), paths), examples=100)
