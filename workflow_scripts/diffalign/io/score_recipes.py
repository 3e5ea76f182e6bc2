"""Recipes of scores as their readers need them: the version, miniatures, shared noise, and what one side knows of the
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign import names
from diffalign.io.headers import FileKind
from diffalign.randomness import PUBLISHED_SEED

KIND = FileKind("a recipe of a score", 2)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the JSON beside a score. Raises StoreError for another format."""
    return KIND.read_json(path)


def is_miniature(recipe: Mapping[str, Any]) -> bool:
    """True where either side, or the autoencoder that it reads, has random miniature weights."""
    records = [recipe[side][key] for side in ("a", "b") for key in ("weights", "autoencoder_weights")]
    return any(record is not None and record["source"] == "miniature" for record in records)


def shared_noise(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """How two sides share their noise, by which they agree even where they have nothing else in common.

    a, b: recipes of both sides. ``model``: they are one model, at two noise levels for example. ``common``,
    ``constant``: rules of `diffalign.randomness.normal` that share it between models; ``published`` is ``constant``
    with the seed 42. None: each has its own, or one of them has none, or they are of other draws.
    """
    first, second = a["model"], b["model"]
    if any(model.get("latents") is None for model in (first, second)):
        return None
    keys = [_noise_rule(model) for model in (first, second)]
    if keys[0] != keys[1] or not _draws(first) & _draws(second):
        return None
    seeding: str = keys[0][0]
    if seeding == "name":
        return "model" if first["name"] == second["name"] else None
    return seeding


def _noise_rule(model: Mapping[str, Any]) -> tuple[str, int]:
    """The rule and the seed that a model's noise is drawn by."""
    seeding: str = model.get("seeding", "name")
    return ("constant", PUBLISHED_SEED) if seeding == "published" else (seeding, model.get("seed", 0))


def _draws(model: Mapping[str, Any]) -> set[int]:
    """The numbers of the draws of noise that features are of."""
    redraw = model.get("redraw", 0)
    return {redraw} if redraw else set(range(model.get("draws", 1)))


def leak(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """What one side was given of the other, so that a score says little of what each found by itself; None for nothing.

    a, b: recipes of both sides (their models and autoencoders). Said are outputs of the other side that a model reads,
    and a training towards it, of the model or of its autoencoder; at last, where both were trained towards one model.
    Another size of a model counts as the model: ``dinov2.g`` as ``dinov2``. An untrained twin, and a training at step
    0, were trained towards nothing.
    """
    # labels are a side without a model
    if any("model" not in side for side in (a, b)) or a["model"]["name"] == b["model"]["name"]:
        return None
    said = []
    for one, other in ((a, b), (b, a)):
        target = other["model"]["name"]
        said += [f"{subject} {verb} {seen}" for subject, verb, seen in _given(one) if _kin(seen, target)]
    if not said:
        towards = [{seen for _, verb, seen in _given(side) if verb == _TOWARDS} for side in (a, b)]
        common = (seen for seen in sorted(towards[0]) if any(_kin(seen, other) for other in towards[1]))
        said = [f"both trained towards {seen}" for seen in common]
    return "; ".join(dict.fromkeys(said)) or None


_READS, _TOWARDS = "reads", "was trained towards"


def _given(side: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(model, verb, model that it was given) of a side and of its autoencoder."""
    model, autoencoder = side["model"], side.get("autoencoder")
    found = [] if autoencoder is None else [(model["name"], _READS, autoencoder["name"])]
    for each in (model, autoencoder):
        if each is None:
            continue
        reads = [*each.get("reads", ()), *filter(None, [each.get("class_tokens")])]
        found += [(each["name"], _READS, seen) for seen in reads]
        if each.get("untrained") or each.get("step") == 0:
            continue
        teacher = (each.get("training") or {}).get("teacher")
        towards = [*each.get("trained_towards", ()), *([names.model_word(teacher)] if teacher else [])]
        found += [(each["name"], _TOWARDS, seen) for seen in towards]
    return found


def _kin(first: str, second: str) -> bool:
    """Whether two names are of one model or of sizes of it, which a dot follows."""
    return first == second or first.startswith(f"{second}.") or second.startswith(f"{first}.")
