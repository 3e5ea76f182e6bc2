"""Lists of offending names in messages: the first five, and a mark where there are more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def first_five(names: Sequence[str]) -> str:
    """``a, b, c, d, e …``"""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def flagged(names: Iterable[str], bad: Iterable[object]) -> list[str]:
    """The names whose flag is set. Raises ValueError where the numbers of names and flags differ."""
    return [name for name, is_bad in zip(names, bad, strict=True) if is_bad]
