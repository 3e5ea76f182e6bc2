"""Faces that ship inside scikit-image, with hand-made masks of their parts.

The astronaut is Eileen Collins (NASA, no known copyright restrictions). The others are of `skimage.data.lfw_subset`:
100 faces, drawn at random from Labeled Faces in the Wild (Huang, Mattar, Lee and Learned-Miller 2012, "Learning to
align from scratch"; http://vis-www.cs.umass.edu/lfw/), cut out, grey and 25 x 25 pixels. scikit-image names no licence
of theirs. All are read from the installed package; only the masks are of this project.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffalign.dataset_specs import Dataset
from diffalign.io import manifest
from diffalign.stimuli.kinds.declaration import DatasetKind, Listing, PartMasks, Stimulus, Supplied
from diffalign.stimuli.squares import ImageError, make_square, read_rgb

# of each face and part, polygons in fractions of the side, x to the right and y downwards, drawn by hand on the picture
# enlarged; of overlapping parts the later covers the earlier
POLYGONS = Path(__file__).with_name("face_parts.json")
# left, upper, right and lower edge of the face in astronaut.png
_CROP = (140, 8, 316, 184)
_ASTRONAUT, _SUBSET = "astronaut.png", "lfw_subset.npy"


@dataclass(frozen=True)
class Face:
    """A face of scikit-image. row: of lfw_subset; None for the astronaut. sha256: of its pixels, (H, W, 3) or grey
    (25, 25) of 8 bits, on which its mask was drawn.
    """

    row: int | None
    caption: str
    sha256: str


# frontal faces whose hair, forehead, eyes, nose and mouth are all seen, at 25 pixels too
FACES: Mapping[str, Face] = {
    "astronaut": Face(
        None,
        "a smiling face with short brown hair",
        "9e7d6566b429f32bb3f81c559fde6923004dd6444bbe711a1dd49b16336d7c86",
    ),
    "lfw_046": Face(
        46,
        "a face with long dark hair, half in shadow",
        "e48812c9866c3e752ff9b5de7b4044fe507e2074864411a041d99d871fc13489",
    ),
    "lfw_049": Face(
        49,
        "a face with short dark hair and an open mouth",
        "16a6e740ab320397d172b5511d7f3b6e12bc01847be9b33c2d42b6f13c488088",
    ),
    "lfw_052": Face(
        52,
        "a smiling face with curly dark hair and a fringe",
        "6d0dc8494f2881ec175f955f34846e2598c24ffe26c6b67e5012d1e0e9951d05",
    ),
    "lfw_091": Face(
        91, "a laughing face with curly dark hair", "87bd77d9619660ed5f6add7bf25e83910b960ddbba8fd3ffbf93889627e35171"
    ),
    "lfw_093": Face(
        93, "a smiling face with long dark hair", "e8449efc257bf393441466619f522fd0e2774a0dbca0cafc8309f7504ffc8d02"
    ),
}


def rows(dataset: Dataset, supplied: Supplied) -> Listing:
    """Every face, enlarged or reduced to the size by bicubic interpolation. Raises ImageError as `pixels`."""
    return Listing(list(FACES), _listed(dataset))


def _listed(dataset: Dataset) -> Iterator[Stimulus]:
    for name, face in FACES.items():
        source = _ASTRONAUT if face.row is None else f"{_SUBSET}:{face.row}"
        yield Stimulus(name, "face", 0, face.caption, "", source, partial(_picture, dataset, name))


def pixels(name: str) -> NDArray[np.uint8]:
    """The pixels of a face as scikit-image has them, (H, W, 3) or (25, 25).

    Raises ImageError for a file that is not there, and for other pixels than those on which the mask was drawn.
    """
    import skimage.data

    face = FACES[name]
    path = Path(skimage.data.__file__).parent / (_ASTRONAUT if face.row is None else _SUBSET)
    if not path.is_file():
        raise ImageError(f"{path}: missing; reinstall scikit-image")
    if face.row is None:
        whole, _ = read_rgb(path)
        values = np.asarray(whole.crop(_CROP))
    else:
        values = np.round(np.load(path)[face.row] * 255).astype(np.uint8)
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    if digest != face.sha256:
        raise ImageError(
            f"{path}: the face '{name}' has other pixels than in the version that requirements.lock pins "
            f"(sha256 {digest}, expected {face.sha256}), so its mask does not fit"
        )
    return values


def _picture(dataset: Dataset, name: str) -> tuple[Image.Image, str]:
    assert dataset.size is not None  # the config is checked
    face = Image.fromarray(pixels(name))
    notes = "" if face.mode == "RGB" else f"converted from {face.mode}"
    return make_square(face.convert("RGB"), dataset.size, dataset.square), notes


def part_masks(dataset: Dataset, images: Sequence[manifest.Image]) -> PartMasks:
    """Masks of hair, cheeks (with the chin: what is left of the face), forehead, nose, mouth, and eyes (with brows).

    A pixel belongs to the polygons that its centre lies in.
    """
    content = json.loads(POLYGONS.read_text(encoding="utf-8"))
    parts = tuple(content["parts"])

    def read(image: manifest.Image) -> NDArray[np.uint8]:
        assert dataset.size is not None  # the config is checked
        return _drawn([content["faces"][image.name][part] for part in parts], dataset.size)

    return PartMasks(parts, read)


def _drawn(polygons_of_parts: Sequence[Sequence[Sequence[Sequence[float]]]], size: int) -> NDArray[np.uint8]:
    """A mask (size, size) of polygons, of which those of the i-th part have the value i + 1."""
    from skimage.draw import polygon

    mask = np.zeros((size, size), np.uint8)
    for number, polygons in enumerate(polygons_of_parts, 1):
        for corners in polygons:
            # pixel i is the interval from i to i + 1 of the side
            x, y = np.asarray(corners, np.float64).T * size - 0.5
            mask[polygon(y, x, mask.shape)] = number
    return mask


KIND = DatasetKind(rows, part_masks=part_masks)
