"""Figures and tables of alignment, and what the whole study is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from diffalign import names
from diffalign.plan import paths
from diffalign.plan.alignment import pair_file
from diffalign.plan.stage import Stage, Wildcards

OF_PAIRS = ("layer_maps", "depth_curves", "null_histograms")


class Figures(Stage):
    """Rules of rules/figures.smk and rules/single_pairs.smk."""

    def default_layers(self, *typed: str) -> dict[str, str]:
        """Bundle -> its default layer, for the bundles of these names."""
        return {self.study.bundle(name): self.study.model_of(name).default_layer for name in typed}

    def default_layers_of_pair(self, wildcards: Wildcards) -> dict[str, str]:
        """The same for both sides of a target."""
        return self.default_layers(wildcards.a, wildcards.b)

    def default_layers_of_study(self, _: Wildcards) -> dict[str, str]:
        """The same for all pairs of the study."""
        return self.default_layers(*dict.fromkeys(name for pair in self.study.pairs for name in pair))

    def miniature(self, *sides: str) -> Callable[[Wildcards], bool]:
        """Whether one of these wildcards means a model with random miniature weights; captions say so."""
        return lambda wildcards: any(self.study.is_miniature(getattr(wildcards, side)) for side in sides)

    @property
    def miniature_study(self) -> bool:
        """Whether a model of a pair of the study has random miniature weights."""
        return any(self.study.is_miniature(name) for pair in self.study.pairs for name in pair)

    def report_facts(self) -> dict[str, Any]:
        """What the first page of the report says of the study."""
        models = dict.fromkeys(names.model_word(name) for pair in self.study.pairs for name in pair)
        return {
            "datasets": list(self.study.study_datasets),
            "k": self.study.alignment.k,
            "trained": sorted({training.dataset for training in self.plan.training.models.values()}),
            "miniatures": [name for name in models if self.study.is_miniature(name)],
        }

    def targets(self) -> list[str]:
        """What the study is: tables, figures and the single scores it names."""
        study, metrics = self.study, self.study.alignment.metrics
        drawn = None if study.pair_figures == "all" else {self._bundles(*pair) for pair in study.pair_figures}
        figures = [
            paths.fill(paths.PAIR_FIGURE, dataset=dataset, condition=condition, figure=figure, a=a, b=b) + ".png"
            for dataset, condition, a, b in self.plan.alignment.places()
            if drawn is None or self._bundles(a, b) in drawn
            for figure in OF_PAIRS
        ]
        maps = [
            paths.fill(paths.METRIC_FIGURE, dataset=dataset, condition=condition, figure="model_maps", metric=metric)
            + ".png"
            for dataset in study.study_datasets
            for condition in study.study_conditions
            for metric in metrics
        ]
        tables = [paths.fill(paths.TABLE, table=table) + ".tsv" for table in ("alignment", "pairs")]
        scores = [pair_file(paths.DEFAULT_SCORE, pair, metric=metric) for metric in metrics for pair in study.scores]
        return [*scores, *([*tables, *figures, *maps] if study.pairs else []), *self._single_pairs()]

    def _bundles(self, *typed: str) -> frozenset[str]:
        return frozenset(map(self.study.bundle, typed))

    def _single_pairs(self) -> list[str]:
        """A closer look at the pairs of study.scores, on the default data set and condition."""
        where = {"dataset": self.study.default_dataset, "condition": self.study.default_condition}
        shown = ["curves", *(["gallery"] if self.has_images(self.study.default_dataset) else [])]
        return [
            path
            for pair in self.study.scores
            for path in (
                pair_file(paths.PER_IMAGE, pair, **where),
                *(pair_file(paths.PAIR_FIGURE, pair, **where, figure=figure) + ".png" for figure in shown),
            )
        ]

    def scores_of_all_models(self) -> list[str]:
        """One score of every model of the catalogue that runs here: its default layer beside the study's first model's.

        Other sizes and checkpoints of a model, with a suffix as in dinov2.g, run the same code and are left out.
        """
        study = self.study
        first = study.model_of(study.pairs[0][0]).name if study.pairs else next(iter(study.models))
        run_here = [name for name, model in study.models.items() if model.features is None]
        others = [name for name in run_here if name != first and not re.search(r"\.[a-z]", name)]
        metric = study.alignment.metrics[0]
        return [paths.fill(paths.DEFAULT_SCORE, metric=metric, a=first, b=name) for name in others]
