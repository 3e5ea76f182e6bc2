"""The variance budget of a pair, its redraws and trainings with other seeds; and models whose order is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diffalign.alignment.rank_stability import FEWEST
from diffalign.names import NUMBERED
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, memory

# tables of the stability of orders
TABLES = ("orders", "pairs")


class Variance(Stage):
    """Rules of rules/uncertainty.smk."""

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

    def ordered(self, wildcards: Wildcards) -> list[str]:
        """The models whose order against a reference is compared: the other sides of its pairs in the study.

        Raises ValueError where these are fewer than three.
        """
        reference = self.study.bundle(wildcards.a)
        pairs = [tuple(map(self.study.bundle, pair)) for pair in self.study.pairs]
        found = list(dict.fromkeys(b if a == reference else a for a, b in pairs if reference in (a, b)))
        if len(found) < FEWEST:
            raise ValueError(
                f"an order needs {FEWEST} models or more, and {len(found)} of study.pairs stand beside '{reference}'"
            )
        return found

    def order_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of the reference and of all models beside it."""
        return {
            "reference": self._features(wildcards, wildcards.a),
            "models": [self._features(wildcards, name) for name in self.ordered(wildcards)],
            **self.plan.alignment.manifest(wildcards),
        }

    def order_layers(self, wildcards: Wildcards) -> list[str]:
        """The default layers of these models."""
        return [self.study.model_of(name).default_layer for name in self.ordered(wildcards)]

    def order_outputs(self) -> dict[str, str]:
        """Both tables, both kinds of each."""
        kinds = ("tsv", "parquet")
        return {f"{table}_{kind}": f"{paths.RANK_STABILITY}/{table}.{kind}" for table in TABLES for kind in kinds}

    def order_miniature(self, wildcards: Wildcards) -> bool:
        """Whether the reference or one of these models has random miniature weights; captions say so."""
        return any(self.study.is_miniature(name) for name in (wildcards.a, *self.ordered(wildcards)))

    def order_memory(self, base: int) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds a layer of every model twice."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            models = [self.study.model_of(name) for name in (wildcards.a, *self.ordered(wildcards))]
            held = (self.plan.features.megabytes(wildcards.dataset, model) / len(model.layers) for model in models)
            return memory(base, 4 * sum(held))(wildcards, attempt)

        return megabytes
