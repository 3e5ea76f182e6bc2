"""Where the work is done: what compute.device means on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def choose_gpu(asked: str) -> torch.device | None:
    """The GPU that `choose_device` finds, or None for the CPU; where that is asked for, torch is not imported."""
    if asked == "cpu":
        return None
    device = choose_device(asked)
    return None if device.type == "cpu" else device


def choose_device(asked: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu`` or ``cuda``. Raises ValueError for ``cuda`` without a GPU.

    On a GPU, TF32 is switched off: its 10-bit mantissa changes neighbours.
    """
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but torch sees no GPU here; set it to auto or cpu to use the CPU")
    device = torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return device
