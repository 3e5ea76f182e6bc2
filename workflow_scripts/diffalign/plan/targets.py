"""Which word of a target is unknown: derived from the patterns of the outputs of all rules."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from diffalign import names
from diffalign.conditions import is_condition
from diffalign.config.study import Study
from diffalign.io.layouts import platonic
from diffalign.names import UnknownName
from diffalign.plan import paths
from diffalign.specs import LABEL_CONDITIONINGS, TEXTS_OF_IMAGES

Words = Sequence[str]
_CONSTRAINED = re.compile(r"\{(\w+),[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")
_WILDCARD = re.compile(r"\{(\w+)\}")
# folders of results of all layers of two models
_OF_ALL_LAYERS = {
    "alignment",
    "layers",
    "calibration",
    "layer_maps",
    "depth_curves",
    "relative_depth_curves",
    "null_histograms",
}
_OTHER_FORM = "another form"
# written with the other layers of a bundle, so not a target
_LAYER_FILE = f"{paths.FEATURES}/{{layer}}.pt"
_FOLDERS = ("results", "resources")
# a path below one of these, or of a folder that is spelt nearly so
_BELOW_FOLDER = re.compile(r"re[a-z]{3,8}/.+", re.DOTALL)
_NO_RULE = re.compile(r"No rule to produce (.*) \(if you use input functions [^()]*\)\.", re.DOTALL)


class Answers(logging.Filter):
    """Puts what is wrong with a target in the place of Snakemake's message that no rule makes it.

    Nothing is looked up before that message is logged, so that a plan takes no longer.
    """

    def __init__(self, workflow: Any, study: Study, known_metrics: Collection[str]) -> None:
        """workflow: Snakemake's, while it reads this project's Snakefile, with all rules once the message comes."""
        super().__init__()
        modifier = workflow.modifier
        self._rules: list[Any] = workflow.rules
        self._prefix: str = modifier.path_modifier.prefix or ""
        self._is_module = modifier.parent_modifier is not None
        self._study, self._known_metrics = study, known_metrics

    def install(self, logger: logging.Logger) -> None:
        """Answer for this workflow, in the place of one that the same process read before."""
        for each in [each for each in logger.filters if isinstance(each, Answers) and not self._is_module]:
            logger.removeFilter(each)
        logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """True: every message is logged, and this one in other words."""
        found = _NO_RULE.search(text := record.getMessage())
        answer = self._answer(found[1]) if found else None
        if found and answer is not None:
            record.msg, record.args = text[: found.start()] + answer + text[found.end() :], None
        return True

    def _answer(self, target: str) -> str | None:
        """None for a target of the workflow that uses this one as a module."""
        if target.startswith(self._prefix) and _BELOW_FOLDER.fullmatch(target := target.removeprefix(self._prefix)):
            outputs = [str(output).removeprefix(self._prefix) for rule in self._rules for output in rule.output]
            ours = [output for output in outputs if output.split("/")[0] in _FOLDERS]
            return explain(target, ours, self._study, self._known_metrics)
        rules = [rule.name for rule in self._rules if not rule.has_wildcards()]
        return None if self._is_module else neither(target, rules, Path.cwd())


def neither(target: str, rules: Iterable[str], folder: Path) -> str:
    """What is wrong with a target that is no rule and lies below no folder of this workflow.

    rules: names of those that can be asked for. folder: the working directory.
    """
    wrong = f"'{target}' is neither a rule nor a file of this workflow"
    path = Path(target)
    if path.is_absolute():
        inside = f": {path.relative_to(folder)}" if path.is_relative_to(folder) else ""
        return f"{wrong}; files are named from the working directory, {folder}{inside}"
    near = difflib.get_close_matches(target, list(rules), n=1, cutoff=0.6)
    meant = f"; did you mean '{near[0]}'?" if near else "."
    folders = " and ".join(f"{each}/" for each in _FOLDERS)
    return f"{wrong}{meant} Files lie below {folders}; --list-target-rules lists rules"


def explain(target: str, outputs: Iterable[str], study: Study, known_metrics: Iterable[str]) -> str:
    """One sentence that says what is wrong with a target no rule makes: the unknown word and the nearest known one.

    target: a path as typed, for example ``results/cknaa/dinov2_vs_sd3_b8.npy``. outputs: the patterns of all rules.
    known_metrics: those that exist, whether or not the study asks for them.
    """
    words, metrics = target.split("/"), study.alignment.metrics
    if words[0] not in _FOLDERS:
        near = difflib.get_close_matches(words[0], _FOLDERS, n=1, cutoff=0)[0]
        return f"no rule makes '{target}'; did you mean '{'/'.join([near, *words[1:]])}'?"
    stage = words[1] if len(words) > 1 else ""
    if stage in set(known_metrics) - set(metrics):
        return f"'{target}': the metric '{stage}' exists but is not among alignment.metrics ({', '.join(metrics)})"
    patterns = [pattern.split("/") for pattern in dict.fromkeys([*map(_bare, outputs), _LAYER_FILE])]
    stages = {stage, "{metric}"} if stage in metrics else {stage}
    patterns = [each for each in patterns if each[1] in stages] or patterns
    costs = [_cost(pattern, words, study) for pattern in patterns]
    likely = patterns[costs.index(min(costs))]
    for depth, form in enumerate(likely[: len(words)]):
        problem = _problem(likely, words, depth, study)
        if problem == _OTHER_FORM and not _WILDCARD.search(form):
            answer = _unknown_literal(patterns, words, depth, study)
            return f"'{target}': {answer}" if answer else _no_file(target, patterns, words, study)
        if problem == _OTHER_FORM or (problem and depth == len(words) - 1 < len(likely) - 1):
            return _no_file(target, patterns, words, study)
        if problem:
            return f"'{target}': {problem}"
    return _no_file(target, patterns, words, study)


@cache
def _bare(output: str) -> str:
    """The pattern of an output without the constraints of its wildcards."""
    return _CONSTRAINED.sub(lambda match: f"{{{match[1]}}}", output)


def _cost(pattern: Words, words: Words, study: Study) -> float:
    """How far a target is from a pattern: 0 where it fits; a misspelt word costs less than another one."""
    cost = 1.1 * abs(len(pattern) - len(words))
    for depth, (form, word) in enumerate(zip(pattern, words, strict=False)):
        problem = _problem(pattern, words, depth, study)
        if problem == _OTHER_FORM and not _WILDCARD.search(form):
            # beginnings weigh more: they say which stage is meant
            cost += 1.2 - 0.9 * difflib.SequenceMatcher(None, form, word).ratio()
        elif problem:
            cost += 1 if problem == _OTHER_FORM else 0.5
    return cost


def _problem(pattern: Words, words: Words, depth: int, study: Study) -> str:
    """What is wrong with one word of a target at its place in a pattern; empty where it fits."""
    match = _expression(pattern[depth]).fullmatch(words[depth])
    if pattern[1] == "prompts" and depth == 3:
        return _prompt_problem(words[depth], study)
    if match is None:
        is_pair = "{a}_vs_{b}" in pattern[depth] and _suffix(pattern[depth]) == _suffix(words[depth])
        stem = words[depth].removesuffix(_suffix(words[depth]))
        if is_pair and "{c}" in pattern[depth]:
            return f"'{stem}' is no contrast: write {names.CONTRAST_FORM}"
        return f"'{stem}' is no pair: write a_vs_b, for example dinov2_vs_sd3_b8" if is_pair else _OTHER_FORM
    try:
        for wildcard, value in match.groupdict().items():
            _check(wildcard, value, pattern, words, study)
        if "c" in match.groupdict():
            _check_contrast((match["a"], match["b"], match["c"], match["d"]), pattern, study)
        elif {"a", "b"} <= set(match.groupdict()):
            _check_pair(match["a"], match["b"], pattern, study)
    except UnknownName as error:
        return str(error)
    return ""


@cache
def _expression(form: str) -> re.Pattern[str]:
    """The expression of one word of a pattern, with a group for each wildcard."""
    escaped = re.escape(form).replace(r"\{", "{").replace(r"\}", "}")
    return re.compile(_WILDCARD.sub(lambda match: f"(?P<{match[1]}>.+)", escaped))


def _suffix(word: str) -> str:
    return "".join(word.rpartition(".")[1:]) if "." in word else ""


def _check(wildcard: str, value: str, pattern: Words, words: Words, study: Study) -> None:
    """Raise UnknownName where a word is not what its wildcard means."""
    if wildcard == "condition" and is_condition(value) and value not in study.conditions:
        raise UnknownName(
            f"the condition '{value}' is not among conditions ({', '.join(study.conditions)}); add it there"
        )
    things, metrics = study.things.get(words[2]) if len(words) > 2 else None, study.alignment.metrics
    known: dict[str, tuple[str, Collection[str]]] = {
        "dataset": ("dataset", study.datasets),
        "condition": ("condition", study.conditions),
        "metric": ("metric or stage" if pattern[1] == "{metric}" else "metric", metrics),
        "model": _models(pattern, study),
        "combined": ("combination", study.human.combined),
        "triplets": ("triplets", things.triplets if things else ()),
        "loss": ("loss", [model.training.loss for model in study.models.values() if model.training is not None]),
        "conditioning": ("text", TEXTS_OF_IMAGES),
        "domain": ("domain", ("images", "latents")),
        "configuration": ("configuration", study.dynamics.expanded()),
        "space": ("space", study.shared_space.spaces),
        "family": ("family of contrasts", study.contrasts.families),
        "scores": ("file of scores", [platonic.alignment_name(name, study.alignment.k) for name in metrics]),
    }
    trained = study.models.get(names.model_word(value)) if pattern[1] == "weights" else None
    if trained is not None and trained.training is not None:
        record = paths.fill(paths.TRAINED_RECORD, model=trained.name)
        raise UnknownName(f"{trained.name} is trained here, so its checkpoints lie beside {record}")
    if wildcard == "model" and value not in known["model"][1]:
        word, step = names.split_checkpoint(value)
        bare = dict.fromkeys(names.split_checkpoint(name)[0] for name in known["model"][1])
        if step is None or word not in bare:
            raise names.unknown(known["model"][0], word, known["model"][1] if step is None else bare)
        study.checkpoint(value)
    elif wildcard in known and value not in known[wildcard][1]:
        what, allowed = known[wildcard]
        raise names.unknown(what, value, allowed)
    if wildcard in ("bundle", "means"):
        if study.bundle(value) != value:
            raise UnknownName(f"these files carry canonical names: write '{study.bundle(value)}' for '{value}'")
        stem, _, suffix = words[-1].rpartition(".")
        if pattern[1] == "features" and suffix == "pt":
            model = study.model_of(value)
            names.resolve_layer(stem, model.layers, model.name)
    if wildcard == "a" and "b}" not in "/".join(pattern):
        representation = study.representation(value)
        if _exports_all_layers(pattern) and representation.layer:
            raise UnknownName(f"'{value}' names a layer; here all layers are meant")


def _exports_all_layers(pattern: Words) -> bool:
    """Whether a layout of another project has all layers of a model: platonic-rep's, and VFM-VAE's as a folder."""
    vfmvae = pattern[1:3] == ["export", "vfmvae"] and "{a}" in pattern
    return vfmvae or pattern[1:3] == ["export", "platonic"]


def _check_pair(a: str, b: str, pattern: Words, study: Study) -> None:
    """Raise UnknownName where a side of a pair is unknown, or names a layer where all layers are meant."""
    sides = [study.representation(name) for name in (a, b)]
    of_all_layers = _OF_ALL_LAYERS & set(pattern) or _exports_all_layers(pattern)
    if of_all_layers and any(side.layer for side in sides):
        raise UnknownName(f"'{names.print_pair(a, b)}' names a layer; here all layers are meant")


def _check_contrast(typed: tuple[str, str, str, str], pattern: Words, study: Study) -> None:
    """Raise UnknownName where a side of a contrast is unknown, or a left side names a layer where all are meant."""
    sides = [study.representation(name) for name in typed]
    if _OF_ALL_LAYERS & set(pattern) and any(side.layer for side in sides[::2]):
        raise UnknownName(f"'{names.print_contrast(*typed)}' names a layer on the left; here all layers are meant")


def _prompt_problem(word: str, study: Study) -> str:
    """What is wrong with the name of a file of prompts: model and conditioning."""
    try:
        model = study.model_of(word.removesuffix(".safetensors"))
    except UnknownName as error:
        return str(error)
    return f"{model.name} takes no prompts" if not model.conditionings or model.reads_texts else ""


def _models(pattern: Words, study: Study) -> tuple[str, list[str]]:
    """What models a wildcard means, by the folder: autoencoders, diffusion models or all."""
    models = study.models.items()
    if pattern[1] == "training":
        return "trained model", [name for name, model in models if model.training is not None]
    if "samples" in pattern or pattern[1] == "sample_quality":
        return _of_classes(pattern[1] == "figures", study)
    if pattern[1] == "weights":
        return "model", [*study.models, *(f"{name}-untrained" for name in study.models)]
    if pattern[1] == "latents":
        return "autoencoder", [name for name, model in models if model.is_autoencoder]
    if {"noise_levels", "dynamics"} & set(pattern):
        return _of_noise("dynamics" in pattern, study)
    return "model", list(study.models)


def _of_noise(is_checkpoint: bool, study: Study) -> tuple[str, list[str]]:
    """The diffusion models: a figure of noise levels is of a model, trajectories are of a checkpoint."""
    told = [model for model in study.models.values() if model.noise is not None]
    if is_checkpoint:
        return "checkpoint of a diffusion model", [name for model in told for name in model.checkpoints]
    return "diffusion model", [model.name for model in told]


def _of_classes(is_figure: bool, study: Study) -> tuple[str, list[str]]:
    """The models of classes: a figure is of all checkpoints of a model, a file of samples of one."""
    told = [
        model
        for model in study.models.values()
        if model.latents and {"label"} <= set(model.conditionings) <= set(LABEL_CONDITIONINGS)
    ]
    if is_figure:
        return "model of classes", [model.name for model in told]
    return "checkpoint of a model of classes", [name for model in told for name in model.checkpoints]


def _unknown_literal(patterns: Sequence[Words], words: Words, depth: int, study: Study) -> str:
    """The answer for a word in the place of literal ones; empty where none is near."""
    agreeing = [each for each in patterns if len(each) > depth and _agrees(each, words, depth, study)]
    is_file = depth == len(words) - 1
    literal = {each[depth] for each in agreeing if not _WILDCARD.search(each[depth])}
    literal = {word for each in agreeing if (word := each[depth]) in literal and (len(each) - 1 == depth) == is_file}
    word = words[depth]
    if is_file:
        stem, _, suffix = word.rpartition(".")
        literal = {each.rpartition(".")[0] for each in literal if each.rpartition(".")[2] == suffix}
        word = stem
    if depth == 1 and words[0] == "results":
        literal |= set(study.alignment.metrics)
    # figures of a metric each are outputs of one rule
    kind = "metric" if is_file and literal <= set(study.alignment.metrics) else _kind(words, depth)
    return str(names.unknown(kind, word, sorted(literal))) if literal and word not in literal else ""


def _agrees(pattern: Words, words: Words, depth: int, study: Study) -> bool:
    return not any(_problem(pattern, words, before, study) for before in range(depth))


def _kind(words: Words, depth: int) -> str:
    """What a literal word of a path is called."""
    stage = words[1] if len(words) > 1 else ""
    if depth == 1:
        return "metric or stage" if words[0] == "results" else "kind of resource"
    named = {"tables": "table", "figures": "figure"}
    other = "file" if depth == len(words) - 1 else "folder"
    return "layout" if (stage, depth) == ("export", 2) else named.get(stage, other)


def _no_file(target: str, patterns: Sequence[Words], words: Words, study: Study) -> str:
    """The answer where no single word is to blame: the forms that are nearest."""
    stage = words[1] if len(words) > 1 else ""
    layer_file = _LAYER_FILE.split("/")
    if len(words) == len(layer_file) and not any(
        _problem(layer_file, words, depth, study) for depth in range(len(layer_file))
    ):
        return f"'{target}' is made with all layers of '{words[-2]}': ask for '{'/'.join(words[:-1])}.json'"
    if stage in study.alignment.metrics:
        patterns = [each for each in patterns if each[1] == "{metric}"]

    def agreeing(pattern: Words) -> int:
        """How many words from the beginning fit."""
        wrong = (depth for depth in range(min(len(pattern), len(words))) if _problem(pattern, words, depth, study))
        return next(wrong, len(words))

    nearest = sorted(patterns, key=lambda pattern: (-agreeing(pattern), _cost(pattern, words, study)))
    # a function, since a target may hold what re.sub reads as a reference
    named = (re.sub(r"^(\w+)/\{metric\}/", lambda match: f"{match[1]}/{stage}/", "/".join(each)) for each in nearest)
    forms = list(dict.fromkeys(named))
    listed = " or ".join(forms[:4]) + (" or others" if len(forms) > 4 else "")
    return f"'{target}' is no file of this workflow; files of this stage are {listed}"
