import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffalign import names
from diffalign.names import UnknownName, Vocabulary

CATALOGUE = {
    "dinov2": Vocabulary(("embed", "b0", "b1", "final"), "final"),
    "dinov2.g": Vocabulary(("b0", "b39"), "b39"),
    "sd3": Vocabulary(("embed", *(f"b{i}" for i in range(24)), "final"), "b8", "t0.5", ("uncond", "label")),
}


@pytest.mark.parametrize(
    ("typed", "bundle", "layer"),
    [
        ("dinov2", "dinov2", None),
        ("dinov2_b1", "dinov2", "b1"),
        ("dinov2.g_b39", "dinov2.g", "b39"),
        ("sd3_b8", "sd3-t0.5", "b8"),
        ("sd3-t0.50_b8", "sd3-t0.5", "b8"),
        ("sd3-t0", "sd3-t0", None),
        ("sd3-t1.0", "sd3-t1", None),
        ("sd3-s20-label_b8", "sd3-s20-label", "b8"),
        ("sd3-label", "sd3-t0.5-label", None),
        ("sd3-t0.3-uncond", "sd3-t0.3", None),
    ],
)
def test_typed_names_become_bundles(typed: str, bundle: str, layer: str | None) -> None:
    parsed = names.parse_representation(typed, CATALOGUE)
    assert parsed.bundle(CATALOGUE[parsed.model]) == bundle
    assert parsed.layer == layer


@given(st.sampled_from(sorted(CATALOGUE)), st.floats(0, 1), st.booleans(), st.booleans())
def test_a_bundle_parses_to_itself_and_fits_its_pattern(model: str, t: float, noisy: bool, label: bool) -> None:
    vocabulary = CATALOGUE[model]
    typed = model
    if vocabulary.noise and noisy:
        typed += f"-t{t:.6f}"
    if vocabulary.conditionings and label:
        typed += "-label"
    assert re.fullmatch(names.typed_pattern(model, vocabulary), typed)
    bundle = names.parse_representation(typed, CATALOGUE).bundle(vocabulary)
    assert re.fullmatch(names.bundle_pattern(model, vocabulary), bundle)
    assert names.parse_representation(bundle, CATALOGUE).bundle(vocabulary) == bundle


@given(st.from_regex(r"\A(sd3|dinov2)(-(t[0-9.]{1,4}|s[0-9]{1,3}|label|uncond)){0,2}\Z"))
def test_a_name_parses_exactly_where_its_pattern_matches(text: str) -> None:
    model = text.split("-", maxsplit=1)[0]
    matches = re.fullmatch(names.typed_pattern(model, CATALOGUE[model]), text) is not None
    try:
        names.parse_representation(text, CATALOGUE)
    except UnknownName:
        assert not matches
    else:
        assert matches


def test_patterns_of_one_model_match_no_other() -> None:
    for model, vocabulary in CATALOGUE.items():
        for other, its in CATALOGUE.items():
            bundle = names.parse_representation(other, CATALOGUE).bundle(its)
            assert bool(re.fullmatch(names.bundle_pattern(model, vocabulary), bundle)) == (model == other)
    # only canonical spellings are bundles
    pattern = names.bundle_pattern("sd3", CATALOGUE["sd3"])
    assert not any(
        re.fullmatch(pattern, text) for text in ("sd3", "sd3-t0.50", "sd3-t0.", "sd3-t1.0", "sd3-t0.5-uncond")
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("dinov3", "unknown model 'dinov3'; did you mean 'dinov2'?"),
        ("sd3_b99", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        ("sd3_", "sd3 has no layer ''"),
        ("sd3-t1.5", "'t1.5' is no noise level"),
        ("sd3-s0", "'s0' is no noise level"),
        ("sd3-s101", "'s101' is no noise level"),
        ("sd3-labl", "sd3 has no variant 'labl'; did you mean 'label'?"),
        ("sd3-t0.1-t0.2", "gives two noise levels"),
        ("sd3-label-t0.3", "the noise level stands before the conditioning, '-t0.3-label'"),
        ("dinov2-t0.5", "dinov2 has no noise level"),
        ("dinov2-label", "dinov2 has no variants"),
        ("", "unknown model ''"),
    ],
)
def test_unknown_words_are_named_with_the_nearest(typed: str, message: str) -> None:
    with pytest.raises(UnknownName, match=re.escape(message)):
        names.parse_representation(typed, CATALOGUE)


def test_pairs() -> None:
    a, b = names.parse_pair(names.print_pair("dinov2_b1", "sd3-t0.2_b8"), CATALOGUE)
    assert (a.model, a.layer, b.noise, b.layer) == ("dinov2", "b1", "t0.2", "b8")
    with pytest.raises(UnknownName, match="no pair"):
        names.parse_pair("dinov2", CATALOGUE)


def test_layer_ranges_expand_in_order() -> None:
    layers = names.expand_layers({"embed": "patch", "b{0..2}": "blocks.{}", "final": "norm"})
    assert layers == {"embed": "patch", "b0": "blocks.0", "b1": "blocks.1", "b2": "blocks.2", "final": "norm"}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"b{2..0}": "blocks.{}"}, "is empty"),
        ({"b{0..2}": "blocks"}, "needs {}"),
        ({"B0": "blocks.0"}, "may hold only"),
        ({"b_0": "blocks.0"}, "may hold only"),
        ({"b{0..2}": "blocks.{}", "b1": "x"}, "given twice"),
    ],
)
def test_bad_layer_ranges(layers: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownName, match=re.escape(message)):
        names.expand_layers(layers)


def test_layers_by_number_alias_and_module_path() -> None:
    layers = names.expand_layers({"embed": "patch", "b{0..11}": "blocks.{}", "final": "norm"})
    assert names.resolve_layer(8, layers, "m") == "b8"
    assert names.resolve_layer(-1, layers, "m") == "b11"
    assert names.resolve_layer("b8", layers, "m") == "b8"
    assert names.resolve_layer("blocks.8", layers, "m") == "b8"
    for wrong in (12, -13, "b12", "blocks.12"):
        with pytest.raises(UnknownName, match=r"m has no layer '.*'; it has embed, b0 … b11, final"):
            names.resolve_layer(wrong, layers, "m")
