"""What the paths of files mean, and which word of one is unknown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from diffalign import names
from diffalign.conditions import is_condition
from diffalign.config.study import Study
from diffalign.io.layouts import EXPORTS
from diffalign.names import UnknownName
from diffalign.specs import TEXTS_OF_IMAGES

# the folders and files of each stage; metrics are stages of their own
_STAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "export": (
        ("layout", "dataset", "condition", "exported"),
        ("layout", "dataset", "condition", "exported", "export"),
        ("layout_of_images", "dataset", "file"),
    ),
    "features": (("dataset", "condition", "bundle", "layer"),),
    "factors": (("dataset", "condition", "bundle"),),
    "figures": (
        ("dataset", "condition", "figure", "shown"),
        ("dataset", "figure_of_conditions"),
        ("dataset", "figure_of_conditions", "pair"),
    ),
    "human_rsa": (("dataset", "condition", "bundle"),),
    "images": (("dataset", "condition", "file"),),
    "language": (("dataset", "condition", "bundle"),),
    "latents": (("dataset", "condition", "autoencoder", "file"),),
    "neighbors": (("dataset", "condition", "bundle"),),
    "odd_one_out": (("dataset", "condition", "bundle"), ("dataset", "condition", "folder", "combined")),
    "people": (("dataset", "triplets"),),
    "probe": (("dataset", "condition", "bundle"),),
    "per_image": (("dataset", "condition", "pair"),),
    "prompts": (("dataset", "prompt"),),
    "reduction": (("dataset", "condition", "bundle"),),
    "regression": (("dataset", "condition", "bundle"),),
    "recipes": (("bundle",), ("settings", "file")),
    "se_cknna": (("pair",), ("dataset", "pair")),
    "tables": (("table",), ("pair_table", "dataset", "condition", "pair")),
    "texts": (("dataset", "text"),),
    "unpooled": (("dataset", "condition", "bundle"),),
    "weights": (("model", "file"),),
}
_METRIC = (("pair",), ("dataset", "condition", "pair"), ("dataset", "condition", "layers", "pair"))
_OF_ALL_LAYERS = ("layers", "calibration")
_TABLES = ("alignment", "pairs", "se_cknna", "people")
_PAIR_TABLES = ("curves", "sensitivity")
# what the file of a figure is named for
_FIGURES = {
    "layer_maps": "pair",
    "depth_curves": "pair",
    "null_histograms": "pair",
    "model_maps": "metric",
    "gallery": "pair",
    "curves": "pair",
    "people": "analysis",
    "noise_levels": "diffusion model",
    "disagreements": "name",
}
# of models and people
_ANALYSES = ("odd_one_out", "regression", "probe")
# over all conditions of se_cknna
_FIGURES_OF_CONDITIONS = ("se_cknna",)
# of two layers, not of all layers of two models
_OF_TWO_LAYERS = ("gallery", "curves", "sensitivity")


def explain(target: str, study: Study, known_metrics: Iterable[str]) -> str:
    """One sentence that says what is wrong with a target no rule makes: the unknown word and the nearest known one.

    target: a path as typed, for example ``results/cknaa/dinov2_vs_sd3_b8.npy``. known_metrics: those that exist,
    whether or not the study asks for them.
    """
    if target.startswith("resources/"):
        stage, *rest = target.removeprefix("resources/").split("/")
    else:
        stage, *rest = target.removeprefix("results/").split("/")
    metrics = study.alignment.metrics
    if stage in set(known_metrics) - set(metrics):
        return f"'{target}': the metric '{stage}' exists but is not among alignment.metrics ({', '.join(metrics)})"
    if stage not in metrics and stage not in _STAGES:
        return f"'{target}': {names.unknown('metric or stage', stage, [*metrics, *_STAGES])}"
    forms = _STAGES.get(stage, _METRIC)
    form = next((form for form in forms if len(form) == len(rest)), None)
    try:
        for part, word in zip(form or (), rest, strict=False):
            _check(part, word, rest, study)
    except UnknownName as error:
        return f"'{target}': {error}"
    root = target.split("/", maxsplit=1)[0]
    known = " or ".join("/".join([root, stage, *("{" + part + "}" for part in form)]) for form in forms)
    return f"'{target}' is no file of this workflow; files of this stage are {known} with their suffix"


def _check(part: str, word: str, rest: Sequence[str], study: Study) -> None:
    """Raise UnknownName where a word of a path is not what stands at its place."""
    stem = word.rpartition(".")[0] or word
    part = _FIGURES[rest[2]] if part == "shown" else part
    known: dict[str, tuple[str, Collection[str]]] = {
        "dataset": ("dataset", study.datasets),
        "condition": ("condition", study.conditions),
        "figure": ("figure", _FIGURES),
        "pair_table": ("table", _PAIR_TABLES),
        "layers": ("folder", _OF_ALL_LAYERS),
        "folder": ("folder", ("combined",)),
        "model": ("model", study.models),
    }
    if part == "condition" and is_condition(word) and word not in study.conditions:
        raise UnknownName(
            f"the condition '{word}' is not among conditions ({', '.join(study.conditions)}); add it there"
        )
    if part in known and word not in known[part][1]:
        raise names.unknown(known[part][0], word, known[part][1])
    if part in ("layout", "exported", "export"):
        _check_export(part, word, rest, study)
    if part == "layout_of_images" and word != "transformed_images":
        raise names.unknown("layout of images", word, ["transformed_images"])
    if part == "autoencoder":
        encoders = [name for name, model in study.models.items() if model.is_autoencoder]
        if word not in encoders:
            raise names.unknown("autoencoder", word, encoders)
    if part == "figure_of_conditions" and (stem if word == rest[-1] else word) not in _FIGURES_OF_CONDITIONS:
        raise names.unknown("figure", stem if word == rest[-1] else word, _FIGURES_OF_CONDITIONS)
    files = study.things[rest[0]].triplets if rest[0] in study.things else ()
    last: dict[str, Collection[str]] = {"table": _TABLES, "metric": study.alignment.metrics}
    last |= {"analysis": _ANALYSES, "triplets": files, "combined": study.human.combined, "text": TEXTS_OF_IMAGES}
    last |= {"diffusion model": [name for name, model in study.models.items() if model.noise is not None]}
    if part in last and stem not in last[part]:
        raise names.unknown(part, stem, last[part])
    if part == "prompt":
        model = study.model_of(stem)
        if not model.conditionings or model.reads_texts:
            raise UnknownName(f"{model.name} takes no prompts")
    if part == "bundle":
        text = stem if word == rest[-1] else word
        if study.bundle(text) != text:
            raise UnknownName(f"these files carry canonical names: write '{study.bundle(text)}' for '{text}'")
    if part == "layer":
        model = study.model_of(rest[2])
        names.resolve_layer(stem, model.layers, model.name)
    if part == "name":
        study.representation(stem)
    if part == "pair":
        pair = names.parse_pair(stem, study.catalogue)
        of_all_layers = len(rest) == 4 and not {rest[0], rest[2]} & set(_OF_TWO_LAYERS)
        if of_all_layers and any(side.layer for side in pair):
            raise UnknownName(f"'{stem}' names a layer; here all layers are meant")


def _check_export(part: str, word: str, rest: Sequence[str], study: Study) -> None:
    """Raise UnknownName for a word of an export: its layout, what is exported, or the file {metric}_k{k} of a pair."""
    is_last = word == rest[-1]
    stem = word.rpartition(".")[0] if is_last and "." in word else word
    is_pair = rest[0] == "platonic" and len(rest) == 5
    if part == "layout" and word not in EXPORTS:
        raise names.unknown("layout", word, EXPORTS)
    if part == "exported":
        found = names.parse_pair(stem, study.catalogue) if is_pair else (study.representation(stem),)
        if rest[0] == "platonic" and any(side.layer for side in found):
            raise UnknownName(f"'{stem}' names a layer; here all layers are meant")
    if part == "export" and is_pair:
        metric, _, k = stem.rpartition("_k")
        if metric not in study.alignment.metrics:
            raise names.unknown("metric", metric or stem, study.alignment.metrics)
        if k != str(study.alignment.k):
            raise UnknownName(f"scores of this study are taken at alignment.k = {study.alignment.k}, not at {k}")
