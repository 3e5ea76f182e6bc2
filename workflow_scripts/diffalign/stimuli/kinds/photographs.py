"""The photographs that ship inside scikit-image and scikit-learn, cut into crops by a fixed rule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, Stimulus, Supplied
from diffalign.stimuli.squares import ImageError, read_rgb

# file -> caption; the wheels carry these files, nothing is downloaded
PHOTOGRAPHS = {
    "astronaut.png": "a smiling woman in an orange space suit before a flag and a model of a space shuttle",
    "brick.png": "a wall of bricks laid in even courses",
    "camera.png": "a man in a dark coat behind a camera on a tripod on a lawn",
    "cell.png": "a single cell seen through a microscope",
    "chelsea.png": "the face of a ginger tabby cat with green eyes",
    "china.jpg": "a Chinese temple with a curved roof above a stone terrace",
    "clock_motion.png": "a round wall clock blurred by motion",
    "coffee.png": "a cup of espresso with a spoon on a saucer on a wooden table",
    "coins.png": "rows of ancient Greek coins on a dark ground",
    "flower.jpg": "a pink and yellow dahlia in full bloom",
    "grass.png": "blades of grass seen from above",
    "gravel.png": "a ground of rounded gravel",
    "hubble_deep_field.jpg": "hundreds of distant galaxies on a black sky",
    "ihc.png": "stained tissue with blue and brown cells under a microscope",
    "moon.png": "the cratered surface of the Moon",
    "motorcycle_left.png": "a red motorcycle parked in a garage among tools",
    "page.png": "a page of printed text lit unevenly",
    "retina.jpg": "the retina of an eye with its blood vessels",
    "rocket.jpg": "a rocket on its launch pad against the evening sky",
    "text.png": "handwritten words on paper",
}
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def label_of(file: str) -> str:
    """The label of a photograph: its file's stem, without underscores."""
    return Path(file).stem.replace("_", "-")


def crop_name(label: str, number: int) -> str:
    """The name of a crop of the photograph with this label."""
    return f"{label}_{number:03d}"


def _in_order() -> list[str]:
    """The files, by label."""
    return sorted(PHOTOGRAPHS, key=label_of)


def photograph_path(file: str) -> Path:
    """Where an installed package keeps this photograph. Raises ImageError where it does not."""
    import skimage.data
    import sklearn.datasets

    folders = (Path(skimage.data.__file__).parent, Path(sklearn.datasets.__file__).parent / "images")
    for folder in folders:
        if (folder / file).is_file():
            return folder / file
    raise ImageError(f"{file}: not in {' or '.join(str(f) for f in folders)}; reinstall scikit-image and scikit-learn")


def grid(width: int, height: int, count: int) -> tuple[int, int]:
    """Rows and columns of `count` windows whose cells are closest to squares on a width x height image."""
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: abs(math.log((width / shape[1]) / (height / shape[0]))))


def crops(photograph: Image.Image, size: int, count: int) -> Iterator[tuple[Image.Image, str]]:
    """`count` windows of size x size pixels, evenly spaced in reading order, and where each lies.

    A photograph whose short side is above 2 x size is first reduced to it, so that a window shows a part of the scene
    rather than a patch of texture. Raises ImageError where the photograph is smaller than a window.
    """
    short = min(photograph.size)
    if short < size:
        raise ImageError(f"crops of {size} px do not fit a photograph of {photograph.width} x {photograph.height} px")
    if short > 2 * size:
        scale = 2 * size / short
        photograph = photograph.resize(
            (round(photograph.width * scale), round(photograph.height * scale)), Image.Resampling.BICUBIC
        )
    rows, columns = grid(*photograph.size, count)
    for row in range(rows):
        for column in range(columns):
            top = _offset(row, rows, photograph.height - size)
            left = _offset(column, columns, photograph.width - size)
            place = f"{_ROWS[_third(row, rows)]} {_COLUMNS[_third(column, columns)]}"
            yield photograph.crop((left, top, left + size, top + size)), place


def _offset(index: int, count: int, room: int) -> int:
    return room // 2 if count == 1 else round(index * room / (count - 1))


def _third(index: int, count: int) -> int:
    return 1 if count == 1 else min(2, 3 * index // count)


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """All crops of all photographs."""
    assert dataset.size is not None  # the config is checked
    count = dataset.per_photograph
    names = [crop_name(label_of(file), number) for file in _in_order() for number in range(count)]
    return Listing(names, photographs(dataset.size, count))


def photographs(size: int, count: int) -> Iterator[Stimulus]:
    """`count` crops of size x size pixels of every photograph, in order of name; descriptions are of the whole."""
    for index, file in enumerate(_in_order()):
        caption = PHOTOGRAPHS[file]
        image, notes = read_rgb(photograph_path(file))
        label = label_of(file)
        for number, (crop, place) in enumerate(crops(image, size, count)):
            picture = partial(_as_it_is, crop, notes)
            name = crop_name(label, number)
            yield Stimulus(name, label, index, f"{caption}, {place}", caption, file, picture, group=label)


def _as_it_is(crop: Image.Image, notes: str) -> tuple[Image.Image, str]:
    return crop, notes


def _has_groups(dataset: Dataset) -> bool:
    return dataset.per_photograph > 1


KIND = DatasetKind(rows, frozenset({"per_photograph", "split"}), has_groups=_has_groups)
