"""The variance budget of a pair: its redraws, and trainings of its sides with other seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffalign.names import NUMBERED
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards


class Variance(Stage):
    """What rule variance_table of rules/uncertainty.smk reads."""

    def inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of both sides, of their redraws and of other trainings; the scores under other preparations."""
        place = {"dataset": wildcards.dataset, "condition": wildcards.condition, "a": wildcards.a, "b": wildcards.b}
        files: dict[str, Any] = {"sensitivity": f"{paths.fill(paths.PAIR_TABLE, table='sensitivity', **place)}.tsv"}
        bundles = {side: self.study.bundle(name) for side, name in (("a", wildcards.a), ("b", wildcards.b))}
        for side, bundle in bundles.items():
            files[f"features_{side}"] = self._features(wildcards, bundle)
            files[f"redraws_{side}"] = [self._features(wildcards, name) for name in self.redraws(bundle)]
            others = [name for name in self.other_trainings(bundle) if name not in bundles.values()]
            files[f"trainings_{side}"] = [self._features(wildcards, name) for name in others]
        return {**files, **self.plan.alignment.manifest(wildcards)}

    def _features(self, wildcards: Wildcards, name: str) -> str:
        return self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, name)

    def redraws(self, name: str) -> list[str]:
        """The bundles of the other draws of noise of a name; none where it draws none, or names draws itself."""
        representation, model = self.study.representation(name), self.study.model_of(name)
        named = any(option.startswith(tuple(NUMBERED)) for option in representation.options)
        if representation.text or named or "redraw" not in model.vocabulary.options:
            return []
        bare = self.study.bundle(name)
        # options stand in an order of their own
        after = [option for option in representation.options if option in ("untrained", "last")]
        stem = bare.removesuffix("".join(f"-{option}" for option in after))
        rest = bare.removeprefix(stem)
        count = self.study.alignment.variance.redraws
        return [self.study.bundle(f"{stem}-redraw{number}{rest}") for number in range(1, count + 1)]

    def other_trainings(self, name: str) -> list[str]:
        """The bundles of the same recipe of `through_training` with other seeds, at the same step."""
        representation = self.study.representation(name)
        found: list[str] = []
        for typed in self.study.through_training.recipes.values():
            models = list(dict.fromkeys(self.study.representation(each).model for each in typed))
            if representation.model not in models or representation.step is None:
                continue
            for other in models:
                vocabulary = self.study.vocabularies[other]
                if other != representation.model and representation.step in vocabulary.steps:
                    found.append(replace(representation, model=other, layer=None).bundle(vocabulary))
        return found
