"""Images under a condition: rotations and noise, and the scale that a model's input will have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffalign.conditions import EQUIVARIANCE, ROTATIONS, SCALES, Condition
from diffalign.offenders import first_five
from diffalign.randomness import keyed
from diffalign.reasons import reason
from diffalign.stimuli.squares import ImageError

SEEDINGS = ("name", "index")
# what VFM-VAE calls the file of rotations and scales
RECORDS = f"{EQUIVARIANCE}_transforms.json"


@dataclass(frozen=True)
class Transform:
    """What is done to one image. rotation: 0, 90, 180 or 270 degrees counter-clockwise. scale: of the side of a model's
    input. sigma: of the noise, in units of the range of pixels.
    """

    rotation: int = 0
    scale: float = 1.0
    sigma: float = 0.0


def transforms(names: Sequence[str], condition: Condition, seeding: str, seed: int) -> dict[str, Transform]:
    """What is done to each image of a data set under a condition.

    Under ``equivariance`` every image draws one of four rotations, then one of four scales. seeding: ``name`` keys the
    draw by (seed, image name); ``index`` is the published rule of VFM-VAE: NumPy's legacy RandomState(seed + i) for the
    i-th image in order of name, with seed 42. Raises ValueError for another rule.
    """
    if seeding not in SEEDINGS:
        raise ValueError(f"unknown seeding of transforms '{seeding}'; allowed: {', '.join(SEEDINGS)}")
    if condition.rotation is not None and condition.scale is not None:
        return dict.fromkeys(sorted(names), Transform(condition.rotation, condition.scale, condition.sigma))
    drawn = {}
    for index, name in enumerate(sorted(names)):
        draw = np.random.RandomState(seed + index) if seeding == "index" else keyed(seed, "transform", name)
        drawn[name] = Transform(int(draw.choice(ROTATIONS)), float(draw.choice(SCALES)))
    return drawn


def noise(shape: tuple[int, ...], sigma: float, seeding: str, seed: int, name: str, index: int) -> NDArray[np.float32]:
    """Gaussian noise for one image, float32; the same direction at every sigma.

    seeding: as for `transforms`; index: place of the image in order of name.
    """
    if seeding == "index":
        return np.random.RandomState(seed + index).normal(0, sigma, shape).astype(np.float32)
    return np.float32(sigma) * keyed(seed, "pixels", name).standard_normal(shape, dtype=np.float32)


def transformed(image: NDArray[np.uint8], rotation: int, added: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 image, rotated counter-clockwise, with noise in units of 1 added, clipped and truncated."""
    turned = np.rot90(image, rotation // 90)
    if added is None:
        return np.ascontiguousarray(turned)
    noisy: NDArray[np.float32] = np.clip(turned.astype(np.float32) + added * 255, 0, 255)
    return noisy.astype(np.uint8)


@dataclass(frozen=True)
class Difference:
    """How a noisy image differs from its clean one, in exact sums over its values of 8 bits.

    total, squares: sums of the differences and of their squares. clipped: values at 0 or 255 that the clean image has
    elsewhere. count: values.
    """

    total: int
    squares: int
    clipped: int
    count: int


def difference(clean: NDArray[np.uint8], noisy: NDArray[np.uint8]) -> Difference:
    """The difference of two (H, W, 3) images. Raises ImageError where their shapes differ."""
    if clean.shape != noisy.shape:
        raise ImageError(f"a noisy image is {noisy.shape}, its clean one {clean.shape}")
    change = noisy.astype(np.int64) - clean
    at_bounds = ((noisy == 0) | (noisy == 255)) & (change != 0)
    return Difference(int(change.sum()), int(np.square(change).sum()), int(at_bounds.sum()), change.size)


def noise_of_files(differences: Sequence[Difference]) -> dict[str, float]:
    """What clipping and 8 bits leave of the noise of a condition, over all values of all images, in units of their
    range: standard deviation (``sigma``), ``mean_shift``, and the share of values that were clipped (``clipped``).
    """
    count = sum(each.count for each in differences)
    mean = sum(each.total for each in differences) / count
    square = sum(each.squares for each in differences) / count
    return {
        "sigma": float(np.sqrt(max(0.0, square - mean**2)) / 255),
        "mean_shift": mean / 255,
        "clipped": sum(each.clipped for each in differences) / count,
    }


def print_records(records: Mapping[str, Transform]) -> str:
    """Rotations and scales as VFM-VAE writes them: ``{name: {"rotation": 90, "scale": 0.5}}``."""
    return json.dumps(
        {name: {"rotation": t.rotation, "scale": t.scale} for name, t in sorted(records.items())}, indent=2
    )


def read_records(path: Path, names: Sequence[str]) -> dict[str, Transform]:
    """The rotation and scale of these images in a file as VFM-VAE writes it; other images in it are passed over.

    Raises ImageError that names the file and the first five images where some are missing or have no
    rotation by 0, 90, 180 or 270 degrees and no scale above 0 and at most 1.
    """
    if not path.is_file():
        raise ImageError(f"{path}: missing, so rotations and scales of the condition '{EQUIVARIANCE}' are not known")
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ImageError(f"{path}: cannot be read as JSON ({reason(error)})") from error
    if not isinstance(records, dict):
        raise ImageError(f"{path}: holds no mapping of names to rotations and scales")
    missing = [name for name in names if name not in records]
    if missing:
        raise ImageError(f"{path}: lacks {len(missing)} of {len(names)} images, first: {first_five(missing)}")
    wrong = [name for name in names if not _is_record(records[name])]
    if wrong:
        raise ImageError(
            f"{path}: expected a rotation of {', '.join(map(str, ROTATIONS))} and a scale in (0, 1]; "
            f"{len(wrong)} of {len(names)} have something else, first: {first_five(wrong)}"
        )
    return {name: Transform(int(records[name]["rotation"]), float(records[name]["scale"])) for name in names}


def _is_record(record: object) -> bool:
    if not isinstance(record, dict):
        return False
    rotation, scale = record.get("rotation"), record.get("scale")
    return rotation in ROTATIONS and isinstance(scale, int | float) and 0 < scale <= 1
