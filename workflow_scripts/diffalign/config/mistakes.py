"""Mistakes of a configuration: each with its place and the nearest allowed word, all of them at once."""

from __future__ import annotations

import copy
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from diffalign import names
from diffalign.config.fields import Section

S = TypeVar("S", bound=Section)
T = TypeVar("T")
Path = tuple[str | int, ...]

# values and levels of a configuration
_MOST_VALUES, _DEEPEST = 1_000_000, 50
# what pydantic calls a value of another type -> the word for the expected one
_TYPES = {
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "finite_number": "number",
    "string_type": "string",
    "bool_type": "boolean",
    "dict_type": "object",
    "mapping_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}
# limits of numbers
_LIMITS = {
    "greater_than_equal": ("ge", "is less than the minimum of"),
    "greater_than": ("gt", "must be greater than"),
    "less_than_equal": ("le", "is greater than the maximum of"),
    "less_than": ("lt", "must be less than"),
}


class ConfigError(ValueError):
    """All mistakes of a configuration, one a line."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


def check_size(value: T) -> T:
    """The same. Raises ValueError where it holds more values than any study, as aliases of YAML can make of a short
    text, or is nested too deeply.
    """
    count, waiting = 0, [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        inside = each.values() if isinstance(each, Mapping) else each if isinstance(each, list | tuple) else ()
        count += 1 + len(inside)
        if count > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values; are there aliases of aliases?")
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        waiting.extend((inner, depth + 1) for inner in inside)
    return value


def checked_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """`plain_values` of a configuration. Raises ConfigError for one of a size that `check_size` refuses."""
    try:
        return dict(plain_values(check_size(config)))
    except ValueError as error:
        raise ConfigError([f"(top level): {error}"]) from None


def plain_values(value: Any) -> Any:
    """The same with dictionaries and lists in place of other mappings and sequences."""
    if isinstance(value, Mapping):
        return {key: plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(entry) for entry in value]
    return value


def read(kind: type[S], value: Any, place: str, mistakes: list[str]) -> S | None:
    """A section of the configuration as its class, and every mistake in it at the end of `mistakes`.

    What is refused is left out of the section that is returned, so that the rest can be checked further; None where a
    required key is missing or wrong, or where the value is no mapping.
    """
    rest = copy.deepcopy(value)
    reported = False
    while True:
        extra = kind.missing(rest) if isinstance(rest, dict) and not reported else ()
        try:
            made = kind.model_validate(rest)
        except ValidationError as error:
            faults = [(_data_path(kind, each["loc"]), each) for each in error.errors(include_url=False)]
        else:
            faults = []
        if not faults and not extra:
            return made
        if not reported:
            mistakes.extend(_lines(kind, place, faults, extra))
            reported = True
        if extra or not _removed(rest, faults):
            return None


def _lines(kind: type[Section], place: str, faults: Iterable[tuple[Path, Any]], extra: Sequence[str]) -> Iterable[str]:
    """One line a mistake; missing keys of one mapping, unions and repetitions share a line."""
    missing: dict[Path, list[str]] = {(): list(extra)} if extra else {}
    lines: list[tuple[Path, str]] = []
    for path, fault in faults:
        if fault["type"] == "missing":
            missing.setdefault(path[:-1], []).append(str(path[-1]))
        else:
            lines.append((path, f"{_place(place, path, fault)}: {_text(kind, path, fault)}"))
    for path, keys in missing.items():
        ordered = [key for key in (_section_at(kind, path) or kind).written() if key in keys]
        text = f"missing key{'s' if len(ordered) > 1 else ''} {', '.join(map(repr, ordered))}"
        lines.append((path, f"{joined(place, path)}: {text}"))
    return dict.fromkeys(line for _, line in sorted(lines, key=lambda each: [str(step) for step in each[0]]))


def joined(place: str, path: Iterable[str | int]) -> str:
    """``datasets.x`` and ``("triplets", "test", 0)`` -> ``datasets.x.triplets.test[0]``."""
    text = place + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.lstrip(".") or "(top level)"


def _place(place: str, path: Path, fault: Any) -> str:
    # a wrong key is reported at the mapping that holds it
    at_holder = fault["type"] == "extra_forbidden" or fault["loc"][-1:] == ("[key]",)
    return joined(place, path[:-1] if at_holder else path)


def _text(kind: type[Section], path: Path, fault: Any) -> str:
    """What is wrong with the value at a path."""
    value, name = fault["input"], fault["type"]
    value = list(value) if isinstance(value, tuple) else value
    members = _members(_annotation_at(kind, path))
    words = [word for each in members if get_origin(each) is Literal for word in get_args(each)]
    if name == "mistake":
        text = str(fault["msg"])
    elif name == "extra_forbidden":
        holder = _section_at(kind, path[:-1])
        text = f"unknown key '{path[-1]}'{names.nearest(path[-1], holder.written() if holder else ())}"
    elif fault["loc"][-1:] == ("[key]",):
        text = f"{path[-1]!r} is no text"
    elif value is None:
        text = f"is empty; expected: {' or '.join(_words(members))}"
    elif len(members) > 1:
        text = f"{value!r} is not of type {' or '.join(map(repr, _words(members)))}{_quoted(value)}"
    elif words:
        text = f"'{value}' is not allowed{names.nearest(value, words)}"
    elif name in _TYPES:
        text = f"{value!r} is not of type '{_TYPES[name]}'{_quoted(value)}"
    elif name in _LIMITS:
        key, limit = _LIMITS[name]
        text = f"{value} {limit} {fault['ctx'][key]:g}"
    elif name in ("too_short", "string_too_short"):
        text = f"{value!r} is too short" if value else f"{value!r} should be non-empty"
    else:
        text = str(fault["msg"])
    return text


def _quoted(value: Any) -> str:
    """What to do about a number or a switch that came as text."""
    if not isinstance(value, str) or not re.fullmatch(
        r"[+-]?[0-9]+([.][0-9]*)?([eE][+-]?[0-9]+)?|true|false|null", value
    ):
        return ""
    return "; it is text: --config makes text of what stands inside of braces, so write it in a file for --configfile"


def _words(members: Sequence[Any]) -> list[str]:
    """The types of a value, in the words of JSON."""
    plain = {int: "integer", float: "number", str: "string", bool: "boolean"}
    words = []
    for each in members:
        origin = get_origin(each)
        if origin is Literal:
            words.append(" | ".join(map(str, get_args(each))))
        elif origin is tuple:
            words.append("array")
        else:
            words.append(plain.get(each, "object"))
    return words


def _bare(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _members(annotation: Any) -> list[Any]:
    """The types that a value may have, None left out."""
    annotation = _bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for each in get_args(annotation) if each is not type(None) for m in _members(each)]
    return [annotation]


def _step(annotation: Any, step: str | int) -> Any:
    """The type one step into a value, of the first member of a union that has it; None where there is none."""
    for each in _members(annotation):
        origin = get_origin(each)
        if isinstance(each, type) and issubclass(each, Section):
            for name, field in each.model_fields.items():
                if (field.alias or name) == step:
                    return field.annotation
        elif origin is dict:
            return get_args(each)[1]
        elif origin is tuple and isinstance(step, int):
            inside = get_args(each)
            return inside[0] if inside[-1] is ... else inside[min(step, len(inside) - 1)]
    return None


def _annotation_at(kind: type[Section], path: Path) -> Any:
    annotation: Any = kind
    for step in path:
        annotation = _step(annotation, step)
    return annotation


def _section_at(kind: type[Section], path: Path) -> type[Section] | None:
    members = [each for each in _members(_annotation_at(kind, path)) if isinstance(each, type)]
    return next((each for each in members if issubclass(each, Section)), None)


def _data_path(kind: type[Section], location: Path) -> Path:
    """The steps of a pydantic location that lie in the data: not the tags of unions and keys."""
    path: list[str | int] = []
    annotation: Any = kind
    for step in location:
        if step == "[key]":
            break
        inside = _step(annotation, step)
        is_section = any(isinstance(each, type) and issubclass(each, Section) for each in _members(annotation))
        if inside is None and not is_section:
            # the tag of a member of a union
            continue
        path.append(step)
        annotation = inside
        if inside is None:
            break
    return tuple(path)


def _removed(value: Any, faults: Iterable[tuple[Path, Any]]) -> bool:
    """Take what was refused out of a section, in place; False where nothing of it would be left to check."""
    anything = False
    for path, fault in faults:
        steps = path[:-1] if fault["type"] == "missing" else path
        if not steps or not isinstance(value, dict):
            return False
        holder, last = value, (value, steps[0])
        for step in steps:
            if isinstance(holder, dict):
                last = (holder, step)
            try:
                holder = holder[step]
            except (KeyError, IndexError, TypeError):
                break
        anything |= last[1] in last[0]
        last[0].pop(last[1], None)
    return anything


def is_text(value: Any, kind: Any) -> str | None:
    """What is wrong with a word that is the key of a mapping; None for nothing."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return str(first["msg"]) if first["type"] == "mistake" else f"{value!r} is no text"
    return None
