"""Samples of class-conditional models: how they are made, what they are measured by, and where both lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.specs import Model

READERS = ("classifier", "features")


class Samples(Stage):
    """Rules of rules/samples.smk."""

    @property
    def dataset(self) -> str:
        """The held-out images that samples stand beside."""
        return self.study.samples.dataset or self.study.default_dataset

    @property
    def of_classes(self) -> dict[str, Model]:
        """The models that samples can be made of: conditioned on classes, with an autoencoder that decodes."""
        families, models = self.plan.families, self.study.models
        return {
            name: model
            for name, model in models.items()
            if families[model.family].conditioned_on == "labels" and families[models[str(model.latents)].family].decodes
        }

    @property
    def models(self) -> str:
        """Pattern of these models."""
        return any_or_none(self.of_classes)

    @property
    def checkpoints(self) -> str:
        """Pattern of their checkpoints."""
        return any_or_none(name for model in self.of_classes.values() for name in model.checkpoints)

    @property
    def jobs(self) -> dict[str, list[str]]:
        """Which checkpoints one job samples, by the ending of its rule's name: all of a model that is trained here,
        whose list is known. Any other stands alone, so that a folder that grows makes nothing again.
        """
        trained = {name: model for name, model in self.of_classes.items() if model.training is not None}
        return {name.replace(".", "_"): list(model.checkpoints) for name, model in trained.items()}

    @property
    def alone(self) -> str:
        """Pattern of the checkpoints that a job samples by itself."""
        models = [model for model in self.of_classes.values() if model.training is None]
        return any_or_none(name for model in models for name in model.checkpoints)

    def asked(self, model: str | None = None) -> list[str]:
        """The checkpoints whose samples the study asks for, of one model in order of steps, or of all models."""
        found: list[str] = []
        for text in self.study.samples.models:
            word, step = names.split_checkpoint(text)
            if model in (None, word):
                found += self.study.models[word].checkpoints if step is None else [text]
        steps = {name: -1 if (at := names.split_checkpoint(name)[1]) is None else int(at) for name in found}
        return sorted(found, key=steps.__getitem__) if model is not None else found

    def shown(self, wildcards: Wildcards) -> list[str]:
        """The checkpoints of a sheet: those that the study asks for, or of another model all."""
        return self.asked(wildcards.model) or list(self.study.models[wildcards.model].checkpoints)

    def recipe(self, wildcards: Wildcards) -> dict[str, Any]:
        """What samples depend on beside checkpoints and images: models, sampler, seeds and code."""
        setting, model = self.study.samples, self.study.checkpoint(wildcards.model)
        autoencoder = self.study.models[str(model.latents)]
        entry = {key: value for key, value in model.recipe().items() if key not in _OF_FEATURES}
        return {
            "format": 1,
            "model": {**entry, "layers": {}},
            "autoencoder": self.plan.latents.encoder(model),
            "sampler": {"method": setting.sampler, "steps": setting.steps, "guidance": setting.guidance},
            "per_class": setting.per_class,
            "seeds": list(setting.seeds),
            "code": [self.plan.digest("samples.py", family=family) for family in (model.family, autoencoder.family)],
        }

    def inputs(self, checkpoints: list[str] | None = None) -> Callable[[Wildcards], dict[str, Any]]:
        """What samples of these checkpoints of a model, or of that of a target, are made of: recipes, checkpoints, that
        of the autoencoder, and the latents whose statistics undo the normalisation.
        """

        def inputs(wildcards: Wildcards) -> dict[str, Any]:
            named = checkpoints or [wildcards.model]
            models = [self.study.checkpoint(name) for name in named]
            if not self.has_images(wildcards.dataset):
                raise ValueError(f"the data set '{wildcards.dataset}' has no images, so no samples stand beside it")
            autoencoder = str(models[0].latents)
            latents = self.plan.latents.of(models[0], wildcards.dataset, CLEAN)
            decoder = self.plan.weights.of(self.study.models[autoencoder])
            files = [self.plan.weights.of(model) for model in models]
            return {
                "recipes": [paths.fill(paths.SAMPLES_RECIPE, model=name) for name in named],
                "weights": [each["weights"] for each in files],
                "records": [each["record"] for each in files],
                "autoencoder_weights": decoder["weights"],
                "autoencoder_record": decoder["record"],
                "latents": latents["latents"],
                "statistics": latents["statistics"],
            }

        return inputs

    def outputs(self, checkpoints: list[str] | None = None) -> dict[str, list[str]]:
        """Samples of these checkpoints, or of that of a target, and their recipes."""
        stems = [paths.fill(paths.SAMPLES, model=name) for name in checkpoints or ["{model}"]]
        return {"samples": [f"{stem}.safetensors" for stem in stems], "recipes": [f"{stem}.json" for stem in stems]}

    def quality_outputs(self, checkpoints: list[str] | None = None) -> dict[str, list[str]]:
        """Measurements of their quality: tables of both kinds and recipes."""
        stems = [paths.fill(paths.SAMPLE_QUALITY, model=name) for name in checkpoints or ["{model}"]]
        endings = {"tsv": "tsv", "parquet": "parquet", "recipes": "json"}
        return {key: [f"{stem}.{ending}" for stem in stems] for key, ending in endings.items()}

    def batch_size(self, checkpoints: list[str] | None = None) -> Callable[[Wildcards], int]:
        """Samples a forward pass."""

        def batch_size(wildcards: Wildcards) -> int:
            model = self.study.checkpoint(checkpoints[0] if checkpoints else wildcards.model)
            return model.batch_size or self.study.compute.batch_size

        return batch_size

    def quality_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The models that read samples, each with its features of the held-out images.

        Raises ValueError where samples.classifier and samples.features do not say which.
        """
        files = {}
        for key in READERS:
            text = self._reader(key)
            bundle = self.study.bundle(text)
            held_out = self.plan.features.place(paths.FEATURE_MANIFEST, wildcards.dataset, CLEAN, text)
            files[f"{key}_recipe"] = paths.fill(paths.RECIPE, bundle=bundle)
            files |= {f"{key}_{name}": path for name, path in self.plan.weights.files(bundle).items()}
            files[f"{key}_held_out"] = held_out
        return files

    def reader_layer(self, key: str) -> Callable[[Wildcards], str]:
        """The layer of `classifier` or `features`, as a parameter."""
        return lambda wildcards: self.study.layer(self._reader(key))

    def quality_code(self, _: Wildcards) -> list[str]:
        """The digest of the code of a measurement, and of the models that read samples."""
        families = [self.study.model_of(self._reader(key)).family for key in READERS]
        return [self.plan.digest("sample_quality.py", family=family) for family in families]

    def _reader(self, key: str) -> str:
        text: str | None = getattr(self.study.samples, key)
        if text is None:
            raise ValueError(f"samples.{key} names no model; quality of samples needs it")
        return text

    def measured(self) -> list[str]:
        """The measurements that the table is made of; none where a table of the user's stands in their place."""
        if self.study.samples.table is not None:
            return []
        return [f"{self._quality(name)}.parquet" for name in self.asked()]

    def table(self) -> dict[str, Any]:
        """The user's table, and the checkpoints that it may name, as parameters."""
        steps = {name: list(model.steps) for name, model in self.study.models.items() if model.steps}
        return {"table": self.study.samples.table, "dataset": self.dataset, "checkpoints": steps}

    def given_table(self) -> list[str]:
        """The user's table as an input."""
        table = self.study.samples.table
        return [] if table is None else [table]

    def sheet_inputs(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Samples of the checkpoints of a model, and what is known of their quality."""
        where = {"dataset": wildcards.dataset}
        shown = self.shown(wildcards)
        quality = [] if self.study.samples.classifier is None or self.study.samples.features is None else shown
        return {
            "samples": [f"{paths.fill(paths.SAMPLES, **where, model=name)}.safetensors" for name in shown],
            "quality": [f"{paths.fill(paths.SAMPLE_QUALITY, **where, model=name)}.json" for name in quality],
        }

    def miniature(self, wildcards: Wildcards) -> bool:
        """Whether the model of a target, or its autoencoder, has random miniature weights."""
        return self.study.is_miniature(wildcards.model)

    def _quality(self, checkpoint: str) -> str:
        return paths.fill(paths.SAMPLE_QUALITY, dataset=self.dataset, model=checkpoint)

    def targets(self) -> list[str]:
        """A sheet of every model, and the table of all."""
        models = dict.fromkeys(names.model_word(name) for name in self.asked())
        sheets = [
            f"{paths.fill(paths.SAMPLE_SHEET, dataset=self.dataset, condition=CLEAN, model=name)}.png"
            for name in models
        ]
        tables = [f"{paths.fill(paths.TABLE, table='sample_quality')}.tsv"]
        return [*sheets, *(tables if models or self.study.samples.table is not None else [])]


# keys of an entry that features depend on and samples do not
_OF_FEATURES = ("layers", "draws", "redraw", "seeding", "tokens", "class_tokens")
