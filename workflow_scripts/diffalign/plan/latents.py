"""Latents of autoencoders and embedded prompts: what diffusion models read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.config.datasets import WORDS_ALONE
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.provenance import files_digest
from diffalign.specs import Model


class Latents(Stage):
    """Rules of rules/latents.smk."""

    @property
    def shards(self) -> list[str]:
        """The files that hold the latents of an autoencoder."""
        return paths.shards(paths.LATENTS, self.study.latent_shards)

    def autoencoders(self, imported: bool = False) -> str:
        """Pattern of the autoencoders that encode here, or of those whose latents were made elsewhere."""
        models = [model for model in self.study.models.values() if model.is_autoencoder]
        chosen = [model for model in models if (model.latents_from is not None) == imported]
        return any_or_none(name for model in chosen for name in model.checkpoints)

    def autoencoder(self, wildcards: Wildcards) -> dict[str, Any]:
        """The autoencoder of a target, as a parameter."""
        return self.study.checkpoint(wildcards.model).encoder()

    def batch_size(self, wildcards: Wildcards) -> int:
        """Images a forward pass."""
        return self.study.checkpoint(wildcards.model).batch_size or self.study.compute.batch_size

    def imported_files(self, wildcards: Wildcards) -> str:
        """Digest of the files that latents are imported from, to notice a change."""
        source = self.study.checkpoint(wildcards.model).latents_from
        assert source is not None  # the wildcard is constrained to such models
        return files_digest(p for p in source.at(wildcards.dataset, wildcards.condition) if p is not None)

    def clean_statistics(self, wildcards: Wildcards) -> dict[str, str]:
        """The statistics of clean latents, which normalise those of transformed images where they are measured."""
        is_fixed = self.study.checkpoint(wildcards.model).latent_statistics == "fixed"
        if is_fixed or wildcards.condition == CLEAN:
            return {}
        where = {"dataset": wildcards.dataset, "condition": CLEAN, "model": wildcards.model}
        return {"clean_statistics": paths.fill(paths.LATENT_STATISTICS, **where)}

    def of(self, reader: Model, dataset: str, condition: str) -> dict[str, Any]:
        """The latents that a diffusion model reads: shards, statistics, and the record of where they come from.

        Of an autoencoder with several checkpoints they are of its last. Statistics are the model's own where its
        weights name them, also for its untrained twin.
        """
        model = self.study.models[str(reader.latents)]
        where = {"dataset": dataset, "condition": condition, "model": model.checkpoint}
        imported = paths.fill(paths.LATENTS_RECORD, **where)
        own = paths.fill(paths.GIVEN_STATISTICS, model=reader.checkpoint) if reader.weights.given_statistics else None
        if reader.training is not None and model.latent_statistics == "measured":
            # those that it was trained with
            trained = {**where, "dataset": reader.training.dataset, "condition": CLEAN}
            own = paths.fill(paths.LATENT_STATISTICS, **trained)
        return {
            "latents": [paths.fill(shard, **where) for shard in self.shards],
            "statistics": own or paths.fill(paths.LATENT_STATISTICS, **where),
            "autoencoder_record": imported if model.latents_from else self.plan.weights.of(model)["record"],
        }

    def encoder(self, reader: Model) -> dict[str, Any]:
        """The recipe of these latents, which says whose statistics normalise them."""
        entry = self.study.models[str(reader.latents)].encoder()
        own = {"latent_statistics": f"weights.statistics of {reader.name}"} if reader.weights.given_statistics else {}
        if reader.training is not None and entry.get("latent_statistics") == "measured":
            own = {"latent_statistics": f"measured on {reader.training.dataset}"}
        return {**entry, **own}

    @property
    def prompted_models(self) -> str:
        """Pattern of the models that read prompts."""
        families = self.plan.families
        models = [m for m in self.study.models.values() if families[m.family].conditioned_on == "prompts"]
        return any_or_none(name for model in models for name in model.checkpoints)

    @property
    def prompt_conditionings(self) -> str:
        """Pattern of the conditionings that have a file of prompts."""
        return names.any_of(word for word in names.CONDITIONINGS if word != names.TEXT)

    def prompt_spec(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the prompts of a model depend on, as a parameter."""
        return self.study.checkpoint(wildcards.model).prompt_spec()

    def untrained_prompt_spec(self, wildcards: Wildcards) -> dict[str, Any]:
        """The same for text encoders without training."""
        return replace(self.study.models[wildcards.model], untrained=True).prompt_spec()

    def prompts(self, wildcards: Wildcards) -> str:
        """The file of prompts of a bundle, or of the text or embedding that it consists of. Raises ValueError as
        `_check_captions`.
        """
        representation = self.study.representation(wildcards.bundle)
        model = self.study.models[representation.model]
        self._check_captions(model.name, wildcards.dataset, representation.conditioning)
        given = representation.conditioning in model.embeddings
        untrained = "untrained" in representation.options and not given
        checkpoint = names.checkpoint_name(model.name, None if untrained or given else representation.step)
        where = {"dataset": wildcards.dataset, "model": checkpoint, "conditioning": representation.conditioning}
        return paths.fill(paths.UNTRAINED_PROMPTS if untrained else paths.PROMPTS, **where)

    @property
    def with_embeddings(self) -> str:
        """Pattern of the models with given embeddings."""
        return any_or_none(name for name, model in self.study.models.items() if model.embeddings)

    @property
    def embedding_words(self) -> str:
        """Pattern of the words of given embeddings."""
        return any_or_none({word for model in self.study.models.values() for word in model.embeddings})

    def embeddings(self, wildcards: Wildcards) -> str:
        """The file of given embeddings that a word of a model names. Raises UnknownName."""
        embeddings = self.study.models[wildcards.model].embeddings
        if wildcards.word not in embeddings:
            raise names.unknown("embedding", wildcards.word, embeddings)
        return embeddings[wildcards.word].replace("{dataset}", wildcards.dataset)

    def embeddings_alone(self, wildcards: Wildcards) -> str:
        """What a given embedding is by itself."""
        return self.study.models[wildcards.model].embeddings_alone

    def texts(self, wildcards: Wildcards) -> dict[str, Any]:
        """The files of texts of prompts. Raises ValueError as `_check_captions`."""
        self._check_captions(wildcards.model, wildcards.dataset, wildcards.conditioning)
        return self.plan.stimuli.texts(wildcards)

    def _check_captions(self, model: str, dataset: str, conditioning: str | None) -> None:
        """Raise ValueError for captions of a data set of kind things that no file gives: its own are words."""
        is_given = dataset not in self.study.things or "caption" in self.study.texts[dataset].files
        if conditioning == "caption" and not is_given:
            raise ValueError(f"'{model}' under 'caption': {WORDS_ALONE.format(dataset=dataset)}")

    def embedding_files(self, wildcards: Wildcards) -> str:
        """Digest of this file, to notice a change."""
        return files_digest([Path(self.embeddings(wildcards))])
