"""Which rows and columns of an image the tokens of a layer stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffalign.io.token_files import Grid


def token_grid(output: Any, tokens: Tensor, batch: Mapping[str, Any], patch: int) -> Grid | None:
    """Rows and columns of the tokens (B, T, C), which lie in reading order; None where they are not known.

    output: what the module returned, of which the family made the tokens. batch: what the network was fed, with
    ``pixels`` or ``latents`` (B, channels, H, W). patch: side of the patches that these are cut into, as
    `Loaded.multiple` says.

    Known are the positions of a map, (B, C, H, W) or (B, H, W, C), whose values the tokens are; and of a sequence that
    has one token for each patch, those of the patches. A single token of a sequence, such as a class token or logits,
    has no grid, and a sequence of another length has an unknown one: that it were square would be a guess.
    """
    states = output[0] if isinstance(output, tuple | list) and output else output
    if isinstance(states, Tensor) and states.ndim == 5 and states.shape[2] == 1:
        # a video of one frame
        states = states.squeeze(2)
    if isinstance(states, Tensor) and states.ndim == 4:
        return _of_map(states.float(), tokens)
    fed = batch.get("pixels", batch.get("latents"))
    if isinstance(fed, Tensor) and fed.ndim == 4 and tokens.shape[1] > 1:
        rows, columns = (side // patch for side in fed.shape[2:])
        if rows * columns == tokens.shape[1]:
            return rows, columns
    return None


def _of_map(states: Tensor, tokens: Tensor) -> Grid | None:
    """The sides of the map whose positions are the tokens, by their values."""
    first, second, third = states.shape[1:]
    for grid, read in (((second, third), states.flatten(2).transpose(1, 2)), ((first, second), states.flatten(1, 2))):
        # two broken maps differ everywhere: NaN is refused where tokens are written
        if read.shape == tokens.shape and read.equal(tokens):
            return grid
    return None
