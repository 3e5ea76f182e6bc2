import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffalign import names
from diffalign.names import UnknownName, Vocabulary

CATALOGUE = {
    "dinov2": Vocabulary(("embed", "b0", "b1", "final"), "final", options=("untrained",)),
    "dinov2.g": Vocabulary(("b0", "b39"), "b39"),
    "sd3": Vocabulary(("embed", *(f"b{i}" for i in range(24)), "final"), "b8", "t0.5", ("uncond", "label")),
    "sit": Vocabulary(
        ("b0", "b1"), "b1", "t0.5", ("uncond", "label"), options=("cosine", "shared", "commonnoise", "draws", "redraw")
    ),
    "sd1": Vocabulary(
        ("down0", "mid", "up0"),
        "mid",
        "t0.5",
        ("uncond", "label", "caption"),
        ("label", "caption"),
        ("optim", "optimx1"),
        ("shared", "commonnoise", "draws", "redraw", "untrained"),
    ),
    "digits.sit": Vocabulary(("b0", "b3"), "b3", "t0.5", ("uncond", "label"), options=("draws",), steps=(0, 300, 1200)),
    "sd1.mine": Vocabulary(
        ("mid",), "mid", "t0.5", ("uncond", "caption"), ("caption",), ("optim",), ("untrained",), steps=(500, 1000)
    ),
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
        ("dinov2-untrained_b1", "dinov2-untrained", "b1"),
        ("sit-cosine", "sit-t0.5-cosine", None),
        ("sd1-s20-optim_mid", "sd1-s20-optim", "mid"),
        ("sd1-caption-shared-draws4-untrained_mid", "sd1-t0.5-caption-shared-draws4-untrained", "mid"),
        ("sit-t1-commonnoise-draws2_b0", "sit-t1-commonnoise-draws2", "b0"),
        ("sit-cosine-shared-redraw1_b0", "sit-t0.5-cosine-shared-redraw1", "b0"),
        ("sd1-caption-redraw99-untrained", "sd1-t0.5-caption-redraw99-untrained", None),
        ("sd1-optim", "sd1-optim", None),
        ("sd1-optimx1_text", "sd1-optimx1", "text"),
        ("sd1-textlast-caption_text", "sd1-textlast-caption", "text"),
        ("sd1-textlast-label-untrained", "sd1-textlast-label-untrained", None),
        ("digits.sit", "digits.sit@1200-t0.5", None),
        ("digits.sit@0_b3", "digits.sit@0-t0.5", "b3"),
        ("digits.sit@300-t0.50-label-draws4_b0", "digits.sit@300-t0.5-label-draws4", "b0"),
        ("sd1.mine-caption", "sd1.mine@1000-t0.5-caption", None),
        ("sd1.mine-untrained_mid", "sd1.mine-t0.5-untrained", "mid"),
        ("sd1.mine-textlast-caption", "sd1.mine@1000-textlast-caption", None),
        ("sd1.mine@500-textlast-caption_text", "sd1.mine@500-textlast-caption", "text"),
        ("sd1.mine-textlast-caption-untrained", "sd1.mine-textlast-caption-untrained", None),
        ("sd1.mine-optim", "sd1.mine-optim", None),
        ("sd1.mine@500-t0.5-optim", "sd1.mine@500-t0.5-optim", None),
    ],
)
def test_typed_names_become_bundles(typed: str, bundle: str, layer: str | None) -> None:
    parsed = names.parse_representation(typed, CATALOGUE)
    assert parsed.bundle(CATALOGUE[parsed.model]) == bundle
    assert parsed.layer == layer


def test_what_a_variant_says() -> None:
    image = names.parse_representation("sd1-s20-optim-draws4", CATALOGUE)
    assert (image.noise, image.conditioning, image.text, image.draws) == ("s20", "optim", False, 4)
    assert image.redraw == 0
    again = names.parse_representation("sd1-redraw12", CATALOGUE)
    assert (again.draws, again.redraw) == (1, 12)
    assert image.default_layer(CATALOGUE["sd1"]) == "mid"
    for typed in ("sd1-textlast-label", "sd1-optim"):
        alone = names.parse_representation(typed, CATALOGUE)
        assert (alone.noise, alone.text, alone.draws) == (None, True, 1)
        assert alone.layers(CATALOGUE["sd1"]) == ("text",)
        assert alone.default_layer(CATALOGUE["sd1"]) == "text"


@given(st.sampled_from(sorted(CATALOGUE)), st.floats(0, 1), st.booleans(), st.data())
def test_a_bundle_parses_to_itself_and_fits_its_pattern(model: str, t: float, noisy: bool, data: st.DataObject) -> None:
    vocabulary = CATALOGUE[model]
    typed = model
    if vocabulary.noise and noisy:
        typed += f"-t{t:.6f}"
    typed += data.draw(st.sampled_from(["", *(f"-{word}" for word in vocabulary.conditionings)]))
    left_out = [data.draw(st.sampled_from(both)) for both in (["shared", "commonnoise"], ["draws", "redraw"])]
    for option in vocabulary.options:
        if option not in left_out and data.draw(st.booleans()):
            typed += f"-{option}{data.draw(st.integers(2, 99)) if option in ('draws', 'redraw') else ''}"
    if "untrained" not in typed:
        step = data.draw(st.sampled_from(["", *(f"@{step}" for step in vocabulary.steps)]))
        typed = typed.replace(model, f"{model}{step}", 1)
    assert re.fullmatch(names.name_pattern(CATALOGUE), typed)
    bundle = names.parse_representation(typed, CATALOGUE).bundle(vocabulary)
    assert re.fullmatch(names.bundle_pattern(model, vocabulary), bundle)
    assert not re.fullmatch(names.text_pattern(model, vocabulary), bundle)
    assert names.parse_representation(bundle, CATALOGUE).bundle(vocabulary) == bundle


_PARTS = (
    r"t[0-9.]{1,4}|s[0-9]{1,3}|label|uncond|caption|optim|textlast|cosine|shared|commonnoise|draws[0-9]{1,2}|draws"
    r"|redraw[0-9]{1,2}|untrained"
)


@given(
    st.from_regex(rf"\A(sd3|dinov2|sit|sd1|sd1\.mine|digits\.sit)(@(0|500|7))?(-({_PARTS})){{0,4}}(_(b0|mid|text))?\Z")
)
@example("sd1-textlast-caption-untrained_text")
@example("sd1-optim_text")
@example("sd1-optim_mid")
@example("sd1-textlast_text")
@example("sd1-t0.5-optim_text")
@example("sd1.mine@500-textlast-caption_text")
@example("sd1.mine-textlast-caption-untrained")
@example("sd1.mine-t0.5-untrained")
@example("sd1.mine-optim")
def test_a_name_that_parses_fits_its_patterns(text: str) -> None:
    try:
        found = names.parse_representation(text, CATALOGUE)
    except UnknownName:
        return
    vocabulary = CATALOGUE[found.model]
    assert re.fullmatch(names.name_pattern(CATALOGUE, layer=True), text)
    assert bool(re.fullmatch(names.name_pattern(CATALOGUE), text)) == (found.layer is None)
    bundle = found.bundle(vocabulary)
    kind = names.text_pattern if found.text else names.bundle_pattern
    assert re.fullmatch(kind(found.model, vocabulary), bundle)
    assert names.parse_representation(bundle, CATALOGUE).bundle(vocabulary) == bundle


def test_patterns_of_one_model_match_no_other() -> None:
    for model, vocabulary in CATALOGUE.items():
        for other, its in CATALOGUE.items():
            bundle = names.parse_representation(other, CATALOGUE).bundle(its)
            assert bool(re.fullmatch(names.bundle_pattern(model, vocabulary), bundle)) == (model == other)
    both = "sit-t0.5-shared-commonnoise"
    assert not re.fullmatch(names.bundle_pattern("sit", CATALOGUE["sit"]), both)
    # only canonical spellings are bundles
    pattern = names.bundle_pattern("sd3", CATALOGUE["sd3"])
    assert not any(
        re.fullmatch(pattern, text) for text in ("sd3", "sd3-t0.50", "sd3-t0.", "sd3-t1.0", "sd3-t0.5-uncond")
    )


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("dinov3", "unknown model 'dinov3'; did you mean 'dinov2'?"),
        ("SD3-t0.5", "unknown model 'SD3-t0.5': names of models hold only a-z, 0-9 and '.'; '-' begins a variant, '_'"),
        ("ViT-S", "unknown model 'ViT-S': names of models hold only a-z, 0-9 and '.'"),
        ("sd3_b99", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        ("sd3_", "sd3 has no layer ''"),
        ("sd3-t1.5", "'t1.5' is no noise level"),
        ("sd3-s0", "'s0' is no noise level"),
        ("sd3-s101", "'s101' is no noise level"),
        ("sd3-labl", "sd3 has no variant 'labl'; did you mean 'label'?"),
        ("sd3-t0.1-t0.2", "gives two noise levels"),
        ("sd3-label-t0.3", "parts of a variant stand in the order '-t0.3-label'"),
        ("dinov2-t0.5", "dinov2 has no noise level"),
        ("dinov2.g-label", "dinov2.g has no variants"),
        ("dinov2-untraind", "dinov2 has no variant 'untraind'; did you mean 'untrained'?"),
        ("dinov2-shared", "dinov2 has no variant 'shared'"),
        ("sd3-label-uncond", "gives two conditionings, 'label' and 'uncond'"),
        ("sd1-draws2-shared", "parts of a variant stand in the order '-shared-draws2'"),
        ("sit-shared-commonnoise", "'-shared' is one noise for all images, '-commonnoise' one an image for all models"),
        ("sd3-commonnoise", "sd3 has no variant 'commonnoise'"),
        ("sd1-optim-commonnoise", "an embedding alone takes no '-commonnoise'"),
        ("sd1-draws1", "'draws1' is no number of draws; write draws2 to draws99"),
        ("sd1-draws", "sd1 has no variant 'draws'; did you mean 'draws4'?"),
        ("sd1-redraw0", "'redraw0' is no number of redraw; write redraw1 to redraw99"),
        ("sd1-redraw", "sd1 has no variant 'redraw'; did you mean 'redraw1'?"),
        ("sd1-draws4-redraw1", "'-draws' is the mean over several draws of noise, '-redraw' another single one; give"),
        ("sd1-redraw1-shared", "parts of a variant stand in the order '-shared-redraw1'"),
        ("sd3-redraw1", "sd3 has no variant 'redraw1'"),
        ("sd1-optim-redraw1", "an embedding alone takes no '-redraw1'"),
        ("sd1-textlast-label-redraw1", "textlast reads no image, so '-redraw1' means nothing"),
        ("sd1-cosine", "sd1 has no variant 'cosine'"),
        ("sd1-textlast", "textlast is followed by a text: label, caption"),
        ("sd1-textlast-uncond", "textlast is followed by a text: label, caption"),
        ("sd1-t0.5-textlast-label", "textlast reads no image, so '-t0.5' means nothing"),
        ("sd1-textlast-label-draws4", "textlast reads no image, so '-draws4' means nothing"),
        ("sd1-textlast-label_mid", "sd1-textlast-label has no layer 'mid'; it has text"),
        ("sd1-optim_mid", "sd1-optim has no layer 'mid'; it has text; as the prompt it follows a noise level"),
        ("sd1-optim-shared", "an embedding alone takes no '-shared'; as the prompt it follows a noise level"),
        ("sd3-textlast-label", "sd3 has no variant 'textlast'"),
        ("", "unknown model ''"),
        ("digits.sit@200", "digits.sit has no checkpoint of step '200'; it has 0, 300, 1200"),
        ("digits.sit@0300_b3", "digits.sit has no checkpoint of step '0300'"),
        ("digits.sit@", "digits.sit has no checkpoint of step ''"),
        ("digits.sit-untrained", "the untrained twin of digits.sit is its first checkpoint; write digits.sit@0"),
        ("sd1.mine@500-untrained", "an untrained twin has no step, so '@500' means nothing"),
        ("sd1.mine@500-optim", "an embedding alone has no step, so '@500' means nothing"),
        ("dinov2@3", "dinov2 has one checkpoint and no steps, so '@3' means nothing"),
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


@pytest.mark.parametrize("text", ["sd3", "sd3_b8", "sd3-t0.5", "sd3-t0.5-label_b8"])
def test_a_name_begins_with_its_model(text: str) -> None:
    assert names.model_word(text) == "sd3"
    assert names.model_word(text.replace("sd3", "dinov9.g")) == "dinov9.g"
