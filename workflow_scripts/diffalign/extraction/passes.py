"""The extraction loop: batches in, pooled features of every layer out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffalign.extraction.taps import Taps
from diffalign.models import Loaded
from diffalign.offenders import first_five, flagged


def choose_device(asked: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu`` or ``cuda``. Raises ValueError for ``cuda`` without a GPU.

    On a GPU, TF32 is switched off: its 10-bit mantissa changes neighbours.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but torch sees no GPU here; set it to auto or cpu to use the CPU")
    device = torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    return device


def pooled_features(
    loaded: Loaded, layers: Mapping[str, str], batches: Iterable[Mapping[str, Any]]
) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """Run every batch once and average the tokens of each layer on the device.

    Returns the names in the order of the batches and alias -> (N, D) float32. Raises ValueError that names the layer
    and the first five images where a feature is NaN or infinite.
    """
    names: list[str] = []
    rows: dict[str, list[NDArray[np.float32]]] = {alias: [] for alias in layers}

    def mean_token(output: Any) -> Tensor:
        return loaded.tokens(output).float().mean(dim=1)

    with torch.inference_mode(), Taps(loaded.module, layers, mean_token) as taps:
        for batch in batches:
            caught = taps.run(lambda batch=batch: loaded.forward(batch))  # type: ignore[misc]
            for alias, pooled in caught.items():
                features = pooled.cpu().numpy()
                bad = ~np.isfinite(features).all(axis=1)
                if bad.any():
                    offenders = first_five(flagged(batch["names"], bad))
                    raise ValueError(f"layer {alias}: features are NaN or infinite for {offenders}")
                rows[alias].append(features)
            names.extend(batch["names"])
    return names, {alias: np.concatenate(parts) for alias, parts in rows.items()}
