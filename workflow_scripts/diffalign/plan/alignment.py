"""Alignment: scores, layer x layer matrices and their calibrations, and what they read of both sides of a pair."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from diffalign import names
from diffalign.io.sides import input_name, reads
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, memory

PARTS_OF_SIDES = {"neighbors": paths.NEIGHBORS, "features": paths.FEATURE_MANIFEST, "factors": paths.FACTORS}


class Alignment(Stage):
    """Rules of rules/alignment.smk, rules/single_pairs.smk and of what reads matrices."""

    @property
    def metrics(self) -> list[str]:
        """The metrics of the study."""
        return list(self.study.alignment.metrics)

    def settings(self, _: Wildcards) -> dict[str, Any]:
        """What all scores depend on, beside the preparation of features."""
        setting = self.study.alignment
        values = {"k": setting.k, "eps": setting.eps, "rbf_sigma": setting.rbf_sigma}
        return {**values, "code": self.plan.digest("align_layers.py")}

    def calibration_settings(self, _: Wildcards) -> dict[str, Any]:
        """What all nulls and intervals depend on."""
        setting = self.study.alignment
        return {
            "permutations": setting.permutations,
            "alpha": setting.alpha,
            "split_selection": setting.split_selection,
            "seed": self.study.seed,
            "code": self.plan.digest("align.py", "calibrate_layers.py"),
        }

    def metrics_settings(self, _: Wildcards) -> dict[str, Any]:
        """What matrices of all metrics depend on, and single scores do not: which metrics these are."""
        return {"metrics": self.metrics}

    def dataset(self, wildcards: Wildcards) -> str:
        """The data set of a target, or the default one."""
        return wildcards.get("dataset", self.study.default_dataset)

    def condition(self, wildcards: Wildcards) -> str:
        """The condition of a target, or the default one."""
        return wildcards.get("condition", self.study.default_condition)

    def layer_a(self, wildcards: Wildcards) -> str:
        """The layer that side a of a target means."""
        return self.study.layer(wildcards.a)

    def layer_b(self, wildcards: Wildcards) -> str:
        """The layer that side b of a target means."""
        return self.study.layer(wildcards.b)

    def manifest(self, wildcards: Wildcards) -> dict[str, str]:
        """The manifest of the images of a target, where some share a group; nothing where each is one of its own."""
        return self.plan.stimuli.groups(self.dataset(wildcards), self.condition(wildcards))

    def neighbors(self, side: str) -> Callable[[Wildcards], str]:
        """The neighbour lists of side ``a`` or ``b`` of a target."""
        return lambda wildcards: self.lists(wildcards)[input_name("neighbors", side)]

    def features_and_factors(self, wildcards: Wildcards) -> dict[str, str]:
        """Features and factors of both sides, where the metric of a target needs them beside neighbour lists."""
        return self._of_both(wildcards, [part for part in reads([wildcards.metric]) if part != "neighbors"])

    def all_metrics(self, wildcards: Wildcards) -> dict[str, str]:
        """What all metrics of the study read of both sides."""
        return self._of_both(wildcards, reads(self.metrics))

    def lists(self, wildcards: Wildcards) -> dict[str, str]:
        """The neighbour lists of both sides."""
        return self._of_both(wildcards, ["neighbors"])

    def lists_and_features(self, wildcards: Wildcards) -> dict[str, str]:
        """The neighbour lists and the features of both sides."""
        return self._of_both(wildcards, ["neighbors", "features"])

    def features(self, wildcards: Wildcards) -> dict[str, str]:
        """The features of both sides."""
        return self._of_both(wildcards, ["features"])

    def _of_both(self, wildcards: Wildcards, parts: Collection[str]) -> dict[str, str]:
        dataset, condition = self.dataset(wildcards), self.condition(wildcards)
        sides = {"a": wildcards.a, "b": wildcards.b}
        if "neighbors" in parts:
            self.plan.stimuli.check_neighbors(dataset)
        return {
            input_name(part, side): self.plan.features.place(PARTS_OF_SIDES[part], dataset, condition, name)
            for part in parts
            for side, name in sides.items()
        }

    def memory(self, base: int, all_layers: bool = False) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds a layer of both sides in float64, or all layers."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            models = [self.study.model_of(name) for name in (wildcards.a, wildcards.b)]
            parts = (1 if all_layers else len(model.layers) for model in models)
            held = (self.plan.features.megabytes(self.dataset(wildcards), model) for model in models)
            return memory(base, 4 * sum(mb / part for mb, part in zip(held, parts, strict=True)))(wildcards, attempt)

        return megabytes

    def matrices(self, dataset: str, condition: str, a: str, b: str) -> str:
        """The layer x layer matrices of one pair, of all metrics."""
        return _of_pair(paths.MATRICES, dataset, condition, a, b)

    def of_places(self, places: Iterable[tuple[str, str, str, str]]) -> dict[str, list[str]]:
        """The matrices of pairs at (dataset, condition, a, b) and their calibrations, as named inputs."""
        listed = list(places)
        return {
            "matrices": [_of_pair(paths.MATRICES, *place) for place in listed],
            "calibrations": [_of_pair(paths.CALIBRATIONS, *place) for place in listed],
        }

    def of_condition(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """The matrices of every pair of the study on a data set and condition, and their calibrations."""
        return self.of_places((wildcards.dataset, wildcards.condition, a, b) for a, b in self.study.pairs)

    def of_two_sides(self, dataset: str, condition: str) -> list[str]:
        """The matrices of every model of one side of the study with every one of the other.

        Raises ValueError where the study has no two sides.
        """
        pairs = self.study.pairs
        first, second = dict.fromkeys(a for a, _ in pairs), dict.fromkeys(b for _, b in pairs)
        if not pairs or set(pairs) != {(a, b) for a in first for b in second} or set(first) & set(second):
            raise ValueError(
                "a file of scores X x Y has every model of one side with every one of the other: set study.against, "
                "and study.pairs to all"
            )
        return [self.matrices(dataset, condition, a, b) for a in first for b in second]

    def all_matrices(self, _: Wildcards) -> dict[str, list[str]]:
        """The matrices of every pair of the study, and their calibrations."""
        return self.of_places(self.places())

    def places(self) -> list[tuple[str, str, str, str]]:
        """(dataset, condition, a, b) of every pair of the study."""
        return [
            (dataset, condition, a, b)
            for dataset in self.study.study_datasets
            for condition in self.study.study_conditions
            for a, b in self.study.pairs
        ]


def _of_pair(pattern: str, dataset: str, condition: str, a: str, b: str) -> str:
    return paths.fill(pattern, dataset=dataset, condition=condition, a=a, b=b)


def pair_file(pattern: str, pair: str, **words: str) -> str:
    """A file of a pair ``a_vs_b``."""
    a, _, b = pair.partition(names.SEPARATOR)
    return paths.fill(pattern, a=a, b=b, **words)
