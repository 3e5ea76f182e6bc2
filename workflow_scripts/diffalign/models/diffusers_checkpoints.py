"""Checkpoints of diffusers: a folder with config.json and safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffalign.io.checkpoint_errors import check_keys, check_there


def from_diffusers(kind: Any, where: Path, initial_seed: int | None = None) -> Any:
    """Load a model of diffusers from a folder in float32, every key of it, or only its configuration.

    kind: its class. initial_seed: for a model with the weights that it begins with, drawn by this seed. Raises
    CheckpointError.
    """
    import torch

    check_there(where / "config.json")
    if initial_seed is not None:
        torch.manual_seed(initial_seed)
        return kind.from_config(kind.load_config(where, local_files_only=True))
    net, info = kind.from_pretrained(
        where,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    )
    check_keys(set(info["missing_keys"]), set(info["unexpected_keys"]), str(where))
    return net
