"""Alignment of two representations: preparation, neighbour lists, metrics, nulls and intervals.

The public names are imported on first access, so that a job that searches neighbours loads no metric. Modules and
scripts of this project import from the submodules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffalign.alignment.arrays import measure
    from diffalign.alignment.metrics import METRICS, Score
    from diffalign.alignment.settings import Preparation

__all__ = ["METRICS", "Preparation", "Score", "measure"]

_MODULES = {"METRICS": "metrics", "Preparation": "settings", "Score": "metrics", "measure": "arrays"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
