"""Configurations with changes anywhere: a study, or a list of mistakes with their places."""

import copy
from functools import cache
from typing import Any

from conftest import ROOT, catalogue, merge, read_yaml
from fuzzing import fuzz
from hypothesis import strategies as st

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.config.study import ConfigError
from diffalign.models import all_families

_OVERLAYS = (
    "profiles/demo/study.yaml",
    "profiles/digits/study.yaml",
    "profiles/demo/dynamics.yaml",
    "profiles/demo/shared_space.yaml",
)


@cache
def _config() -> dict[str, Any]:
    config = read_yaml(ROOT / "config.yaml")
    for overlay in _OVERLAYS:
        merge(config, read_yaml(ROOT / overlay))
    return config


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The place of every value of a configuration."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, each in inside for place in _places(each, (*at, key)))]


_WORDS = (
    "",
    "all",
    "clean",
    "dinov2",
    "sd3",
    "dinov2_vs_sd3",
    "sd3_b99",
    "cknna",
    "miniature",
    "1e-6",
    "../x",
    "a\nb",
    "{}",
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(_WORDS)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_WORDS) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)
changes = st.lists(
    st.tuples(
        st.sampled_from(["replace", "delete", "add", "move"]), st.integers(0, 10**6), st.integers(0, 10**6), values
    ),
    min_size=1,
    max_size=3,
)


def _changed(config: dict[str, Any], what: list[tuple[str, int, int, Any]]) -> dict[str, Any]:
    made = copy.deepcopy(config)
    for kind, number, other, value in what:
        places = _places(made)[1:]
        if not places:
            break
        place, source = places[number % len(places)], places[other % len(places)]
        holder = _at(made, place[:-1])
        if kind == "delete":
            del holder[place[-1]]
        elif kind == "add" and isinstance(holder, dict):
            holder[source[-1]] = value
        elif kind == "add":
            holder.append(value)
        else:
            holder[place[-1]] = copy.deepcopy(_at(made, source)) if kind == "move" else value
    return made


def _at(config: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        config = config[step]
    return config


def _check(what: list[tuple[str, int, int, Any]]) -> None:
    config = _changed(_config(), what)
    try:
        loaded = study.load(config, catalogue(), all_families(), METRICS)
    except ConfigError as error:
        assert error.mistakes
        assert all(": " in line for line in error.mistakes), error.mistakes
    else:
        assert loaded.models


def test_any_configuration_is_a_study_or_a_list_of_mistakes() -> None:
    fuzz(_check, changes, examples=40)
