"""Atlases: the features of a model and of its untrained twin at every noise level, and those of controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diffalign import names
from diffalign.config.atlas import PURE_NOISE, SHARING
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, memory

TABLES = ("scores", "beyond")
# of a data set whose number of images is only known when it is read
_IMAGES = 10_000


class Atlas(Stage):
    """Rules of rules/atlas.smk."""

    def inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of the model, its twin, the reference and controls, and the manifest that labels stand in.

        Raises ValueError where the study has no reference, or the model no noise levels.
        """
        section = self.study.atlas
        if section.reference is None:
            raise ValueError("an atlas compares a model with a layer: set atlas.reference")
        trained = [self.at(wildcards.a, level) for level in section.passes]

        def features(name: str) -> str:
            return self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, name)

        return {
            "trained": [features(name) for name in trained],
            "untrained": [features(self.study.untrained(name)) for name in trained],
            "reference": features(section.reference),
            "controls": [features(name) for name in section.of_models],
            "manifest": self.image_file(paths.MANIFEST, wildcards),
        }

    def at(self, typed: str, level: float) -> str:
        """The bundle of a model at a noise level. Pure noise is always the model's own, or it would be no control."""
        representation, model = self.study.representation(typed), self.study.model_of(typed)
        if representation.noise is None:
            raise ValueError(f"'{typed}' has no noise levels, so it has no atlas")
        noise = names.canonical_noise(f"t{level:.12f}")
        options = representation.options
        if level == PURE_NOISE:
            options = tuple(option for option in options if option not in SHARING)
        return replace(representation, noise=noise, layer=None, options=options).bundle(model.vocabulary)

    def outputs(self) -> dict[str, str]:
        """Both tables, both kinds of each, and the recipe."""
        kinds = ("tsv", "parquet")
        tables = {f"{table}_{kind}": f"{paths.ATLAS}/{table}.{kind}" for table in TABLES for kind in kinds}
        return {**tables, "recipe": f"{paths.ATLAS}/recipe.json"}

    def figure_inputs(self) -> dict[str, str]:
        """The tables that are drawn."""
        return {table: f"{paths.ATLAS}/{table}.tsv" for table in TABLES}

    @property
    def reference_layer(self) -> str | None:
        """The layer that all are compared with."""
        reference = self.study.atlas.reference
        return None if reference is None else self.study.layer(reference)

    def controls(self) -> dict[str, list[str] | None]:
        """Layers of each control, one or all; None where it is no model."""
        section = self.study.atlas
        layers: dict[str, list[str] | None] = dict.fromkeys(section.controls)
        # in a study without an atlas, models of the defaults need not be there
        for name in section.of_models if section.models else []:
            layer = self.study.representation(name).layer
            layers[name] = list(self.study.model_of(name).layers) if layer is None else [layer]
        return layers

    def memory(self, base: int) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds a model and its twin at one level, and (N, N) matrices."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            held = self.plan.features.megabytes(wildcards.dataset, self.study.model_of(wildcards.a))
            images = self.study.datasets[wildcards.dataset].sample or _IMAGES
            return memory(base, 4 * held + 3 * images**2 * 8 / 2**20)(wildcards, attempt)

        return megabytes

    def miniature(self, wildcards: Wildcards) -> bool:
        """Whether the model or the reference has random miniature weights."""
        used = [wildcards.a, *filter(None, [self.study.atlas.reference])]
        return any(self.study.is_miniature(name) for name in used)

    @property
    def where(self) -> dict[str, str]:
        """The data set and condition of the atlases of the study."""
        dataset = self.study.atlas.dataset or self.study.default_dataset
        return {"dataset": dataset, "condition": self.study.default_condition}

    def tables(self, table: str) -> list[str]:
        """One of the tables of every model that the study names."""
        return [f"{paths.fill(paths.ATLAS, **self.where, a=name)}/{table}.tsv" for name in self.study.atlas.models]

    def targets(self) -> list[str]:
        """The tables and figures of every model that the study names."""
        figures = [
            paths.fill(paths.ATLAS_FIGURE, **self.where, a=name, metric=metric) + ".png"
            for name in self.study.atlas.models
            for metric in self.plan.alignment.metrics
        ]
        return [*(path for table in TABLES for path in self.tables(table)), *figures]
