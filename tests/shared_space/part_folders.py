"""Folders of part masks, as the rule part_masks writes them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write_parts(folder: Path, masks: Mapping[str, NDArray[np.uint8]], parts: tuple[str, ...]) -> None:
    folder.mkdir()
    for name, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    (folder / "parts.json").write_text(json.dumps({"names": list(masks), "parts": list(parts)}))
