"""The concepts of THINGS: 1854 objects, each with an id, a word, a definition and categories."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from diffalign.dataset_specs import Dataset
from diffalign.human.concepts import Concept
from diffalign.io.headers import StoreError
from diffalign.io.manifest import check_unique
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.reasons import reason
from diffalign.stimuli.folders import Source, flat_folder
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Stimulus, Supplied, of_file, square

_ID, _WORD = "uniqueID", "Word"
_DEFINITION = "Definition (from WordNet, Google, or Wikipedia)"
_CATEGORIES = "Top-down Category (manual selection)"


def verified(path: Path, sha256: str | None) -> str:
    """The sha256 of a file of THINGS. Raises StoreError where it is absent, or not the one that its entry says."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file; datasets in config.yaml says where the files of THINGS are")
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        raise StoreError(f"{path}: has the sha256 {digest}, but its entry in config.yaml says {sha256}")
    return digest


def read_concepts(path: Path) -> list[Concept]:
    """Read things_concepts.tsv, in the order of the file, which is that of triplets and of VICE's rows.

    Raises StoreError that names the file for a missing column, no rows, or an id that stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, delimiter="\t")
            there, rows = reader.fieldnames or (), list(reader)
    except (csv.Error, UnicodeDecodeError, MemoryError) as error:
        raise StoreError(f"{path}: cannot be read as a table of concepts ({reason(error)})") from error
    missing = [column for column in (_ID, _WORD, _DEFINITION, _CATEGORIES) if column not in there]
    if missing:
        raise StoreError(f"{path}: has no column {', '.join(missing)}; expected things_concepts.tsv of THINGS")
    short = [str(row[_ID]) for row in rows if None in row.values() or not row[_ID]]
    if short:
        raise StoreError(f"{path}: {len(short)} rows have fewer cells than the header, first: {first_five(short)}")
    concepts = [
        Concept(
            row[_ID],
            row[_WORD],
            row[_DEFINITION] or row[_WORD],
            tuple(word.strip() for word in row[_CATEGORIES].split(",") if word.strip()),
        )
        for row in rows
    ]
    if not concepts:
        raise StoreError(f"{path}: holds no concepts")
    check_unique([concept.name for concept in concepts], str(path))
    return concepts


def concept_images(folder: Path, concepts: Sequence[Concept]) -> list[Source]:
    """One image a concept, ``{uniqueID}.jpg``, sorted by name; label_index is the concept's place in the list.

    Raises StoreError that names the first five concepts without an image, or images without a concept.
    """
    place: Mapping[str, int] = {concept.name: i for i, concept in enumerate(concepts)}
    images = {source.name: source for source in flat_folder(folder)}
    for only, what in (
        (sorted(set(place) - set(images)), "concepts have no image"),
        (sorted(set(images) - set(place)), "images are of no concept"),
    ):
        if only:
            raise StoreError(f"{folder}: {len(only)} {what}, first: {first_five(only)}")
    return [Source(images[name].path, name, name, place[name]) for name in sorted(place)]


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every concept, with its image where the data set has a folder of them: label, caption and description are its id,
    word and definition. Raises StoreError as `verified`, `read_concepts` and `concept_images`.
    """
    assert supplied.concepts is not None  # the config is checked
    path = Path(supplied.concepts.path)
    verified(path, supplied.concepts.sha256)
    concepts = read_concepts(path)
    if dataset.path is None:
        words = [
            Stimulus(each.name, each.name, i, each.word, each.description, path.name) for i, each in enumerate(concepts)
        ]
        return Listing([word.name for word in words], words)
    root, by_name = Path(dataset.path), {concept.name: concept for concept in concepts}
    read = partial(square, dataset)
    pictures = [
        of_file(source, root, read, by_name[source.name].word, by_name[source.name].description)
        for source in concept_images(root, concepts)
    ]
    return Listing([picture.name for picture in pictures], pictures)


def _has_images(dataset: Dataset) -> bool:
    return dataset.path is not None


KIND = DatasetKind(
    rows,
    frozenset({"path", "square", "concepts", "dimensions", "triplets", "similarities"}),
    needs=frozenset({"concepts", "triplets"}),
    has_images=_has_images,
    images_alone=True,
)
