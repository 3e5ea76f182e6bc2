"""Lists of offending names in messages: the first five, and a mark where there are more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# of a name in a message
_LONGEST = 120
# control characters, and separators of lines and paragraphs
_BREAKS_LINES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def first_five(names: Sequence[str]) -> str:
    """``a, b, c, d, e …``; long names are cut, and what would break lines is written as in Python."""
    cut = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in names[:5]]
    shown = [_BREAKS_LINES.sub(lambda match: repr(match[0])[1:-1], name) for name in cut]
    return ", ".join(shown) + (" …" if len(names) > 5 else "")


def breaking_lines(names: Iterable[str]) -> list[str]:
    """The names that cannot stand in a line of text, as messages show them: with a line break or another control
    character.
    """
    return [repr(name) for name in names if _BREAKS_LINES.search(name)]


def flagged(names: Iterable[str], bad: Iterable[object]) -> list[str]:
    """The names whose flag is set. Raises ValueError where the numbers of names and flags differ."""
    return [name for name, is_bad in zip(names, bad, strict=True) if is_bad]
