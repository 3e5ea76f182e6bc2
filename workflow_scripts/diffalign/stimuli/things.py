"""The concepts of THINGS: 1854 objects, each with an id, a word, a definition and categories."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffalign.human.concepts import Concept
from diffalign.io.headers import StoreError
from diffalign.io.manifest import check_unique
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.stimuli.folders import Source, flat_folder

_ID, _WORD = "uniqueID", "Word"
_DEFINITION = "Definition (from WordNet, Google, or Wikipedia)"
_CATEGORIES = "Top-down Category (manual selection)"


def verified(path: Path, sha256: str | None) -> str:
    """The sha256 of a file of THINGS. Raises StoreError where it is absent, or not the one that its entry says."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file; datasets in config.yaml says where the files of THINGS are")
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise StoreError(f"{path}: has the sha256 {found}, but its entry in config.yaml says {sha256}")
    return found


def read_concepts(path: Path) -> list[Concept]:
    """Read things_concepts.tsv, in the order of the file, which is that of triplets and of VICE's rows.

    Raises StoreError that names the file for a missing column, no rows, or an id that stands twice.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [
            column for column in (_ID, _WORD, _DEFINITION, _CATEGORIES) if column not in (reader.fieldnames or ())
        ]
        if missing:
            raise StoreError(f"{path}: has no column {', '.join(missing)}; expected things_concepts.tsv of THINGS")
        found = [
            Concept(
                row[_ID],
                row[_WORD],
                row[_DEFINITION] or row[_WORD],
                tuple(word.strip() for word in row[_CATEGORIES].split(",") if word.strip()),
            )
            for row in reader
        ]
    if not found:
        raise StoreError(f"{path}: holds no concepts")
    check_unique([concept.name for concept in found], str(path))
    return found


def concept_images(folder: Path, concepts: Sequence[Concept]) -> list[Source]:
    """One image a concept, ``{uniqueID}.jpg``, sorted by name; label_index is the concept's place in the list.

    Raises StoreError that names the first five concepts without an image, or images without a concept.
    """
    place: Mapping[str, int] = {concept.name: i for i, concept in enumerate(concepts)}
    found = {source.name: source for source in flat_folder(folder, "none", None, 0)}
    for only, what in (
        (sorted(set(place) - set(found)), "concepts have no image"),
        (sorted(set(found) - set(place)), "images are of no concept"),
    ):
        if only:
            raise StoreError(f"{folder}: {len(only)} {what}, first: {first_five(only)}")
    return [Source(found[name].path, name, name, place[name]) for name in sorted(place)]
