"""Features of the states of a sampler, averaged over tokens: one safetensors file, a tensor a step and layer.

Tensors ``{step}/{layer}`` are (N, D) float32, rows in the order of ``names``. Metadata: ``names``, which are
``{seed}/{sample}``, ``groups``, ``layers`` in order of depth, ``steps``, ``levels`` and ``recipe``, each as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.manifest import check_unique
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five, flagged

KIND = FileKind("a file of features of a trajectory", 1)


@dataclass(frozen=True, eq=False)
class Pooled:
    """Features of states. names: ``{seed}/{sample}``. groups: of each name. layers: in order of depth. steps: those
    that have features. levels: of all states of the trajectory, so that ``levels[step]`` is that of a step.
    """

    path: Path
    names: tuple[str, ...]
    groups: tuple[str, ...]
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    levels: tuple[NoiseLevel, ...]
    recipe: Mapping[str, Any]

    def values(self, step: int, layer: str) -> NDArray[np.float32]:
        """Features (N, D) float32 of one step and layer, read now. Raises StoreError for one that the file lacks."""
        from safetensors import safe_open

        if step not in self.steps or layer not in self.layers:
            steps, layers = ", ".join(map(str, self.steps)), ", ".join(self.layers)
            raise StoreError(f"{self.path}: no layer '{layer}' at step {step}; steps: {steps}; layers: {layers}")
        with KIND.reading(self.path), safe_open(self.path, "np") as file:
            values: NDArray[np.float32] = file.get_tensor(_key(step, layer))
        if values.ndim != 2 or len(values) != len(self.names) or values.dtype != np.float32:
            raise StoreError(
                f"{self.path}: layer {layer} at step {step} is {values.dtype} of shape {values.shape}; expected "
                f"float32 of {len(self.names)} rows"
            )
        return values


def write_pooled(
    path: Path,
    features: Mapping[tuple[int, str], NDArray[np.float32]],
    groups: Mapping[str, str],
    layers: Sequence[str],
    levels: Sequence[NoiseLevel],
    recipe: Mapping[str, Any],
) -> None:
    """Write features as a whole. features: (step, layer) -> (N, D) float32, rows in the order of `groups`, which are
    those of each name. All steps have all layers.

    Raises StoreError for rows that are not as many as names, and that names step, layer and the first five samples
    where a feature is NaN or infinite.
    """
    from diffalign.io.safetensors_files import save_file

    names, steps = list(groups), sorted({step for step, _ in features})
    check_unique(names, str(path))
    expected = {(step, layer) for step in steps for layer in layers}
    if not expected or features.keys() != expected or not 0 <= steps[0] <= steps[-1] < len(levels):
        raise StoreError(f"{path}: features of {len(features)} steps and layers, of {len(steps)} and {len(layers)}")
    for (step, layer), values in features.items():
        if values.ndim != 2 or len(values) != len(names):
            raise StoreError(f"{path}: layer {layer} at step {step} has shape {values.shape} for {len(names)} names")
        bad = ~np.asarray(np.isfinite(values).all(axis=1))
        if bad.any():
            raise StoreError(
                f"{path}: layer {layer} at step {step} is NaN or infinite for {first_five(flagged(names, bad))}"
            )
    facts = {
        "names": names,
        "groups": list(groups.values()),
        "layers": list(layers),
        "steps": steps,
        "levels": [asdict(level) for level in levels],
        "recipe": dict(recipe),
    }
    tensors = {
        _key(step, layer): np.ascontiguousarray(values, np.float32) for (step, layer), values in features.items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=KIND.metadata(**{key: json.dumps(fact) for key, fact in facts.items()}))


def read_pooled(path: Path) -> Pooled:
    """Read what `write_pooled` wrote; tensors only when they are asked for. Raises StoreError for anything else."""
    header = KIND.read_metadata(path)
    with KIND.reading(path):
        found = {key: json.loads(header[key]) for key in ("names", "groups", "layers", "steps", "levels", "recipe")}
        lists = {key: tuple(found[key]) for key in ("names", "groups", "layers", "steps")}
        levels = tuple(NoiseLevel(**level) for level in found["levels"])
        pooled = Pooled(path, **lists, levels=levels, recipe=found["recipe"])
    if len(pooled.names) != len(pooled.groups):
        raise StoreError(f"{path}: {len(pooled.groups)} groups for {len(pooled.names)} names")
    return pooled


def _key(step: int, layer: str) -> str:
    return f"{step}/{layer}"
