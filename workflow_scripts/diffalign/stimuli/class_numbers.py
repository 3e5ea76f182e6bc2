"""The numbers of classes: which label of a data set is which ``label_index``."""

from __future__ import annotations

import re
from collections.abc import Iterable


class LabelError(ValueError):
    """Labels that are no classes, or not those of a model; the message names the first five images."""


def class_numbers(labels: Iterable[str]) -> dict[str, int]:
    """The ``label_index`` of each label of a data set: of whole numbers the number itself, or one less where they are
    1, 2 … n; else the place among all labels in order. Raises LabelError where two labels are one number, such as 7 and
    07.
    """
    words = sorted(set(labels))
    if not words or not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        return {word: place for place, word in enumerate(words)}
    numbers = {word: int(word) for word in words}
    spelled: dict[int, str] = {}
    for word, number in numbers.items():
        if spelled.setdefault(number, word) != word:
            raise LabelError(f"the labels '{spelled[number]}' and '{word}' are one number; write it in one way")
    first = 1 if sorted(numbers.values()) == list(range(1, len(numbers) + 1)) else 0
    return {word: number - first for word, number in numbers.items()}
