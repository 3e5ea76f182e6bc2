"""The objects of THINGS."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Concept:
    """One object. name: its uniqueID. description: its definition, or the word where there is none."""

    name: str
    word: str
    description: str
    categories: tuple[str, ...]
