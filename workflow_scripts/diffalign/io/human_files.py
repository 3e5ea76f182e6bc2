"""What is known from people of the objects of a data set, in one file: choices, dimensions, categories; objects in
order of name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign import logs
from diffalign.human.concepts import Concept
from diffalign.human.triplets import Triplets
from diffalign.io.atomic import write_arrays
from diffalign.io.feature_files import Bundle, Features, read_bundle
from diffalign.io.headers import FileKind, StoreError, check_same_names, packed_as_text

KIND = FileKind("a file of people's choices", 2)


@dataclass(frozen=True, eq=False)
class People:
    """Objects in order of name, and what is known of them.

    dimensions: (N, M) float32, or None. categories, members: their names, and which objects each has, (C, N). facts:
    where all of it comes from, and what people can predict of people. listed: place (N,) in the list of concepts.
    """

    names: tuple[str, ...]
    words: tuple[str, ...]
    triplets: Triplets
    dimensions: NDArray[np.float32] | None
    categories: tuple[str, ...]
    members: NDArray[np.bool_]
    facts: Mapping[str, Any]
    listed: NDArray[np.int64]


def ordered(
    concepts: Sequence[Concept],
    triplets: Triplets,
    dimensions: NDArray[np.float32] | None,
    facts: Mapping[str, Any],
) -> People:
    """Bring what is in the order of the list of concepts into order of name.

    Raises StoreError where dimensions are not finite, or not one row a concept.
    """
    if dimensions is not None and (dimensions.ndim != 2 or len(dimensions) != len(concepts)):
        raise StoreError(f"dimensions are {dimensions.shape}; expected one row for each of {len(concepts)} concepts")
    if dimensions is not None and not np.isfinite(dimensions).all():
        raise StoreError("dimensions are NaN or infinite")
    order = np.array(sorted(range(len(concepts)), key=lambda i: concepts[i].name))
    place = np.argsort(order).astype(np.int32)
    categories = sorted({category for concept in concepts for category in concept.categories})
    members = np.array([[category in concepts[i].categories for i in order] for category in categories], bool)
    return People(
        tuple(concepts[i].name for i in order),
        tuple(concepts[i].word for i in order),
        Triplets(place[triplets.objects], len(concepts), triplets.people, triplets.where),
        None if dimensions is None else np.asarray(dimensions[order], np.float32),
        tuple(categories),
        members.reshape(len(categories), len(concepts)),
        facts,
        order.astype(np.int64),
    )


def write_people(path: Path, people: People) -> None:
    """Write all of it as one ``.npz``."""
    arrays: dict[str, Any] = {
        "names": np.array(people.names),
        "words": np.array(people.words),
        "objects": people.triplets.objects,
        "categories": np.array(people.categories, dtype=str),
        "members": people.members,
        "listed": people.listed,
        **packed_as_text(KIND.header(facts=people.facts)),
    }
    if people.triplets.people is not None:
        arrays["people"] = people.triplets.people
    if people.dimensions is not None:
        arrays["dimensions"] = people.dimensions
    write_arrays(path, arrays, compressed=True)


def read_people(path: Path) -> People:
    """Read what `write_people` wrote. Raises StoreError for anything else, and names the file."""
    header, arrays = KIND.read_archive(path)
    names = tuple(arrays["names"].tolist())
    return People(
        names,
        tuple(arrays["words"].tolist()),
        Triplets(arrays["objects"], len(names), arrays.get("people"), str(path)),
        arrays.get("dimensions"),
        tuple(arrays["categories"].tolist()),
        arrays["members"],
        header["facts"],
        arrays["listed"],
    )


def layers_of(layers_json: Path, people: People) -> Iterator[tuple[str, Features]]:
    """Every layer of a bundle with its features, in order of depth; as `layer_of`."""
    bundle = read_bundle(layers_json)
    for alias in logs.progress(bundle.digests, len(bundle.digests), "layers"):
        yield alias, layer_of(bundle, alias, people)


def layer_of(bundle: Bundle, alias: str, people: People) -> Features:
    """The features of one layer, rows in order of name.

    Raises StoreError where they are of other objects, or have changed since the manifest was written.
    """
    features = bundle.read(alias)
    check_same_names(people.names, features.names, Path(people.triplets.where), bundle.path(alias))
    return features
