"""Kinds of data sets, one module each: which keys of an entry a kind reads, and how its rows are listed.

A new kind is a module with a `DatasetKind` and its line in `KINDS`; the word that its entries name it by is the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from diffalign.dataset_specs import Dataset, Split
from diffalign.io.manifest import Image
from diffalign.offenders import breaking_lines, first_five
from diffalign.stimuli.kinds import (
    faces,
    folder,
    packaged,
    photographs,
    precomputed,
    synsets,
    table,
    things,
    transformed,
)
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, PartMasks, Stimulus, Supplied
from diffalign.stimuli.selection import select

__all__ = [
    "KINDS",
    "DatasetKind",
    "Listing",
    "PartMasks",
    "Stimulus",
    "Supplied",
    "has_groups",
    "has_images",
    "has_manifest",
    "has_part_masks",
    "part_masks",
    "rows",
]

KINDS: Mapping[str, DatasetKind] = {
    "photographs": photographs.KIND,
    "faces": faces.KIND,
    "packaged": packaged.KIND,
    "folder": folder.KIND,
    "synsets": synsets.KIND,
    "transformed": transformed.KIND,
    "table": table.KIND,
    "things": things.KIND,
    "precomputed": precomputed.KIND,
}


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """The rows of a data set: of its split and its sample, where it has them.

    Raises ValueError for a kind without rows and for names that cannot stand in a line of text, SelectionError as
    `select`, and what the kind's own `rows` raises.
    """
    listing = KINDS[dataset.kind].rows
    if listing is None:
        raise ValueError(f"data sets of kind '{dataset.kind}' have no rows: only features know their names")
    whole = listing(dataset, supplied)
    where = dataset.path or f"data set of kind '{dataset.kind}'"
    unfit = breaking_lines(whole.names)
    if unfit:
        raise ValueError(f"{where}: {len(unfit)} names hold line breaks or control characters: {first_five(unfit)}")
    split = None if dataset.split is None else Split(**dataset.split)
    names = select(whole.names, split, dataset.sample, supplied.seed, where)
    chosen = set(names)
    return Listing(names, (_grouped(row, dataset.groups) for row in whole.rows if row.name in chosen))


def _grouped(row: Stimulus, rule: str | None) -> Stimulus:
    """The row with the group of a rule: its ``label``, or the ``prefix`` of its name up to the last underscore.

    Raises ValueError for a row without.
    """
    if rule is None:
        return row
    group = row.label if rule == "label" else row.name.rpartition("_")[0]
    if not group:
        raise ValueError(
            f"groups: {rule} needs a {'label' if rule == 'label' else 'name with an underscore'}; '{row.name}' has none"
        )
    return replace(row, group=group)


def has_images(dataset: Dataset) -> bool:
    """False where there are only features that were made elsewhere, or names and texts."""
    return KINDS[dataset.kind].has_images(dataset)


def has_manifest(dataset: Dataset) -> bool:
    """False where there are only features that were made elsewhere, whose names nothing else knows."""
    return KINDS[dataset.kind].rows is not None


def has_groups(dataset: Dataset) -> bool:
    """False where every image is a group of its own, whatever its manifest would say."""
    return KINDS[dataset.kind].has_groups(dataset)


def has_part_masks(dataset: Dataset) -> bool:
    """Whether it is known which part each pixel of its images belongs to: by its kind, or by its key `parts`."""
    kind = KINDS[dataset.kind]
    return kind.part_masks is not None and ("parts" not in kind.keys or dataset.parts is not None)


def part_masks(dataset: Dataset, images: Sequence[Image]) -> PartMasks:
    """The masks of the parts of these images, rows of the manifest of the clean ones.

    Raises ValueError for a data set without masks, and what the kind's own `part_masks` raises.
    """
    listing = KINDS[dataset.kind].part_masks
    if listing is None or not has_part_masks(dataset):
        known = ", ".join(f"'{word}'" for word, kind in KINDS.items() if kind.part_masks is not None)
        raise ValueError(
            f"this data set of kind '{dataset.kind}' has no masks of parts; data sets of kinds {known} have, those of "
            "kind 'folder' with the key 'parts'"
        )
    return listing(dataset, images)
