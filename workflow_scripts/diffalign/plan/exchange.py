"""Scores that others published, and files of the study that are written in layouts of others with it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign.alignment.metrics import METRICS
from diffalign.config.exchange import PeopleFileEntry, ScoreFileEntry
from diffalign.io.layouts.diffusion_alignment import published_module, published_name
from diffalign.names import UnknownName
from diffalign.plan import paths
from diffalign.plan.stage import Stage
from diffalign.provenance import files_digest


class Exchange(Stage):
    """The rules published_scores_table and published_people_table of rules/layouts.smk."""

    def inputs(self) -> dict[str, list[str]]:
        """The matrices of the study that published scores have a counterpart in."""
        place = (self.study.default_dataset, self.study.default_condition)
        matrices = {
            self.plan.alignment.matrices(*place, y, x): None
            for entry in self.study.exchange.scores.values()
            for x in entry.x
            for y in entry.y
            if self._is_measured(entry, x, y)
        }
        return {"matrices": list(matrices)}

    def metrics(self) -> list[str]:
        """The metrics of the study that published scores are of."""
        asked = {entry.metric for entry in self.study.exchange.scores.values()}
        return [metric for metric in self.study.alignment.metrics if metric in asked]

    def files(self) -> dict[str, dict[str, Any]]:
        """Every file of scores: path, metric, k, rows and columns, and of each its bundle and layers in the study."""
        return {
            name: {
                **entry.plain(),
                "layers": {each: layers for each in (*entry.x, *entry.y) if (layers := self._layers(each))},
                "bundles": {each: self.study.bundle(each) for each in (*entry.x, *entry.y) if self._layers(each)},
            }
            for name, entry in self.study.exchange.scores.items()
        }

    def digests(self) -> dict[str, str]:
        """Size and time of every file of scores, to notice a change."""
        return self._digests(self.study.exchange.scores)

    def people_inputs(self) -> dict[str, list[str]]:
        """Accuracies of the study, as far as files of others have such: its table of models and people, and
        reductions, in the order of `reductions`.
        """
        table = paths.fill(paths.TABLE, table="human") + ".parquet"
        words = ("dataset", "condition", "bundle")
        return {
            "human": [table] if self._asked & {"odd_one_out", "probe"} else [],
            "reductions": [
                paths.fill(paths.ANALYSIS, analysis="reduction", **dict(zip(words, place, strict=True))) + ".parquet"
                for place in self.reductions()
            ],
        }

    def reductions(self) -> list[tuple[str, str, str]]:
        """Data set, condition and bundle of every table of reductions, where files of others have such."""
        human = self.study.human
        bundles = dict.fromkeys(map(self.study.bundle, human.reduction.of)) if "reduction" in self._asked else {}
        return list(itertools.product(human.datasets, self.study.study_conditions, bundles))

    def people_files(self) -> dict[str, dict[str, Any]]:
        """Every file of accuracies, with its settings."""
        return {name: entry.plain() for name, entry in self.study.exchange.people.items()}

    def people_digests(self) -> dict[str, str]:
        """Size and time of every file of accuracies, to notice a change."""
        return self._digests(self.study.exchange.people)

    def people_names(self) -> dict[str, dict[str, Any]]:
        """Bundle -> what the published code calls it: source, model, and modules by alias of a layer.

        Bundles that differ in what it does not have, such as the number of draws, are left out.
        """
        found: dict[str, dict[str, Any]] = {}
        compared = self.plan.human.compared() if self._asked else []
        for bundle in dict.fromkeys([*compared, *(bundle for _, _, bundle in self.reductions())]):
            it = self.study.representation(bundle)
            if it.options or it.step is not None:
                continue
            source, model = published_name(it.model, it.noise, it.conditioning, it.text)
            layers = self.study.model_of(bundle).layers.items()
            modules = {alias: published_module(module, it.text) for alias, module in layers}
            found[bundle] = {"source": source, "model": model, "modules": modules}
        return found

    def people_settings(self) -> dict[str, Any]:
        """The settings of the study that accuracies depend on: of choices, and of its probe."""
        human = self.study.human
        probe = human.probe
        return {
            "distance": human.distance,
            "pca": human.pca,
            "probe": {
                "pca": probe.pca,
                "regularisation": list(probe.regularisation),
                "optimizer": probe.optimizer,
                "learning_rate": list(probe.learning_rate),
                "folds": probe.folds,
                "bias": probe.bias,
            },
        }

    def targets(self) -> list[str]:
        """The tables, where there are files of others, and the files that the study exports."""
        study, exchange = self.study, self.study.exchange
        tables = {"published_scores": exchange.scores, "published_people": exchange.people}
        sets = [
            paths.fill(paths.EXPORT_SET, dataset=dataset, condition=condition, scores=scores) + ".npy"
            for dataset in study.study_datasets
            for condition in study.study_conditions
            for scores in self.plan.layouts.scores
        ]
        return [
            *(paths.fill(paths.TABLE, table=table) + ".tsv" for table, files in tables.items() if files),
            *(sets if "platonic" in exchange.exports else []),
        ]

    @property
    def _asked(self) -> set[str]:
        """What files of accuracies hold."""
        return {entry.of for entry in self.study.exchange.people.values()}

    def _digests(self, entries: Mapping[str, ScoreFileEntry | PeopleFileEntry]) -> dict[str, str]:
        return {name: files_digest([Path(entry.path).expanduser()]) for name, entry in entries.items()}

    def _is_measured(self, entry: ScoreFileEntry, x: str, y: str) -> bool:
        """Whether the study has the same score: platonic-rep calls its metrics as (y, x)."""
        setting = self.study.alignment
        same_k = entry.k == setting.k or not METRICS[entry.metric].uses_k
        return (y, x) in self.study.pairs and entry.metric in setting.metrics and same_k

    def _layers(self, name: str) -> list[str]:
        """The layers of a name of the study, in order of depth; none of a name that it does not have."""
        try:
            return list(self.study.model_of(name).layers)
        except UnknownName:
            return []
