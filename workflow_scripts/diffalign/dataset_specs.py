"""What jobs receive of data sets: where images, texts and choices of people come from, as plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table: one each, or several of which the first that is not empty counts.

    name: None where rows are named by their number. image: None where there are only texts.
    """

    name: str | None = None
    image: str | None = None
    label: str | Sequence[str] | None = None
    caption: str | Sequence[str] | None = None
    description: str | Sequence[str] | None = None
    group: str | Sequence[str] | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """Every column, once."""
        columns: list[str] = []
        for value in vars(self).values():
            columns += [] if value is None else [value] if isinstance(value, str) else value
        return tuple(dict.fromkeys(columns))


@dataclass(frozen=True)
class Split:
    """One part of a collection: ``train``, or ``held_out``, which has about that share of its images."""

    part: str
    held_out: float = 0.2


# keys of a data set that recipes leave out where they are not given
_OPTIONAL = ("collection", "split", "groups", "archive")


@dataclass(frozen=True)
class Dataset:
    """Where images come from and how they become squares of `size` pixels; docs/config.md."""

    kind: str
    size: int | None = None
    path: str | None = None
    square: str = "adm"
    sample: int | None = None
    labels: str = "none"
    per_photograph: int = 16
    columns: Mapping[str, Any] = field(default_factory=dict)
    caption_index: int = 0
    prompt: str = ""
    hub: Mapping[str, Any] | None = None
    collection: str | None = None
    split: Mapping[str, Any] | None = None
    parts: str | None = None
    groups: str | None = None
    archive: Mapping[str, Any] | None = None

    def recipe(self) -> dict[str, Any]:
        """Every key that images depend on, as plain JSON; a collection, split and groups only where there are some."""
        images = asdict(self)
        # masks lie beside them
        del images["parts"]
        return {key: value for key, value in images.items() if value is not None or key not in _OPTIONAL}

    def of_images(self) -> Dataset:
        """The same images, without what is said beside them: masks of parts, which none of them depends on."""
        return replace(self, parts=None)


@dataclass(frozen=True)
class Texts:
    """Files of texts of the images of a data set. files: conditioning -> file. class_names: a file of them, or None."""

    files: Mapping[str, str]
    class_names: str | None


@dataclass(frozen=True)
class SourceFile:
    """A file of a data set, and the sha256 that it must have; None for any."""

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class TripletFile:
    """Files of choices, in order. first: 0 or 1, the number of the first object. odd: ``last`` or ``column``."""

    path: str | Sequence[str]
    first: int
    odd: str
    sha256: str | Sequence[str] | None = None


@dataclass(frozen=True)
class SimilarityFile:
    """A matrix of human similarities of some objects, and the file of their names. key, names_key: where both are in
    MATLAB files. measures: ``dissimilarity`` or ``similarity``.
    """

    path: str
    names: str
    key: str | None
    names_key: str | None
    measures: str
    sha256: str | None = None
