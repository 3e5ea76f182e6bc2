"""SE-CKNNA: neighbour lists on clean and transformed images, and where results go."""

from __future__ import annotations

from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.plan import paths
from diffalign.plan.alignment import pair_file
from diffalign.plan.stage import Stage, Wildcards


class SemanticEquivariance(Stage):
    """Rules of rules/se_cknna.smk."""

    @property
    def conditions(self) -> list[str]:
        """Clean first, then the conditions of the mean."""
        return [CLEAN, *self.study.se_cknna.conditions]

    def lists_a(self, wildcards: Wildcards) -> list[str]:
        """The neighbour lists of side a under every condition."""
        return self._lists(wildcards.a, self.conditions, wildcards)

    def lists_b(self, wildcards: Wildcards) -> list[str]:
        """The same of side b; under reference ``clean`` it has clean images everywhere."""
        is_clean = self.study.se_cknna.reference == CLEAN
        conditions = [CLEAN] * len(self.conditions) if is_clean else self.conditions
        return self._lists(wildcards.b, conditions, wildcards)

    def manifest(self, wildcards: Wildcards) -> dict[str, str]:
        """The manifest of clean images, where some share a group."""
        return self.plan.stimuli.groups(self.plan.alignment.dataset(wildcards), CLEAN)

    def _lists(self, name: str, conditions: list[str], wildcards: Wildcards) -> list[str]:
        dataset = self.plan.alignment.dataset(wildcards)
        return [self.plan.features.place(paths.NEIGHBORS, dataset, condition, name) for condition in conditions]

    def params(self) -> dict[str, Any]:
        """What the mean is taken over."""
        setting = self.study.se_cknna
        asked = {"reference": setting.reference, "mean_over": setting.mean_over, "score": setting.score}
        return {"conditions": self.conditions, **asked}

    def recipes(self, wildcards: Wildcards) -> list[str]:
        """The recipes of all pairs of the study on the data set of a target."""
        return self._recipes(wildcards.dataset)

    def all_recipes(self, _: Wildcards) -> list[str]:
        """The recipes of all pairs of the study."""
        return [path for dataset in self.study.study_datasets for path in self._recipes(dataset)]

    def _recipes(self, dataset: str) -> list[str]:
        return [pair_file(paths.SE_RECIPE, pair, dataset=dataset) for pair in self.study.se_cknna.pairs]

    @property
    def miniature(self) -> bool:
        """Whether a model of these pairs has random miniature weights."""
        pairs = self.study.se_cknna.pairs
        return any(self.study.is_miniature(name) for pair in pairs for name in pair.split(names.SEPARATOR))

    def targets(self) -> list[str]:
        """The table and the figures, where the study names pairs."""
        if not self.study.se_cknna.pairs:
            return []
        figures = [f"{paths.fill(paths.SE_FIGURE, dataset=dataset)}.png" for dataset in self.study.study_datasets]
        return [paths.fill(paths.TABLE, table="se_cknna") + ".tsv", *figures]
