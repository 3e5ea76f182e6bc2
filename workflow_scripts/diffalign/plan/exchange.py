"""Scores that others published, and files of the study that are written in layouts of others with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffalign.alignment.metrics import METRICS
from diffalign.config.exchange import ScoreFileEntry
from diffalign.names import UnknownName
from diffalign.plan import paths
from diffalign.plan.stage import Stage
from diffalign.provenance import files_digest


class Exchange(Stage):
    """The rule published_scores_table of rules/layouts.smk."""

    def inputs(self) -> dict[str, list[str]]:
        """The matrices of the study that published scores have a counterpart in, with their recipes."""
        place = (self.study.default_dataset, self.study.default_condition)
        matrices = {
            path: None
            for entry in self.study.exchange.scores.values()
            for x in entry.x
            for y in entry.y
            if self._is_measured(entry, x, y)
            for path in self.plan.alignment.matrices([entry.metric], *place, y, x)
        }
        files = self.plan.alignment.with_recipes(list(matrices))
        return {key: files[key] for key in ("matrices", "recipes")}

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
        """Size and time of every file, to notice a change."""
        return {
            name: files_digest([Path(entry.path).expanduser()]) for name, entry in self.study.exchange.scores.items()
        }

    def targets(self) -> list[str]:
        """The table, where there are published scores, and the files that the study exports."""
        study, table = self.study, paths.fill(paths.TABLE, table="published_scores")
        sets = [
            paths.fill(paths.EXPORT_SET, dataset=dataset, condition=condition, scores=scores) + ".npy"
            for dataset in study.study_datasets
            for condition in study.study_conditions
            for scores in self.plan.layouts.scores
        ]
        return [
            *([f"{table}.tsv"] if study.exchange.scores else []),
            *(sets if "platonic" in study.exchange.exports else []),
        ]

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
