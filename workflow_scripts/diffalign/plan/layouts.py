"""Results in the layouts of other projects."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from diffalign.conditions import CLEAN
from diffalign.io.layouts import platonic
from diffalign.io.layouts.diffusion_alignment import published_name
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards


class Layouts(Stage):
    """Rules of rules/layouts.smk."""

    def features(self, wildcards: Wildcards) -> str:
        """The manifest of the features of a typed name."""
        return self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, wildcards.a)

    def all_layers(self, wildcards: Wildcards) -> list[str]:
        """Every layer of a typed name, in order of depth."""
        return list(self.study.model_of(wildcards.a).layers)

    def one_layer(self, wildcards: Wildcards) -> list[str]:
        """The layer that a typed name means."""
        return [self.study.layer(wildcards.a)]

    def published_layers(self, wildcards: Wildcards) -> list[str]:
        """What VFM-VAE's scripts write of a model: all layers of one with a noise level, one of another."""
        has_noise = self.study.model_of(wildcards.a).noise is not None
        return self.all_layers(wildcards) if has_noise else self.one_layer(wildcards)

    def platonic_features(self, wildcards: Wildcards) -> dict[str, str]:
        """The features of a typed name, and of a language model how well it predicts its texts."""
        files = {"features": self.features(wildcards)}
        place = (wildcards.dataset, wildcards.condition, wildcards.a)
        if self.plan.language.predicts_texts(wildcards.a):
            files["losses"] = self.plan.language.loss_file(*place)
            # what others made says nothing of single texts
            if self.study.model_of(wildcards.a).features is None:
                files["tokens"] = self.plan.language.loss_file(*place, paths.LOSS_TABLE)
        return files

    @cached_property
    def scores(self) -> dict[str, str]:
        """The published name of a file of scores -> the metric of the study that it is of."""
        setting = self.study.alignment
        return {platonic.alignment_name(metric, setting.k): metric for metric in setting.metrics}

    def metric(self, wildcards: Wildcards) -> str:
        """The metric of an exported file of scores."""
        return self.scores[wildcards.scores]

    def scores_of_set(self, wildcards: Wildcards) -> list[str]:
        """The matrices of the study that an exported file of scores is made from."""
        return self.plan.alignment.of_two_sides(wildcards.dataset, wildcards.condition)

    def people_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """Features of a typed name, and their odd-one-out accuracy. Raises ValueError where nobody chose."""
        return self._with("odd_one_out", wildcards, accuracies=".tsv")

    def probe_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """Features of a typed name, and the table, recipe and transforms of their probe. Raises as `people_inputs`."""
        return self._with("probe", wildcards, table=".tsv", recipe=".json", transforms="")

    def reduction_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The table of the reduction of a typed name. Raises as `people_inputs`."""
        return {"table": self._with("reduction", wildcards, table=".tsv")["table"]}

    def modules(self, wildcards: Wildcards) -> dict[str, str]:
        """Alias -> module path of the layers of a typed name."""
        return dict(self.study.model_of(wildcards.a).layers)

    def _with(self, analysis: str, wildcards: Wildcards, **files: str) -> dict[str, str]:
        if wildcards.dataset not in self.study.things:
            raise ValueError(f"'{wildcards.dataset}' is not of kind things, so there are no human choices of it")
        where = {
            "dataset": wildcards.dataset,
            "condition": wildcards.condition,
            "bundle": self.study.bundle(wildcards.a),
        }
        stem = paths.fill(paths.ANALYSIS, analysis=analysis, **where)
        manifest = self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, wildcards.a)
        return {"layers": manifest, **{key: f"{stem}{ending}" for key, ending in files.items()}}

    def published(self, wildcards: Wildcards) -> list[Any]:
        """Source and model of a typed name in the words of the published code, and whether it has no image."""
        found = self.study.representation(wildcards.a)
        return [*published_name(found.model, found.noise, found.conditioning, found.text), found.text]

    @property
    def conditions(self) -> list[str]:
        """The conditions that have a folder in the layout of VFM-VAE, in which rotations and scales are a list."""
        return [each for each in self.study.conditions if each == CLEAN or each.startswith("noise_")]

    def pictures(self) -> list[str]:
        """The images of these conditions."""
        return [paths.fill(paths.PICTURES, condition=condition) for condition in self.conditions]

    def picture_folders(self) -> list[str]:
        """Where they are exported to."""
        return [f"{paths.EXPORT_IMAGES}/{condition}" for condition in self.conditions]
