"""One space for layers of several models: the toy study, spaces of tokens with their pictures, and pairs of layers."""

from __future__ import annotations

from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.config.shared_space import DidacticEntry, SpaceEntry
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none

# of the toy study: its cases, and the targets of the half-shared MLP
DIDACTIC_FIGURES = ("cases", "targets")
_KINDS = ("tsv", "parquet")
# keys of pairs that say what is measured, and not how
_OF_PAIRS = ("of", "dataset")


class SharedSpace(Stage):
    """Rules of rules/shared_space.smk."""

    @property
    def spaces(self) -> str:
        """Pattern of the names of spaces."""
        return any_or_none(self.study.shared_space.spaces)

    def _of(self, wildcards: Wildcards) -> SpaceEntry:
        return self.study.shared_space.spaces[wildcards.space]

    def _dataset(self, entry: SpaceEntry) -> str:
        return entry.dataset or self.study.default_dataset

    def tables(self, pattern: str, *tables: str) -> dict[str, str]:
        """Both kinds of tables below a folder."""
        return {f"{table}_{kind}": f"{pattern}/{table}.{kind}" for table in tables for kind in _KINDS}

    @property
    def didactic(self) -> DidacticEntry:
        """Settings of the toy study: those of the entry, or the defaults where it is made by name."""
        return self.study.shared_space.didactic or DidacticEntry()

    def bundles(self, entry: SpaceEntry) -> list[str]:
        """The bundles of the layers of a space, each once, in their order."""
        return list(dict.fromkeys(self.study.bundle(text) for text in entry.layers))

    @property
    def with_tokens(self) -> list[str]:
        """The names whose tokens spaces ask for."""
        return [text for entry in self.study.shared_space.spaces.values() for text in entry.layers]

    def space_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Tokens of every bundle, the images, and masks of their parts where the data set has them.

        Raises ValueError where a model averages several draws of noise, or the data set has no images.
        """
        entry = self._of(wildcards)
        dataset = self._dataset(entry)
        if not self.has_images(dataset):
            raise ValueError(f"the data set '{dataset}' has no images, so there are no tokens of them")
        for text in entry.layers:
            draws = self.study.model_of(text).draws
            if draws > 1:
                raise ValueError(f"'{text}' averages {draws} draws of noise; un-pooled tokens are of one draw")
        where = {"dataset": dataset, "condition": CLEAN}
        files: dict[str, Any] = {
            "tokens": [paths.fill(paths.TOKENS, **where, bundle=bundle) for bundle in self.bundles(entry)],
            "images": paths.fill(paths.PICTURES, **where),
            "manifest": paths.fill(paths.MANIFEST, **where),
        }
        if self.plan.stimuli.has_parts(dataset):
            files["parts"] = paths.fill(paths.PART_MASKS, dataset=dataset)
        return files

    def picture_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The images of a space, for its picture."""
        where = {"dataset": self._dataset(self._of(wildcards)), "condition": CLEAN}
        return {"images": paths.fill(paths.PICTURES, **where)}

    def sets(self, wildcards: Wildcards) -> list[dict[str, Any]]:
        """The layers of a space, as a parameter: the number of the folder of tokens, the layer, and its model."""
        entry = self._of(wildcards)
        bundles = self.bundles(entry)
        return [
            {
                "folder": bundles.index(self.study.bundle(text)),
                "layer": self.study.layer(text),
                "model": text.removesuffix(f"_{self.study.layer(text)}"),
            }
            for text in entry.layers
        ]

    def space_settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """How a space is made, as a parameter."""
        section, entry = self.study.shared_space, self._of(wildcards).plain()
        entry = {key: value for key, value in entry.items() if key not in ("layers", "dataset")}
        shared = {"c": section.affinity, "choice": section.choice, "permutations": section.permutations}
        return {**entry, **shared, "seed": self.study.seed}

    def miniature(self, wildcards: Wildcards) -> bool:
        """Whether a model of the space has random miniature weights."""
        return wildcards.space not in self.named()

    def pair_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """Pooled features of both sides, and the manifest that labels stand in, where the data set has one."""
        place = (paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition)
        files = {side: self.plan.features.place(*place, getattr(wildcards, side)) for side in ("a", "b")}
        if self.has_manifest(wildcards.dataset):
            files["manifest"] = self.image_file(paths.MANIFEST, wildcards)
        return files

    def pair_layers(self, wildcards: Wildcards) -> list[str]:
        """The layers that both sides mean."""
        return [self.study.layer(wildcards.a), self.study.layer(wildcards.b)]

    def transforms(self) -> dict[str, str]:
        """The saved transforms of a pair: one file a method, one a seed for the half-shared MLP."""
        pairs = self.study.shared_space.pairs
        files: dict[str, str] = {}
        for method in pairs.methods:
            stems = [method] if method != "half_shared" else [f"{method}_{seed}" for seed in pairs.half_shared.seeds]
            files |= {stem: f"{paths.ALIGNED_PAIR}/transforms/{stem}.safetensors" for stem in stems}
        return files

    def pair_settings(self) -> dict[str, Any]:
        """How pairs are aligned and scored, as a parameter."""
        section = self.study.shared_space
        entry = {key: value for key, value in section.pairs.plain().items() if key not in _OF_PAIRS}
        half_shared = dict(entry["half_shared"])
        seeds = half_shared.pop("seeds")
        shared = {"c": section.affinity, "choice": section.choice, "seed": self.study.seed}
        shared["k"] = self.study.alignment.k
        return {**entry, "half_shared": half_shared, "seeds": seeds, **shared}

    def miniature_pair(self, wildcards: Wildcards) -> bool:
        """Whether a side has random miniature weights."""
        return any(self.study.is_miniature(typed) for typed in (wildcards.a, wildcards.b))

    def asked(self) -> list[dict[str, str]]:
        """Data set, condition and both sides of the pairs of the study."""
        pairs = self.study.shared_space.pairs
        dataset = pairs.dataset or self.study.default_dataset
        where = {"dataset": dataset, "condition": self.study.default_condition}
        split = [text.split(names.SEPARATOR) for text in pairs.of]
        return [{**where, "a": a, "b": b} for a, b in split]

    def of_all(self, pattern: str, file: str, miniatures: bool = True) -> list[str]:
        """A file of every pair (`ALIGNED_PAIR`) or space (`SPACE`). miniatures: also of those with random weights."""
        if pattern == paths.ALIGNED_PAIR:
            kept = [
                pair
                for pair in self.asked()
                if miniatures or not any(self.study.is_miniature(pair[side]) for side in ("a", "b"))
            ]
        else:
            kept = [{"space": name} for name in (self.study.shared_space.spaces if miniatures else self.named())]
        return [f"{paths.fill(pattern, **words)}/{file}" for words in kept]

    def named(self) -> list[str]:
        """The names of the spaces whose models have real weights, as a parameter."""
        return [
            name
            for name, entry in self.study.shared_space.spaces.items()
            if not any(self.study.is_miniature(text) for text in entry.layers)
        ]

    def targets(self) -> list[str]:
        """Tables and figures of the toy study, of every space and of every pair."""
        section = self.study.shared_space
        files = []
        if section.didactic is not None:
            files += [f"{paths.DIDACTIC}/claims.tsv"]
            files += [f"{paths.fill(paths.DIDACTIC_FIGURE, figure=figure)}.png" for figure in DIDACTIC_FIGURES]
        for name in section.spaces:
            files += [f"{paths.fill(paths.SPACE, space=name)}/consistency.tsv"]
            files += [f"{paths.fill(paths.SPACE_FIGURE, space=name)}.png"]
        for pair in self.asked():
            files += [f"{paths.fill(paths.ALIGNED_PAIR, **pair)}/contrasts.tsv"]
            files += [f"{paths.fill(paths.ALIGNED_PAIR_FIGURE, **pair)}.png"]
        return files
