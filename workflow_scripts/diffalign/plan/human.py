"""Models and people: choices, analyses of bundles, tables and figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffalign import names
from diffalign.dataset_specs import TripletFile
from diffalign.human.triplets import source_files
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.provenance import files_digest


class Human(Stage):
    """Rules of rules/human.smk."""

    @property
    def datasets(self) -> str:
        """Pattern of the data sets of kind things."""
        return any_or_none(self.study.things)

    @property
    def triplet_words(self) -> str:
        """Pattern of the words of files of choices."""
        return any_or_none(word for things in self.study.things.values() for word in things.triplets)

    @property
    def combinations(self) -> str:
        """Pattern of the combined layers."""
        return any_or_none(self.study.human.combined)

    def triplets(self, dataset: str, word: str) -> TripletFile:
        """One of a data set's files of choices. Raises UnknownName."""
        known = self.study.things[dataset].triplets
        if word not in known:
            raise names.unknown("file of triplets", word, known)
        return known[word]

    def triplet_source(self, wildcards: Wildcards) -> dict[str, Any]:
        """The files of choices of a target, as a parameter."""
        return asdict(self.triplets(wildcards.dataset, wildcards.triplets))

    def dimensions(self, wildcards: Wildcards) -> dict[str, Any] | None:
        """The file of human dimensions of a data set, as a parameter."""
        source = self.study.things[wildcards.dataset].dimensions
        return asdict(source) if source else None

    def choice_files(self, wildcards: Wildcards) -> str:
        """Digest of the files of choices, concepts and dimensions, to notice a change."""
        things = self.study.things[wildcards.dataset]
        choices = source_files(self.triplets(wildcards.dataset, wildcards.triplets))
        sources = (things.concepts, *choices, things.dimensions)
        return files_digest(Path(source.path) for source in sources if source is not None)

    def similarities(self, wildcards: Wildcards) -> dict[str, Any]:
        """The matrix of human similarities of a data set, as a parameter. Raises ValueError where there is none."""
        source = self.study.things[wildcards.dataset].similarities
        if source is None:
            raise ValueError(f"datasets.{wildcards.dataset} has no key 'similarities', the file of human similarities")
        return asdict(source)

    def similarity_files(self, wildcards: Wildcards) -> str:
        """Digest of these files, to notice a change."""
        source = self.similarities(wildcards)
        return files_digest([Path(source["path"]), Path(source["names"])])

    def _choices(self, dataset: str) -> str:
        if dataset not in self.study.things:
            raise ValueError(f"the data set '{dataset}' is not of kind things, so there are no human choices of it")
        return paths.fill(paths.CHOICES, dataset=dataset, triplets=self.study.human.triplets)

    def inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The features of a bundle, and human choices of the same objects."""
        return self._inputs(wildcards, wildcards.bundle)

    def _inputs(self, wildcards: Wildcards, name: str) -> dict[str, str]:
        place = self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, name)
        return {"layers": place, "people": self._choices(wildcards.dataset)}

    def layer_manifest(self, wildcards: Wildcards) -> str:
        """The manifest of the features of a bundle."""
        return self.plan.features.place(
            paths.FEATURE_MANIFEST, wildcards.dataset, wildcards.condition, wildcards.bundle
        )

    def inputs_of_layer(self, wildcards: Wildcards) -> dict[str, str]:
        """The same for a typed name, and the pictures of the objects where there are any."""
        has_images = self.has_images(wildcards.dataset)
        pictures = self.plan.stimuli.pictures(wildcards) if has_images else {}
        return {**self._inputs(wildcards, wildcards.a), **pictures}

    def layer(self, wildcards: Wildcards) -> str:
        """The layer that the typed name of a target means."""
        return self.study.layer(wildcards.a)

    def combined_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The features of the layers of a combination, and human choices of the same objects."""
        typed = self.study.human.combined[wildcards.combined].of
        layers = [self._inputs(wildcards, name)["layers"] for name in typed]
        return {"layers": layers, "people": self._choices(wildcards.dataset)}

    def combination(self, wildcards: Wildcards) -> dict[str, Any]:
        """The layers of a combination and its transform, as a parameter."""
        combined = self.study.human.combined[wildcards.combined]
        return {**combined.model_dump(), "layers": [self.study.layer(name) for name in combined.of]}

    def transform_file(self, wildcards: Wildcards) -> str | None:
        """Digest of the file of a combination's transform, to notice a change."""
        path = self.study.human.combined[wildcards.combined].transform
        return None if path is None else files_digest([Path(path)])

    def reduced_layers(self, wildcards: Wildcards) -> list[str]:
        """The layers of a bundle that human.reduction names; of other bundles the default layer."""
        return self.plan.features.layers_named(wildcards.bundle, self.study.human.reduction.of)

    def reduction_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """All tokens of some layers of a bundle, and human choices of the same objects."""
        tokens = paths.fill(paths.TOKENS, **dict(wildcards.items()))
        return {"unpooled": tokens, "people": self._choices(wildcards.dataset)}

    def reduction(self) -> dict[str, Any]:
        """Poolings, components and triplets of the reduction."""
        setting = self.study.human.reduction
        return {"poolings": setting.poolings, "components": setting.components, "triplets": setting.triplets}

    def settings(self, **others: Any) -> dict[str, Any]:
        """How choices are predicted from features, and the other settings of an analysis."""
        human = self.study.human
        return {"distance": human.distance, "ties": human.ties, "seed": self.study.seed, **others}

    def outputs(self, pattern: str, **files: str) -> dict[str, str]:
        """Table, Parquet and recipe of an analysis, and its other files by their endings."""
        endings = {"table": ".tsv", "parquet": ".parquet", "recipe": ".json", **files}
        return {name: f"{pattern}{ending}" for name, ending in endings.items()}

    def bundles(self, typed: Iterable[str]) -> dict[str, str]:
        """Canonical bundle -> the name as typed."""
        return {self.study.bundle(name): name for name in typed}

    def compared(self) -> list[str]:
        """The bundles that are compared with people, baselines last, without repetition."""
        human = self.study.human
        return list(dict.fromkeys([*self.bundles(self.study.compared), *self.bundles(human.baselines)]))

    def results(
        self, analysis: str, wildcards: Wildcards, bundles: Iterable[str] | None = None
    ) -> dict[str, list[str]]:
        """Tables and recipes of one analysis of these bundles, or of all that are compared with people."""
        where = {"analysis": analysis, "dataset": wildcards.dataset, "condition": wildcards.condition}
        stems = [paths.fill(paths.ANALYSIS, **where, bundle=bundle) for bundle in bundles or self.compared()]
        return {"tables": [f"{stem}.tsv" for stem in stems], "recipes": [f"{stem}.json" for stem in stems]}

    def odd_one_out_results(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Odd-one-out accuracies of all bundles."""
        return self.results("odd_one_out", wildcards)

    def regression_results(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Regressions of all bundles."""
        return self.results("regression", wildcards)

    def probe_results(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Probes of all bundles."""
        return self.results("probe", wildcards)

    def figure_params(self) -> dict[str, Any]:
        """Bundles and the names typed for them, and whether weights are random."""
        human = self.study.human
        return {
            "models": self.bundles(self.study.compared),
            "baselines": self.bundles(human.baselines),
            "miniature": any(self.study.is_miniature(name) for name in (*self.study.compared, *human.baselines)),
        }

    def noise_grid(self, model: str) -> dict[str, dict[str, str]]:
        """Conditioning and options -> noise level -> bundle, ascending, of a model in human.models.

        What has a single level is left out.
        """
        grid: dict[str, dict[str, str]] = {}
        for bundle in self.bundles(self.study.compared):
            representation = self.study.representation(bundle)
            if representation.model == model and representation.noise is not None:
                words = " ".join([representation.conditioning or model, *representation.options])
                grid.setdefault(words, {})[representation.noise] = bundle
        return {
            words: dict(sorted(levels.items(), key=lambda item: (item[0][0], float(item[0][1:]))))
            for words, levels in grid.items()
            if len(levels) > 1
        }

    def noise_grid_of(self, wildcards: Wildcards) -> dict[str, dict[str, str]]:
        """The grid of the model of a target."""
        return self.noise_grid(wildcards.model)

    def over_noise(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Odd-one-out accuracies of a model over noise levels; regressions where human.analyses has them.

        Raises ValueError where there are no two levels.
        """
        bundles = [bundle for levels in self.noise_grid(wildcards.model).values() for bundle in levels.values()]
        if not bundles:
            raise ValueError(
                f"human.models names no two noise levels of '{wildcards.model}' that differ in nothing else"
            )
        shown = list(dict.fromkeys([*bundles, *self.bundles(self.study.human.baselines)]))
        inputs = self.results("odd_one_out", wildcards, shown)
        if "regression" in self.study.human.analyses:
            regression = self.results("regression", wildcards, shown)
            inputs |= {"dimensions": regression["tables"], "dimension_recipes": regression["recipes"]}
        return inputs

    def places(self) -> list[tuple[str, str, str]]:
        """(dataset, condition, bundle) of everything that is compared with people."""
        return [
            (dataset, condition, bundle)
            for dataset in self.study.human.datasets
            for condition in self.study.study_conditions
            for bundle in self.compared()
        ]

    def table_inputs(self) -> dict[str, list[str]]:
        """Tables (odd_one_out, …) and recipes (odd_one_out_recipes, …) of every analysis, in the order of `places`."""
        inputs: dict[str, list[str]] = {}
        for analysis in dict.fromkeys(["odd_one_out", *self.study.human.analyses]):
            where = [dict(zip(("dataset", "condition", "bundle"), place, strict=True)) for place in self.places()]
            stems = [paths.fill(paths.ANALYSIS, analysis=analysis, **words) for words in where]
            inputs[analysis] = [f"{stem}.tsv" for stem in stems]
            inputs[f"{analysis}_recipes"] = [f"{stem}.json" for stem in stems]
        return inputs

    def difference_inputs(self) -> dict[str, list[str]]:
        """Human choices, predicted choices and recipes of every place, in the order of `places`."""
        where = [dict(zip(("dataset", "condition", "bundle"), place, strict=True)) for place in self.places()]
        stems = [paths.fill(paths.ANALYSIS, analysis="odd_one_out", **words) for words in where]
        return {
            "people": [self._choices(words["dataset"]) for words in where],
            "choices": [f"{stem}.npz" for stem in stems],
            "recipes": [f"{stem}.json" for stem in stems],
        }

    def table_bundles(self) -> dict[str, dict[str, Any]]:
        """What the table says of bundles beside their results."""
        human = self.study.human
        models = self.bundles(self.study.compared)
        return {
            bundle: {
                "name": name,
                "default_layer": self.study.model_of(bundle).default_layer,
                "is_baseline": bundle not in models,
                "miniature": self.study.is_miniature(bundle),
            }
            for bundle, name in {**self.bundles(human.baselines), **models}.items()
        }

    @property
    def _tables(self) -> list[str]:
        # a single bundle differs from nothing
        return ["human", "human_differences"] if len(self.compared()) > 1 else ["human"]

    def targets(self) -> list[str]:
        """The table and the figures of models and people, where the study names data sets for them."""
        human = self.study.human
        if not human.datasets:
            return []
        where = [
            {"dataset": dataset, "condition": condition}
            for dataset in human.datasets
            for condition in self.study.study_conditions
        ]
        words = dict.fromkeys(map(names.model_word, self.bundles(self.study.compared)))
        models = [model for model in words if self.noise_grid(model)]
        reduced = dict.fromkeys(map(self.study.bundle, human.reduction.of))
        return [
            *(paths.fill(paths.TABLE, table=table) + ".tsv" for table in self._tables),
            *(paths.fill(paths.HUMAN_FIGURE, **w, analysis=each) + ".png" for w in where for each in human.analyses),
            *(paths.fill(paths.NOISE_FIGURE, **w, model=model) + ".png" for w in where for model in models),
            *(paths.fill(paths.ANALYSIS, analysis="reduction", **w, bundle=b) + ".tsv" for w in where for b in reduced),
            *(
                paths.fill(paths.ANALYSIS, analysis="human_rsa", dataset=dataset, condition=condition, bundle=bundle)
                + ".tsv"
                for dataset, condition, bundle in self.places()
                if self.study.things[dataset].similarities
            ),
        ]
