"""Which modules of a layer write attention and which write the MLP: they are found by their own names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# part -> paths of modules
Parts = dict[str, tuple[str, ...]]


def named(module: nn.Module, names: Mapping[str, Sequence[str]], stage: str = "") -> Callable[[str], Parts]:
    """A function from the path of a layer to its parts, for `Denoiser.parts`.

    names: part -> own names of modules, as ``attn`` of ``blocks.3.attn``. Those of a layer are the ones below its path.
    stage: a regular expression of paths that stand for all layers in them, such as ``down_blocks.0`` for its resnets.
    """
    return partial(_below, module, {part: tuple(own) for part, own in names.items()}, stage)


def _below(module: nn.Module, names: Mapping[str, Sequence[str]], stage: str, path: str) -> Parts:
    found = re.match(stage, path) if stage else None
    top = found.group() if found else path
    below = [f"{top}.{name}" for name, _ in module.get_submodule(top).named_modules() if name]
    parts = {part: tuple(each for each in below if each.rpartition(".")[2] in own) for part, own in names.items()}
    return {part: paths for part, paths in parts.items() if paths}
