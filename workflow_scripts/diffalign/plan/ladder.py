"""Ladders: the features of a pair of layers, of its untrained twins, of pure noise and of controls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffalign.config.atlas import LABELS, PURE_NOISE, UNTRAINED
from diffalign.names import UnknownName
from diffalign.plan import paths
from diffalign.plan.alignment import pair_file
from diffalign.plan.stage import Stage, Wildcards

_NAME = "ladder"
# of a data set whose number of images is only known when it is read
_IMAGES = 10_000


class Ladder(Stage):
    """Rules of rules/ladder.smk."""

    def inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features of both sides, of their twins and of pure noise where they have them, and of controls; the manifest,
        where the data set has one.
        """

        def features(name: str) -> str:
            return self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, name)

        sides = {"a": wildcards.a, "b": wildcards.b}
        files: dict[str, Any] = {side: features(name) for side, name in sides.items()}
        others = {"noise": self._pure_noise}
        if UNTRAINED in self.study.ladder.controls:
            others["untrained"] = self._twin
        for kind, other in others.items():
            found = {side: other(name) for side, name in sides.items()}
            files |= {f"{kind}_{side}": features(bundle) for side, bundle in found.items() if bundle is not None}
        files["controls"] = [features(name) for name, layer in self.controls(wildcards).items() if layer is not None]
        return {**files, **self.plan.stimuli.labels(wildcards)}

    def controls(self, wildcards: Wildcards) -> dict[str, str | None]:
        """The controls that the pair and the data set allow, in the order of the rungs: the layer of a model; None for
        labels and the twins.
        """
        has_twin = any(self._twin(name) is not None for name in (wildcards.a, wildcards.b))
        allowed = {LABELS: self.has_manifest(wildcards.dataset), UNTRAINED: has_twin}
        section = self.study.ladder
        layers: dict[str, str | None] = {name: None for name in section.controls if allowed.get(name)}
        layers |= {name: self.study.layer(name) for name in section.of_models if self._is_read(name, wildcards.dataset)}
        return {name: layers[name] for name in section.controls if name in layers}

    def _is_read(self, name: str, dataset: str) -> bool:
        """Whether there are features of a model on a data set: without images, of texts and files alone."""
        model = self.study.model_of(name)
        return self.has_images(dataset) or model.reads_texts or model.features is not None

    def _twin(self, name: str) -> str | None:
        """The untrained twin of a typed name; None where there is none, or where it is one."""
        try:
            twin = self.study.untrained(name)
        except UnknownName:
            return None
        return None if twin == self.study.bundle(name) else twin

    def _pure_noise(self, name: str) -> str | None:
        """The same model at t = 1, with noise of its own; None without noise levels, or where it is at t = 1."""
        if self.study.representation(name).noise is None:
            return None
        bundle = self.plan.atlas.at(name, PURE_NOISE)
        return None if bundle == self.study.bundle(name) else bundle

    def memory(self, base: int) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds a layer of both sides, and (N, N) matrices."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            images = self.study.datasets[wildcards.dataset].sample or _IMAGES
            return self.plan.alignment.memory(base + 3 * images**2 * 8 // 2**20)(wildcards, attempt)

        return megabytes

    def targets(self) -> list[str]:
        """The figures of the pairs that the study names; each is drawn from its table."""
        section = self.study.ladder
        where = {
            "dataset": section.dataset or self.study.default_dataset,
            "condition": self.study.default_condition,
            "figure": _NAME,
        }
        return [pair_file(paths.PAIR_FIGURE, pair, **where) + ".png" for pair in section.pairs]
