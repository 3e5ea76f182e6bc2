"""Features: recipes of bundles, extractions and imports, neighbour lists and factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.models.families import precomputed
from diffalign.plan import paths
from diffalign.plan.stage import UNKNOWN_COUNT, UNKNOWN_WIDTH, Stage, Wildcards, any_or_none, memory
from diffalign.provenance import files_digest
from diffalign.specs import Model, filled

# of an extraction whose operations, or whose GPU, nobody counted
EXTRACTION_MINUTES = 720
# beside twice the passes: libraries, checkpoints, files
_STARTING_MINUTES = 30
# of the weights of a model that is spread over GPUs, what activations take beside them
_BESIDE_WEIGHTS = 1.2


class Features(Stage):
    """Rules of rules/features.smk, and where all others find the features of a bundle."""

    def place(self, pattern: str, dataset: str, condition: str, name: str, **more: str) -> str:
        """A file of the bundle of a typed name. Language models read no image, so theirs lie under ``clean`` alone."""
        condition = CLEAN if self.is_language(self.study.model_of(name)) else condition
        return paths.fill(pattern, dataset=dataset, condition=condition, bundle=self.study.bundle(name), **more)

    def is_language(self, model: Model) -> bool:
        """Whether a model reads texts of images in place of the images, and runs here."""
        return self.plan.families[model.family].reads == "texts"

    @property
    def image_models(self) -> dict[str, Model]:
        """The models that run here on images, or on latents of them."""
        models = self.study.models.items()
        return {name: model for name, model in models if model.features is None and not self.is_language(model)}

    @property
    def language_models(self) -> dict[str, Model]:
        """The models that run here on texts of images."""
        return {name: model for name, model in self.study.models.items() if self.is_language(model)}

    @property
    def precomputed_models(self) -> dict[str, Model]:
        """The models whose features were made elsewhere."""
        return {name: model for name, model in self.study.models.items() if model.features is not None}

    @property
    def in_parts(self) -> bool:
        """Whether jobs share the images of an extraction."""
        return self.study.extraction_parts > 1

    def rule_name(self, prefix: str, model: str) -> str:
        """The name of the rule of one model: extract_sd3, or extract_sd3_part where jobs share its images."""
        part = "_part" if prefix == "extract" and self.in_parts else ""
        return f"{prefix}_{model.replace('.', '_')}{part}"

    def log(self, rule: str, bundle: str = "bundle") -> str:
        """The log of an extraction, of all images or of a part."""
        return paths.log(rule, "dataset", "condition", bundle, *(("part", "parts") if self.in_parts else ()))

    def shards(self, bundle: str = "bundle") -> str:
        """Where finished shards of an extraction lie: no output, so that they survive a killed job."""
        folder = paths.fill(paths.FEATURE_SHARDS, bundle=f"{{{bundle}}}")
        return f"{folder}/{{part}}-of-{{parts}}" if self.in_parts else folder

    def bundles(self, model: Model) -> str:
        """Pattern of the bundles of a model that read images."""
        return names.bundle_pattern(model.name, model.vocabulary)

    @property
    def text_bundles(self) -> str:
        """Pattern of the bundles of a text or a given embedding alone."""
        return "|".join(names.text_pattern(name, vocabulary) for name, vocabulary in self.study.vocabularies.items())

    def recipe(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the features of a bundle depend on: its model, noise level, conditioning, seed and code."""
        representation = self.study.representation(wildcards.bundle)
        model = self.study.model_of(wildcards.bundle)
        extraction = "extract_texts.py" if self.is_language(model) else "extract.py"
        script = "text_features.py" if representation.text else "import_features.py" if model.features else extraction
        return {
            "format": 1,
            "bundle": wildcards.bundle,
            "model": model.recipe(),
            "noise": representation.noise,
            "conditioning": representation.conditioning,
            "autoencoder": self.plan.latents.encoder(model) if model.latents else None,
            "code": self.plan.digest(script, family=model.family),
        }

    def feature_sources(self, wildcards: Wildcards) -> dict[str, Any]:
        """What a precomputed model's features of a data set and condition are read from, as it is now."""
        model = self.study.models[wildcards.model]
        sources = precomputed.sources(model, wildcards.dataset, wildcards.condition).values()
        return {"files": files_digest(path for source in sources for path in precomputed.may_read(source))}

    @property
    def on_disk(self) -> str:
        """Pattern of the precomputed models whose files lie on this machine."""
        return any_or_none(
            name for name, model in self.precomputed_models.items() if model.features and model.features.path
        )

    @property
    def downloaded(self) -> str:
        """Pattern of the precomputed models whose files are downloaded."""
        return any_or_none(
            name for name, model in self.precomputed_models.items() if model.features and model.features.url
        )

    @property
    def downloads(self) -> str:
        """Pattern of the names of files that are downloaded."""
        models = self.precomputed_models.values()
        return any_or_none({file for model in models for file in self._addresses(model)})

    def _addresses(self, model: Model, dataset: str | None = None, condition: str | None = None) -> dict[str, str]:
        """File -> address of what is downloaded of a model, in order of layers; of one data set and condition or of
        all.
        """
        features = model.features
        if features is None or features.url is None or features.file is None:
            return {}
        words = [
            (each, another, module)
            for each in ([dataset] if dataset else self.study.datasets)
            for another in ([condition] if condition else self.study.conditions)
            for module in model.layers.values()
        ]
        return {filled(features.file, *word): filled(features.url, *word) for word in words}

    def download(self, name: str) -> dict[str, Callable[[Wildcards], list[str]]]:
        """The files of features of a precomputed model that are downloaded, as a named input; nothing for others."""
        model = self.study.models[name]

        def files(wildcards: Wildcards) -> list[str]:
            of_target = self._addresses(model, wildcards.dataset, wildcards.condition)
            return [paths.fill(paths.DOWNLOADED_FEATURES, model=name, file=file) for file in of_target]

        return {"features": files} if model.features and model.features.url else {}

    def url(self, wildcards: Wildcards) -> str:
        """Where a file of features is downloaded from."""
        return self._addresses(self.study.models[wildcards.model])[wildcards.file]

    def url_sha256(self, wildcards: Wildcards) -> str | None:
        """The sha256 that a download must have; None for any."""
        features = self.study.models[wildcards.model].features
        return None if features is None else features.sha256

    def import_inputs(self, name: str) -> dict[str, Any]:
        """What the import of precomputed features reads: downloads, or a note of the state of the files."""
        sources = {"sources": paths.fill(paths.FEATURE_SOURCES, model=name)}
        return {**(self.download(name) or sources), "recipe": paths.RECIPE}

    def inputs(self, name: str) -> Callable[[Wildcards], dict[str, Any]]:
        """The checkpoint of one model, and what the model sees: images, or latents, prompts and class tokens."""
        model = self.study.models[name]

        def inputs(wildcards: Wildcards) -> dict[str, Any]:
            if not self.has_images(wildcards.dataset):
                raise ValueError(f"the data set '{wildcards.dataset}' has no images, so {name} cannot be run on it")
            files: dict[str, Any] = self.plan.weights.files(wildcards.bundle)
            if model.latents is None:
                return {**files, "images": self.image_file(paths.PICTURES, wildcards)}
            reader = self.study.model_of(wildcards.bundle)
            files |= self.plan.latents.of(reader, wildcards.dataset, wildcards.condition)
            if self.plan.families[model.family].conditioned_on == "prompts":
                files["prompts"] = self.plan.latents.prompts(wildcards)
            if model.class_tokens is not None:
                where = (wildcards.dataset, wildcards.condition, model.class_tokens)
                files["class_tokens"] = self.place(paths.FEATURE_MANIFEST, *where)
            return files

        return inputs

    def texts_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """What the features of a text or a given embedding alone read; of the latter without a checkpoint."""
        if not self.has_images(wildcards.dataset):
            raise ValueError(f"the data set '{wildcards.dataset}' has no images, so there are no texts of them")
        conditioning = self.study.representation(wildcards.bundle).conditioning
        given = conditioning in self.study.model_of(wildcards.bundle).embeddings
        return {
            "recipe": paths.fill(paths.RECIPE, bundle=wildcards.bundle),
            "dataset": self.image_file(paths.DATASET_RECORD, wildcards),
            "manifest": self.image_file(paths.MANIFEST, wildcards),
            "prompts": self.plan.latents.prompts(wildcards),
            **({} if given else {"record": self.plan.weights.files(wildcards.bundle)["record"]}),
        }

    def manifest(self, wildcards: Wildcards) -> str:
        """The manifest of the features of a bundle. Raises ValueError where a language model lies elsewhere."""
        if wildcards.condition != CLEAN and self.is_language(self.study.model_of(wildcards.bundle)):
            raise ValueError(
                f"'{wildcards.bundle}': language models read no image, so their files lie under the condition 'clean', "
                f"not '{wildcards.condition}'"
            )
        return paths.fill(paths.FEATURE_MANIFEST, **dict(wildcards.items()))

    def unpooled_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The same for the extraction of all tokens. Raises ValueError where a model has none."""
        representation = self.study.representation(wildcards.bundle)
        if representation.text or representation.model not in self.image_models:
            raise ValueError(
                f"'{wildcards.bundle}': models that run here on images have tokens, texts and files do not"
            )
        return self.inputs(representation.model)(wildcards)

    def class_token_layer(self, name: str) -> str:
        """The layer whose features a model reads as class tokens; empty where it reads none."""
        reads = self.study.models[name].class_tokens
        return "" if reads is None else self.study.models[reads].default_layer

    def parts(self, pattern: str = paths.FEATURE_PART) -> list[str]:
        """The parts of a bundle's features, in order. Their names say how many there are, so that none is mixed."""
        count = self.study.extraction_parts
        return [paths.fill(pattern, part=part, parts=count) for part in range(count)]

    def neighbor_parts(self) -> list[str]:
        """The parts of a bundle's neighbour lists, in order."""
        count = self.study.alignment.parts
        return [paths.fill(paths.NEIGHBOR_PART, part=part, parts=count) for part in range(count)]

    def batch_size(self, model: Model) -> int:
        """Images a forward pass."""
        return model.batch_size or self.study.compute.batch_size

    def layers_named(self, bundle: str, typed: Iterable[str]) -> list[str]:
        """The layers of a bundle that these names mean, in order of depth; its default layer where they mean none."""
        named = {self.study.layer(name) for name in typed if self.study.bundle(name) == bundle}
        model = self.study.model_of(bundle)
        return [layer for layer in model.layers if layer in named] or [model.default_layer]

    def unpooled_layers(self, wildcards: Wildcards) -> list[str]:
        """The layers of a bundle whose tokens the reduction of human.reduction, a training or a space asks for."""
        typed = [*self.study.human.reduction.of, *self.plan.training.teachers, *self.plan.shared_space.with_tokens]
        return self.layers_named(wildcards.bundle, typed)

    def unpooled_batch_size(self, wildcards: Wildcards) -> int:
        """Images a forward pass of the model of a target."""
        return self.batch_size(self.study.model_of(wildcards.bundle))

    def memory(self, base: int, model: Model | None = None, copies: float = 1) -> Callable[[Any, int], int]:
        """Memory in MB of a job that holds all features of a model, or one layer of its bundle, `copies` times."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            held = self.megabytes(wildcards.dataset, model) if model else self._of_layer(wildcards)
            return memory(base, copies * held)(wildcards, attempt)

        return megabytes

    def extraction_memory(self, base: int, model: Model, copies: float = 1) -> Callable[[Any, int], int]:
        """Memory in MB of an extraction: what the entry says, on every attempt, or that of features, `copies` times,
        and of weights. Only that of features grows with the attempt: weights are as large as they are.
        """
        features = self.memory(base, model, copies)
        return lambda wildcards, attempt: (
            model.memory_mb or round(features(wildcards, attempt) + self.loaded_megabytes(model))
        )

    def unpooled_memory(self, base: int) -> Callable[[Any, int], int]:
        """Memory in MB of the extraction of all tokens of a target, likewise."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            model = self.study.model_of(wildcards.bundle)
            return model.memory_mb or round(memory(base)(wildcards, attempt) + self.loaded_megabytes(model))

        return megabytes

    def checkpoint_memory(self, base: int, checkpoint: str | None = None) -> Callable[[Any, int], int]:
        """Memory in MB of a job that runs a checkpoint, that of a target or this one, on samples."""

        def megabytes(wildcards: Wildcards, attempt: int) -> int:
            model = self.study.checkpoint(checkpoint or wildcards.model)
            return round(memory(base)(wildcards, attempt) + self.loaded_megabytes(model))

        return megabytes

    def loaded_megabytes(self, model: Model) -> float:
        """MB of the weights of a model as they are loaded: language models in their precision, others in float32,
        before they are taken to theirs.
        """
        return model.weights_mb if self.is_language(model) else replace(model, precision="float32").weights_mb

    def unpooled_gpus(self, wildcards: Wildcards) -> int:
        """GPUs that the extraction of all tokens of a target asks for."""
        return self.gpus(self.study.model_of(wildcards.bundle))

    def unpooled_runtime(self, wildcards: Wildcards) -> int:
        """Minutes that it asks for."""
        return self._minutes(wildcards, self.study.model_of(wildcards.bundle), 1)

    def gpus(self, model: Model) -> int:
        """GPUs that an extraction asks for: what the entry says, or as many as hold a model that is spread; none where
        the study runs on CPUs.
        """
        one = self.study.hardware.gpu_memory_mb
        if not self.plan.cluster.of_a_job:
            return 0
        if model.gpus is not None or model.device_map is None or one is None:
            return model.gpus or 1
        return max(1, math.ceil(_BESIDE_WEIGHTS * model.weights_mb / one))

    def device_map(self, model: Model) -> str:
        """How a model is spread over the GPUs of its extraction; empty where it is not, or the study runs on CPUs."""
        return (model.device_map or "") if self.plan.cluster.of_a_job else ""

    def runtime(self, model: Model) -> Callable[[Wildcards], int]:
        """Minutes that an extraction asks for: what the entry says, or twice what its passes take."""
        # a name may ask for several draws of noise, which language models have none of
        parts = self.study.extraction_parts
        return lambda wildcards: self._minutes(
            wildcards, self.study.model_of(wildcards.get("bundle", model.name)), parts
        )

    def _minutes(self, wildcards: Wildcards, model: Model, parts: int) -> int:
        # on CPUs, the rate of a GPU says nothing
        rate = self.study.hardware.gpu_tflops if self.plan.cluster.of_a_job else None
        count = self.gigaflops(model, wildcards.dataset)
        if model.runtime is not None or rate is None or count is None:
            return model.runtime or EXTRACTION_MINUTES
        return _STARTING_MINUTES + math.ceil(2 * count / parts / (1000 * rate) / 60)

    def gigaflops(self, model: Model, dataset: str) -> float | None:
        """10^9 operations of the passes over all images of a data set, by what is known; None where it is not.

        A miniature has other operations than its entry says.
        """
        images = self.study.datasets[dataset].sample
        if model.gigaflops is None or images is None or model.weights.source == "miniature":
            return None
        return images * model.gigaflops * len(model.noise_draws)

    def _of_layer(self, wildcards: Wildcards) -> float:
        model = self.study.model_of(dict(wildcards.items()).get("bundle", next(iter(self.study.models))))
        return self.megabytes(wildcards.dataset, model) / len(model.layers)

    def megabytes(self, dataset: str, model: Model) -> float:
        """MB of the features of all layers: images x layers x width x 4 bytes, by what the configuration tells."""
        count = self.study.datasets[dataset].sample or UNKNOWN_COUNT
        return count * len(model.layers) * width(model.built) * 4 / 2**20


def width(architecture: Mapping[str, Any]) -> int:
    """Features of a layer, where an architecture says how many."""
    known = (architecture.get(key) for key in ("embed_dim", "hidden_size"))
    return next((int(value) for value in known if isinstance(value, int)), UNKNOWN_WIDTH)


def published_file(model: Model, wildcards: Wildcards) -> str:
    """The one file that a precomputed model's features, and its losses, are read from."""
    folder = Path(paths.fill(paths.DOWNLOADED_FEATURES, model=model.name, file="x")).parent
    downloaded = folder if model.features and model.features.url else None
    sources = precomputed.sources(model, wildcards.dataset, wildcards.condition, downloaded)
    return str(next(iter(sources.values())).path)
