"""Results in the layouts of other projects."""

from __future__ import annotations

from diffalign.conditions import CLEAN
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards


class Layouts(Stage):
    """Rules of rules/layouts.smk."""

    def all_layers(self, wildcards: Wildcards) -> list[str]:
        """Feature files of every layer of a typed name, in order of depth."""
        folder = self.plan.features.place(paths.FEATURES, wildcards.dataset, wildcards.condition, wildcards.a)
        return [f"{folder}/{layer}.pt" for layer in self.study.model_of(wildcards.a).layers]

    def one_layer(self, wildcards: Wildcards) -> list[str]:
        """The feature file of the layer that a typed name means."""
        folder = self.plan.features.place(paths.FEATURES, wildcards.dataset, wildcards.condition, wildcards.a)
        return [f"{folder}/{self.study.layer(wildcards.a)}.pt"]

    def published_layers(self, wildcards: Wildcards) -> list[str]:
        """What VFM-VAE's scripts write of a model: all layers of one with a noise level, one of another."""
        has_noise = self.study.model_of(wildcards.a).noise is not None
        return self.all_layers(wildcards) if has_noise else self.one_layer(wildcards)

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
