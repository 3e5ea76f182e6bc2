"""Latents that were made elsewhere, in a folder of any layout.

A folder is looked at once for its names; latents are then read one image at a time, unnormalised, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffalign.io.headers import StoreError
from diffalign.io.layouts import lightningdit, repa
from diffalign.io.layouts.latent_records import Draw, Folder
from diffalign.io.layouts.row_names import cleaned_names, names_file
from diffalign.io.manifest import Image
from diffalign.offenders import first_five

LAYOUTS: Mapping[str, Callable[[Path, Sequence[str] | None, Draw], Folder]] = {
    "lightningdit": lightningdit.open_folder,
    "repa": repa.open_folder,
}


def open_folder(path: Path, layout: str, names: Path | None, draw: Draw) -> Folder:
    """Look at a folder. layout: one of LAYOUTS.

    names: a text file with one name a line, for folders without names: in the order of the rows of the files in order
    of name, or of the indices that REPA names its files by. draw: is for REPA, whose files hold a posterior.
    Raises FileNotFoundError, or StoreError that names the file and the first five offenders.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder of latents")
    given = None if names is None else cleaned_names(names_file(names), names)
    folder = LAYOUTS[layout](path, given, draw)
    return folder if names is None else replace(folder, files=(*folder.files, names))


def check_images(folder: Folder, rows: Sequence[Image]) -> None:
    """Raise StoreError for images without a latent, and for labels that say that latents are of other images.

    The folder may hold further images. Its classes may be numbered otherwise; but images that share a label in the
    manifest must share one there.
    """
    absent = [row.name for row in rows if row.name not in folder.file_of]
    if absent:
        raise StoreError(
            f"{folder.path}: no latents for {len(absent)} of {len(rows)} images: {first_five(absent)}; "
            f"the folder has {first_five(sorted(folder.file_of))}"
        )
    seen: dict[int, tuple[str, int]] = {}
    for row in rows:
        label = folder.labels.get(row.name)
        if row.label_index < 0 or label is None:
            continue
        name, other = seen.setdefault(row.label_index, (row.name, label))
        if other != label:
            raise StoreError(
                f"{folder.path}: {name} and {row.name} are both '{row.label}', but their latents have the labels "
                f"{other} and {label}; are they of other images?"
            )
