"""What stages of the plan share: the study, the digests of code, and estimates of memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from diffalign import names
from diffalign.plan import paths
from diffalign.stimuli import kinds

if TYPE_CHECKING:
    from diffalign.config.study import Study
    from diffalign.plan import Plan

# images of a data set whose number is only known when it is read
UNKNOWN_COUNT = 50_000
# features of a layer whose width is only known when its checkpoint is read
UNKNOWN_WIDTH = 2048


class Wildcards(Protocol):
    """The wildcards of a job, as Snakemake hands them to functions of inputs and parameters."""

    def __getattr__(self, name: str) -> str: ...

    def get(self, name: str, default: str) -> str:
        """The word of a wildcard, or the default."""

    def items(self) -> Iterable[tuple[str, str]]:
        """All wildcards and their words."""


class Stage:
    """A part of the plan: what one file of rules needs to know."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def study(self) -> Study:
        """The checked configuration."""
        return self.plan.study

    def has_images(self, dataset: str) -> bool:
        """False where a data set has only features that were made elsewhere, or names and texts."""
        return kinds.has_images(self.study.datasets[dataset])

    def has_manifest(self, dataset: str) -> bool:
        """False where a data set has only features that were made elsewhere, whose names nothing else knows."""
        return kinds.has_manifest(self.study.datasets[dataset])

    def image_file(self, pattern: str, wildcards: Wildcards) -> str:
        """A file of the data set and condition of a target."""
        return paths.fill(pattern, dataset=wildcards.dataset, condition=wildcards.condition)

    @cached_property
    def typed(self) -> str:
        """Pattern of typed names without a layer."""
        return names.name_pattern(self.study.models)


def memory(base: int, per_feature: float = 0) -> Callable[[Any, int], int]:
    """Memory of a job in MB that grows with every attempt. per_feature: MB beside it, of features that are held."""
    return lambda wildcards, attempt: round((base + per_feature) * attempt)


def any_or_none(words: Iterable[str]) -> str:
    """A pattern of these words; one that matches nothing if there are none."""
    listed = list(words)
    return names.any_of(listed) if listed else "(?!)"


def as_json(content: Callable[[Wildcards], Mapping[str, Any]]) -> Callable[[Wildcards], str]:
    """The content of a recipe or of settings as text, in the layout of `io.atomic.write_json`.

    It becomes a file, not a parameter of the jobs that depend on it: Snakemake drops its record of the parameters of a
    job that gains an output, and would then miss changes.
    """
    return lambda wildcards: json.dumps(content(wildcards), indent=2, ensure_ascii=False, allow_nan=False)
