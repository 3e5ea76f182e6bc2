"""Alignment through training: the checkpoints of all trainings, what they are compared with, and their tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffalign.plan import paths
from diffalign.plan.stage import Stage, memory

TABLES = ("points", "steps", "contrasts", "correlations")
KINDS = ("tsv", "parquet")
FIGURES = ("training_maps", "through_training")


class ThroughTraining(Stage):
    """Rules of rules/through_training.smk. All is measured on one data set, under the default condition."""

    @property
    def where(self) -> dict[str, str]:
        """The data set and condition."""
        dataset = self.study.through_training.dataset or self.study.default_dataset
        return {"dataset": dataset, "condition": self.study.default_condition}

    def checkpoints(self) -> list[dict[str, Any]]:
        """Recipe, model, seed and step of every checkpoint, in the order of the study and of steps."""
        return [
            {"recipe": recipe, "model": model.name, "seed": model.seed, "step": step}
            for recipe, typed in self.study.through_training.recipes.items()
            for model in map(self.study.model_of, typed)
            for step in model.steps
        ]

    def inputs(self) -> dict[str, Any]:
        """The features of every checkpoint and of the reference."""
        reference = self.study.through_training.reference
        if reference is None:
            return {"checkpoints": [], "reference": []}
        place = self.plan.features.place
        bundles = [
            replace(representation, step=step, layer=None).bundle(model.vocabulary)
            for typed in self.study.through_training.recipes.values()
            for representation, model in (
                (self.study.representation(name), self.study.model_of(name)) for name in typed
            )
            for step in model.steps
        ]
        return {
            **self.plan.stimuli.groups(self.where["dataset"], self.where["condition"]),
            "checkpoints": [place(paths.FEATURE_MANIFEST, **self.where, name=bundle) for bundle in bundles],
            "reference": place(paths.FEATURE_MANIFEST, **self.where, name=reference),
        }

    @property
    def reference_layer(self) -> str | None:
        """The layer that checkpoints are compared with."""
        reference = self.study.through_training.reference
        return None if reference is None else self.study.layer(reference)

    @property
    def alignment(self) -> dict[str, str]:
        """The table of all checkpoints and its recipe."""
        stem = paths.fill(paths.TABLE, table="training_alignment")
        return {"tsv": f"{stem}.tsv", "parquet": f"{stem}.parquet", "recipe": f"{stem}.json"}

    @property
    def tables(self) -> dict[str, str]:
        """The tables over trainings, both kinds of each."""
        return {
            f"{table}_{kind}": f"{paths.fill(paths.TABLE, table=f'through_training_{table}')}.{kind}"
            for table in TABLES
            for kind in KINDS
        }

    def table_inputs(self) -> dict[str, str]:
        """Alignment, and the quality of samples where a measure of it is wanted."""
        quality = f"{paths.fill(paths.TABLE, table='sample_quality')}.tsv"
        return {
            "alignment": self.alignment["tsv"],
            **({"quality": quality} if self.study.through_training.quality else {}),
        }

    def figure_inputs(self) -> dict[str, str]:
        """Alignment and the tables over trainings."""
        return {"alignment": self.alignment["tsv"], **{table: self.tables[f"{table}_tsv"] for table in TABLES}}

    @property
    def measure(self) -> str | None:
        """The measure of quality that is drawn."""
        return next(iter(self.study.through_training.quality), None)

    def memory(self, base: int) -> Any:
        """Memory in MB of a job that holds a bundle and copies of its rows."""
        models = [self.study.model_of(name) for typed in self.study.through_training.recipes.values() for name in typed]
        held = max((self.plan.features.megabytes(self.where["dataset"], model) for model in models), default=0.0)
        return memory(base, 4 * held)

    @property
    def miniature(self) -> bool:
        """Whether a training or the reference has random miniature weights."""
        section = self.study.through_training
        used = [name for typed in section.recipes.values() for name in typed]
        return any(self.study.is_miniature(name) for name in [*used, *filter(None, [section.reference])])

    def targets(self) -> list[str]:
        """The tables and figures, where the study names trainings."""
        if not self.study.through_training.recipes:
            return []
        figures = [
            paths.fill(paths.METRIC_FIGURE, **self.where, figure=figure, metric=metric) + ".png"
            for figure in FIGURES
            for metric in self.plan.alignment.metrics
        ]
        return [self.alignment["tsv"], *(path for path in self.tables.values() if path.endswith(".tsv")), *figures]
