"""Controls as sides of a comparison: what two layers could share for other reasons, such as classes or pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffalign.alignment import partial
from diffalign.alignment.preparation import unit_rows
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.manifest import read_manifest
from diffalign.io.unlisted_sides import Search, UnlistedSide, read_side
from diffalign.offenders import first_five
from diffalign.randomness import keyed

# controls that are no models
LABELS, UNTRAINED = "labels", "untrained"
# of the noise that tells apart images of one class, which would else be neighbours in order of name
_APART = 1e-2
_APART_WIDTH = 16


@dataclass(frozen=True, eq=False)
class ControlSide:
    """A control as a side of its own, and its columns (N, C) of each layer, as they are given."""

    side: UnlistedSide
    columns: Sequence[NDArray[np.floating]]


def of_model(features: Path, layers: Sequence[str], like: UnlistedSide, where: Path, search: Search) -> ControlSide:
    """Some layers of a bundle. features: its manifest. like, where: a side and its file, whose images must be the
    same.
    """
    side = read_side(features, search, layers, like=like, where=where)
    return ControlSide(side, list(side.rows.values()))


def of_labels(manifest: Path, like: UnlistedSide, where: Path, search: Search) -> ControlSide:
    """The classes of the images. Raises StoreError for other images and for images without a label."""
    images = read_manifest(manifest)
    check_same_names(like.names, [image.name for image in images], where, manifest)
    bare = [image.name for image in images if image.label_index < 0]
    if bare:
        raise StoreError(f"{manifest}: {len(bare)} images have no label, first: {first_five(bare)}")
    labels = [image.label for image in images]
    alone = {LABELS: class_rows(labels, like.names, search.seed)}
    recipe = {"bundle": LABELS, "weights": None, "autoencoder_weights": None}
    side = UnlistedSide(like.names, alone, recipe, {LABELS: LABELS}, search)
    return ControlSide(side, [partial.one_hot(labels)])


def given(control: str, columns: NDArray[np.floating], components: int) -> NDArray[np.floating]:
    """The columns (N, C) of a control that count as given: its `components` leading principal components at most.

    Labels count whole: some of the directions between classes would leave the others in what is shared beyond them.
    """
    return columns if control == LABELS else partial.leading(columns, components)


def class_rows(labels: Sequence[str], names: Sequence[str], seed: int) -> NDArray[np.float32]:
    """Unit rows (N, classes + 16) that say the class of an image and nothing else. Little noise, keyed by (seed, name),
    makes the neighbours of an image random ones of its class.
    """
    apart = np.stack([keyed(seed, "labels", name).standard_normal(_APART_WIDTH) for name in names])
    return unit_rows(np.concatenate([partial.one_hot(labels), _APART * apart], axis=1), names)
