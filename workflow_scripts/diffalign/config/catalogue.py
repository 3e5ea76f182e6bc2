"""The catalogue of models: a folder of YAML files, below which the user's entries are merged.

An entry of the catalogue or of the user may inherit from another one (`like`), and `defaults.weights` turns all of the
catalogue into miniatures.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from diffalign import names
from diffalign.config.mistakes import check_size
from diffalign.names import UnknownName

Entry = dict[str, Any]
# levels of mappings and lists in a file
_DEEPEST = 50


def read_catalogue(folder: Path) -> dict[str, Entry]:
    """Model -> entry, of every ``*.yaml`` of a folder, in order of their names.

    Raises ValueError for a file that is no mapping of mappings, and for a model in two files.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = read_yaml(path)
        if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
            raise ValueError(f"{path}: expected entries of models, name: {{family: …}}")
        for name, entry in content.items():
            if name in entries:
                raise ValueError(f"{path}: the model '{name}' stands in another file of {folder}, too")
            entries[name] = entry
    return entries


def read_yaml(path: Path) -> Any:
    """The content of a file. Raises ValueError for what is no YAML, too large or too deep."""
    # the C loader of the library, where it was built with one: four times as fast
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_text(encoding="utf-8")
        _check_depth(text, loader)
        return check_size(yaml.load(text, loader))  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error


def _check_depth(text: str, loader: Any) -> None:
    """Raise ValueError for a text that is nested so deeply that building it would end the process."""
    depth = 0
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Entry:
    """Two entries as one: mappings by key, anything else of `above` in place of what `below` has."""
    result = dict(copy.deepcopy(below))
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def resolve(
    catalogue: Mapping[str, Entry], own: Mapping[Any, Any], weights: str | None, mistakes: list[str]
) -> dict[Any, Any]:
    """The entries of all models with nothing left to inherit: those of the catalogue, the user's merged over them.

    own: the user's entries. weights: defaults.weights. An entry that inherits from an unknown model or from itself is
    left out, with a line at the end of `mistakes`; an own entry that is no mapping is returned as it is.
    """
    entries: dict[Any, Any] = {}
    for name in [*catalogue, *(name for name in own if name not in catalogue)]:
        if name in own and not isinstance(own[name], dict):
            entries[name] = own[name]
            continue
        try:
            base, above = _layers(name, catalogue, own, ())
        except UnknownName as error:
            mistakes.append(f"models.{name}.like: {error}")
            continue
        given = above.get("weights")
        source = given.get("from") if isinstance(given, dict) else None
        if source == "miniature" or (source is None and weights == "miniature" and "miniature" in base):
            base, above = as_miniature(base), _sized(above)
        entries[name] = merged(base, above)
    return entries


def as_miniature(entry: Entry) -> Entry:
    """An entry of the catalogue with the weights of its miniature, the input size ``input.miniature`` if there is one,
    and the batch size of all models.
    """
    if not entry:
        return entry
    made = merged(entry, {"weights": {"from": "miniature"}})
    made.pop("batch_size", None)
    return _sized(made)


def _sized(entry: Entry) -> Entry:
    given = entry.get("input")
    size = given.get("miniature") if isinstance(given, dict) else None
    return entry if size is None else merged(entry, {"input": {"size": size}})


def _layers(
    name: Any, catalogue: Mapping[str, Entry], own: Mapping[Any, Any], path: tuple[Any, ...]
) -> tuple[Entry, Entry]:
    """What an entry has of the catalogue, and what the user lays over it. Raises UnknownName.

    An entry that inherits from another one has the layers of both. path: the entries on the way here.
    """
    if name in path:
        raise UnknownName(f"'{name}' inherits from itself ({' -> '.join(map(str, (*path, name)))})")
    layer = own.get(name, {})
    if not isinstance(layer, dict):
        # refused where it is read
        raise UnknownName(f"the entry of '{name}' is no mapping")
    if "like" in layer:
        base, below = _layers(_parent(layer, [*catalogue, *own]), catalogue, own, (*path, name))
        return _without_replaced(base, layer), _inherited(below, layer)
    if name not in catalogue:
        return {}, layer
    published = catalogue[name]
    if "like" in published:
        # the user's changes of the other model are not inherited
        base, _ = _layers(_parent(published, catalogue), catalogue, {}, (*path, name))
        published = _inherited(base, published)
    return published, layer


def _parent(entry: Entry, known: Iterable[Any]) -> Any:
    parent, known = entry["like"], list(known)
    if parent not in known:
        raise names.unknown("model", parent, known)
    return parent


def _inherited(below: Entry, entry: Entry) -> Entry:
    """An entry with what it leaves out of another one. Its mappings are merged by key, those inside of them are not: a
    scheduler, say, is one thing. Its layers stand in place of the inherited ones.
    """
    result = copy.deepcopy(_without_replaced(below, entry))
    for key, value in entry.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = {**result[key], **value} if both else value
    result.pop("like", None)
    return result


def _without_replaced(below: Entry, entry: Entry) -> Entry:
    return {key: value for key, value in below.items() if key != "layers" or "layers" not in entry}
