"""Checkpoints of a training of a user's own: files or folders with the step in their name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

PLACEHOLDER = "{step}"


class StepError(ValueError):
    """Checkpoints that are not there, or two of one step; the message names the pattern."""


def mistake_in(pattern: str) -> str | None:
    """What is wrong with a path that should hold ``{step}`` once, in its last part; None where nothing is."""
    if pattern.count(PLACEHOLDER) != 1 or PLACEHOLDER not in Path(pattern).name:
        return f"'{pattern}' must hold {PLACEHOLDER} once, in its last part, as in runs/sit/{PLACEHOLDER}.pt"
    return None


def step_files(pattern: str, wanted: Sequence[int] | str) -> dict[int, str]:
    """Step -> path, ascending, of checkpoints whose path is `pattern` with a number in the place of ``{step}``.

    wanted: steps, or ``all`` that lie there now. A step that is not there has the path with the bare number, so that a
    plan can be made where the files do not lie. Raises StepError where two files have one step, and for ``all`` where
    there is none.
    """
    place = Path(pattern).expanduser()
    before, after = (re.escape(part) for part in place.name.split(PLACEHOLDER))
    there: dict[int, str] = {}
    for path in sorted(place.parent.glob("*")):
        match = re.fullmatch(f"{before}([0-9]+){after}", path.name)
        if match is None:
            continue
        step = int(match[1])
        if step in there:
            raise StepError(f"{there[step]} and {path} are both of step {step}; move one of them away")
        there[step] = str(path)
    if wanted == "all":
        if not there:
            raise StepError(f"no checkpoint lies at {pattern}, with a number in the place of {PLACEHOLDER}")
        return dict(sorted(there.items()))
    assert not isinstance(wanted, str)  # the config is checked
    return {step: there.get(step, str(place).replace(PLACEHOLDER, str(step))) for step in sorted(wanted)}
