"""Contrasts: which pairs of layers each of them compares, and what their job reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffalign import names
from diffalign.alignment.metrics import METRICS
from diffalign.io.sides import reads
from diffalign.names import UnknownName
from diffalign.plan import paths
from diffalign.plan.alignment import PARTS_OF_SIDES
from diffalign.plan.stage import Stage, Wildcards, any_or_none, memory

Sides = tuple[str, str, str, str]
# layers of a contrast that are held at a time
_HELD = 4


class Contrasts(Stage):
    """Rules of rules/contrasts.smk."""

    @property
    def families(self) -> str:
        """Pattern of the names of families."""
        return any_or_none(self.study.contrasts.families)

    def of_target(self, wildcards: Wildcards) -> list[Sides]:
        """The one contrast of a target."""
        return [self._four(wildcards)]

    def of_family(self, wildcards: Wildcards) -> list[Sides]:
        """The contrasts of a family."""
        return [names.split_contrast(text) for text in self.study.contrasts.families[wildcards.family]]

    def of_layers(self, wildcards: Wildcards) -> list[Sides]:
        """The contrast of a target at every layer of its left sides.

        Raises UnknownName where these name a layer or have not the same layers.
        """
        a, b, c, d = self._four(wildcards)
        sides = [self.study.representation(name) for name in (a, c)]
        if any(side.layer for side in sides):
            raise UnknownName(f"'{names.print_contrast(a, b, c, d)}' names a layer; here all layers are meant")
        layers = [side.layers(self.study.vocabularies[side.model]) for side in sides]
        if layers[0] != layers[1]:
            raise UnknownName(
                f"both left sides need the same layers; {a} has {names.listed_layers(layers[0])}, {c} has "
                f"{names.listed_layers(layers[1])}"
            )
        return [(f"{a}_{layer}", b, f"{c}_{layer}", d) for layer in layers[0]]

    def _four(self, wildcards: Wildcards) -> Sides:
        return wildcards.a, wildcards.b, wildcards.c, wildcards.d

    def inputs(self, found: Callable[[Wildcards], Sequence[Sides]]) -> Callable[[Wildcards], dict[str, Any]]:
        """What all metrics of the study read of every bundle: lists of files in the order of `bundles`; and the
        manifest, where images share a group. found: the contrasts of a target.

        Raises UnknownName for a contrast of a pair with itself.
        """

        def files(wildcards: Wildcards) -> dict[str, Any]:
            contrasts = found(wildcards)
            for sides in contrasts:
                placed = [(self.study.bundle(name), self.study.layer(name)) for name in sides]
                if placed[:2] == placed[2:]:
                    raise UnknownName(f"'{names.print_contrast(*sides)}': both pairs are the same")
            dataset, condition, metrics = wildcards.dataset, wildcards.condition, self.plan.alignment.metrics
            return {
                **{
                    part: [
                        self.plan.features.place(PARTS_OF_SIDES[part], dataset, condition, bundle)
                        for bundle in self._bundles(contrasts)
                    ]
                    for part in reads(metrics)
                    # those of moments serve nulls alone
                    if part != "factors" or any(METRICS[name].needs == "factors" for name in metrics)
                },
                **self.plan.stimuli.groups(dataset, condition),
            }

        return files

    def compared(self, found: Callable[[Wildcards], Sequence[Sides]]) -> Callable[[Wildcards], list[dict[str, Any]]]:
        """Of every contrast its name and its four sides: bundle and layer."""
        return lambda wildcards: [
            {
                "contrast": names.print_contrast(*sides),
                "sides": [[self.study.bundle(name), self.study.layer(name)] for name in sides],
            }
            for sides in found(wildcards)
        ]

    def bundles(self, found: Callable[[Wildcards], Sequence[Sides]]) -> Callable[[Wildcards], list[str]]:
        """The bundles that the contrasts of a target consist of, each once."""
        return lambda wildcards: self._bundles(found(wildcards))

    def _bundles(self, contrasts: Sequence[Sides]) -> list[str]:
        return list(dict.fromkeys(self.study.bundle(name) for sides in contrasts for name in sides))

    def memory(self, base: int, found: Callable[[Wildcards], Sequence[Sides]]) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds four layers, in float32 and as moments."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            models = [self.study.model_of(bundle) for bundle in self._bundles(found(wildcards))]
            widest = max(self.plan.features.megabytes(wildcards.dataset, model) / len(model.layers) for model in models)
            return memory(base, 4 * _HELD * widest)(wildcards, attempt)

        return megabytes

    def miniature(self, found: Callable[[Wildcards], Sequence[Sides]]) -> Callable[[Wildcards], bool]:
        """Whether a model of these contrasts has random miniature weights; captions say so."""
        return lambda wildcards: any(self.study.is_miniature(name) for name in self._bundles(found(wildcards)))

    @property
    def where(self) -> dict[str, str]:
        """The data set and condition of the contrasts of the study."""
        dataset = self.study.contrasts.dataset or self.study.default_dataset
        return {"dataset": dataset, "condition": self.study.default_condition}

    def _named(self, of_family: str, of_layers: str) -> list[str]:
        """A file of everything that the study names, without its suffix."""
        section = self.study.contrasts
        return [
            *(paths.fill(of_family, **self.where, family=family) for family in section.families),
            *(
                paths.fill(of_layers, **self.where, **dict(zip("abcd", names.split_contrast(text), strict=True)))
                for text in section.layers
            ),
        ]

    def tables(self, suffix: str = "parquet", miniatures: bool = True) -> list[str]:
        """The tables of all families and contrasts at every layer that the study names.

        miniatures: False for none where a model has random miniature weights.
        """
        if not miniatures and any(map(self.study.is_miniature, self.study.contrasts.typed)):
            return []
        return [f"{stem}.{suffix}" for stem in self._named(paths.CONTRAST_FAMILY, paths.LAYER_CONTRAST)]

    def targets(self) -> list[str]:
        """The table and the figures, where the study names contrasts."""
        figures = [f"{stem}.png" for stem in self._named(paths.CONTRAST_FIGURE, paths.LAYER_CONTRAST_FIGURE)]
        return [f"{paths.fill(paths.TABLE, table='contrasts')}.tsv", *figures] if figures else []
