"""What a text-conditioned model is told about each image."""

from __future__ import annotations

from collections.abc import Sequence

from diffalign.stimuli.manifest import Image


def prompt_texts(images: Sequence[Image], conditioning: str) -> tuple[list[str], list[int]]:
    """The distinct texts under a conditioning, and for each image, in order, the row of its text.

    ``uncond`` is the empty prompt for all. Raises ValueError for another conditioning.
    """
    if conditioning != "uncond":
        raise ValueError(f"unknown conditioning '{conditioning}'; allowed: uncond")
    return [""], [0] * len(images)
