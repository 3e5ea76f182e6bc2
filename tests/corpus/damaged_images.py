"""Pictures that are cut off, empty, or none at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from case import Case, Make
from importers import IMPORTERS, png

_KINDS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".tiff": "TIFF"}


def damaged_images() -> Iterator[Case]:
    """Every format, cut off at several places, and with its middle overwritten."""
    for suffix in IMPORTERS["image"].suffixes:
        for share in (0.0, 0.02, 0.5, 0.9):
            yield Case("images", f"{share:.0%} of it", "image", suffix, _cut(suffix, share))
        yield Case("images", "a text", "image", suffix, lambda path, canary: path.write_text("no picture\n"))
    yield Case("images", "0 x 0", "image", ".bmp", _no_pixels)
    yield Case("images", "half", "mask", ".png", _cut(".png", 0.5))
    yield Case("images", "deep", "mask", ".png", lambda path, canary: path.write_bytes(png(mode="RGB")))


def _cut(suffix: str, share: float) -> Make:
    def make(path: Path, canary: Path) -> None:
        whole = png((64, 48), kind=_KINDS[suffix])
        path.write_bytes(whole[: int(share * len(whole))])

    return make


def _no_pixels(path: Path, canary: Path) -> None:
    whole = bytearray(png(kind="BMP"))
    whole[18:26] = bytes(8)
    path.write_bytes(whole)
