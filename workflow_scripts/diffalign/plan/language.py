"""Language models: the texts that they read, how well they predict them, and alignment against that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from diffalign import names
from diffalign.plan import paths
from diffalign.plan.features import published_file
from diffalign.plan.stage import Stage, Wildcards
from diffalign.provenance import files_digest
from diffalign.specs import TEXTS_OF_IMAGES, Model

# One job makes the bundle of means over tokens and that of last tokens, and both are found by the first. It has a
# wildcard of its own: Snakemake passes one of the same name on, and holds it against the beginning of its constraint.
PART = paths.FEATURE_PART.replace("{bundle}", "{means}")


class Language(Stage):
    """Rules of rules/language.smk."""

    conditionings = names.any_of(TEXTS_OF_IMAGES)
    part = PART
    means = paths.FEATURES.replace("{bundle}", "{means}")
    last = f"{means}-{names.LAST}"

    def bundles(self, model: Model) -> str:
        """Pattern of the bundles of means over tokens; those of last tokens come with them."""
        options = tuple(option for option in model.vocabulary.options if option != names.LAST)
        return names.bundle_pattern(model.name, replace(model.vocabulary, options=options))

    def inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """What the extraction of a language model reads. Raises ValueError for a data set without texts."""
        dataset = wildcards.dataset
        if not self.has_manifest(dataset):
            raise ValueError(f"the data set '{dataset}' has no texts, so '{wildcards.means}' reads nothing on it")
        conditioning = str(self.study.representation(wildcards.means).conditioning)
        return {
            "recipe": paths.fill(paths.RECIPE, bundle=wildcards.means),
            **self.plan.weights.files(wildcards.means),
            "texts": paths.fill(paths.TEXTS, dataset=dataset, conditioning=conditioning),
        }

    def parts(self) -> list[str]:
        """The parts of the features of both bundles, in order."""
        return self.plan.features.parts(PART)

    def predicts_texts(self, name: str) -> bool:
        """Whether a file says how well the model of a typed name predicts texts."""
        model = self.study.model_of(name)
        return model.features.bits_per_byte if model.features else self.plan.features.is_language(model)

    def loss_file(self, dataset: str, condition: str, name: str, pattern: str = paths.LOSSES) -> str:
        """Path of the loss file of a language model, or of its table of texts. ``-last`` bundles share the file of the
        mean-pooled bundle.
        """
        representation = self.study.representation(name)
        options = tuple(option for option in representation.options if option != names.LAST)
        means = replace(representation, options=options).bundle(self.study.vocabularies[representation.model])
        return self.plan.features.place(pattern, dataset, condition, name, means=means)

    def import_file(self, wildcards: Wildcards) -> str:
        """The file that a precomputed model's losses are read from."""
        return published_file(self.study.model_of(wildcards.means), wildcards)

    def import_digest(self, wildcards: Wildcards) -> str | None:
        """Digest of this file, to notice a change; a download is an input."""
        features = self.study.model_of(wildcards.means).features
        return None if features is None or features.url else files_digest([Path(self.import_file(wildcards))])

    def pairs(self) -> dict[tuple[str, str], str]:
        """The pairs of the study of a language model and another, and the side of the language model."""
        sides = {pair: [self.predicts_texts(name) for name in pair] for pair in self.study.pairs}
        return {pair: "ab"[which.index(True)] for pair, which in sides.items() if sum(which) == 1}

    def places(self) -> list[tuple[str, str, tuple[str, str], str]]:
        """(dataset, condition, pair, side of the language model) of the rows of the table, each a row a metric."""
        pairs = self.pairs()
        return [
            (dataset, condition, pair, side)
            for dataset in self.study.study_datasets
            for condition in self.study.study_conditions
            for pair, side in pairs.items()
        ]

    def table_inputs(self, _: Wildcards) -> dict[str, list[str]]:
        """The matrices of these pairs, and of each the loss file of its language model."""
        places = self.places()
        files = self.plan.alignment.of_places((dataset, condition, *pair) for dataset, condition, pair, _ in places)
        losses = [
            self.loss_file(dataset, condition, pair["ab".index(side)]) for dataset, condition, pair, side in places
        ]
        return {**files, "losses": losses}

    def languages(self, _: Wildcards) -> list[dict[str, str]]:
        """Of every pair of the table, its language model: side, variant, and series."""
        rows = []
        for *_where, pair, side in self.places():
            bundle, model = self.study.bundle(pair["ab".index(side)]), self.study.model_of(pair["ab".index(side)])
            rows.append(
                {"side": side, "variant": bundle.removeprefix(model.name), "series": model.series or model.name}
            )
        return rows

    @property
    def miniature(self) -> bool:
        """Whether a model of these pairs has random miniature weights."""
        return any(self.study.is_miniature(name) for pair in self.pairs() for name in pair)

    def targets(self) -> list[str]:
        """The table and the figures of alignment against bits per byte, where the study has such pairs."""
        if not self.pairs():
            return []
        figures = [
            paths.fill(paths.METRIC_FIGURE, dataset=dataset, condition=condition, figure="bits_per_byte", metric=metric)
            for dataset in self.study.study_datasets
            for condition in self.study.study_conditions
            for metric in self.study.alignment.metrics
        ]
        return [paths.fill(paths.TABLE, table="bits_per_byte") + ".tsv", *(f"{figure}.png" for figure in figures)]
