"""Reading photographs and making squares of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from diffalign.reasons import reason

SQUARES = ("adm", "crop", "bilinear", "squash")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# what is read, whatever a file is called: Pillow would hand others, such as PostScript, to other programs
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# the tag of EXIF, and its value for a picture that stands upright
_ORIENTATION, _UPRIGHT = 0x0112, 1
# pixels of the longer side of an image whose shorter side has the size of a square
_LONGEST = 2**15


class ImageError(ValueError):
    """An image that cannot be used; the message names the file."""


def read_rgb(path: Path, content: bytes | None = None) -> tuple[Image.Image, str]:
    """Read an image as RGB; the second value notes what was converted, '' for nothing. content: the bytes of its file,
    where they are known and `path` only says where they stand.

    Grey, palette, CMYK and 16-bit images are converted; transparency is laid on white. EXIF orientation is ignored,
    as the published pipelines do, and noted. Raises ImageError for a truncated or unreadable file.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content), formats=_FORMATS) as image:
            image.load()
            turned = image.getexif().get(_ORIENTATION, _UPRIGHT)
            converted, notes = _as_rgb(image)
            ignored = "" if turned == _UPRIGHT else f"EXIF orientation {turned} ignored"
            return converted, "; ".join(note for note in (notes, ignored) if note)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: is too large ({reason(error)}); make it smaller") from error
    except Exception as error:  # Pillow has many ways to refuse a file
        raise ImageError(f"{path}: cannot be read as an image ({reason(error)})") from error


def _as_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    mode = image.mode
    if mode == "RGB":
        return image.copy(), ""
    if mode == "F" or (mode == "I" and image.format != "PNG"):
        raise ImageError(f"holds {'floats' if mode == 'F' else '32-bit numbers'} of no known range; save it as 8 bits")
    if mode.startswith("I"):
        eight_bit = (np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return Image.fromarray(eight_bit).convert("RGB"), f"converted from {mode}"
    if mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB"), f"converted from {mode} on white"
    return image.convert("RGB"), f"converted from {mode}"


def check_square(image: Image.Image, size: int, path: Path) -> None:
    """Raise ImageError that names the file where an image is not size x size pixels already."""
    if image.size != (size, size):
        raise ImageError(f"{path}: is {image.width} x {image.height} px; images of this data set are {size} x {size}")


def make_square(image: Image.Image, size: int, square: str) -> Image.Image:
    """An RGB image as size x size pixels.

    square: ``adm`` (box filter by halves while the short side is at least twice the size, bicubic to the size,
    centre crop: the rule of ADM, Dhariwal & Nichol 2021, used by SiT and REPA), ``crop`` (bicubic to the short side at
    once, centre crop), ``bilinear`` (the same, bilinear: torchvision's Resize of a PIL image, as Linhardt et al. 2024
    use it) or ``squash`` (bicubic to size x size).
    """
    if square not in SQUARES:
        raise ImageError(f"unknown way to make a square '{square}'; allowed: {', '.join(SQUARES)}")
    if max(image.size) * size > _LONGEST * min(image.size):
        raise ImageError(
            f"is {image.width} x {image.height} px: with a shorter side of {size} its longer one exceeds {_LONGEST}"
        )
    if square == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if square == "adm":
        while min(image.size) >= 2 * size:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    filtered = Image.Resampling.BILINEAR if square == "bilinear" else Image.Resampling.BICUBIC
    image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))), filtered)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
