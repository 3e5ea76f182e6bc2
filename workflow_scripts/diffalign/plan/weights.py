"""Checkpoints: where each comes from, and what an untrained twin is built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffalign.conditions import CLEAN
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.provenance import files_digest, folder_digest
from diffalign.specs import Model


class Weights(Stage):
    """Rules of rules/weights.smk."""

    def models_from(self, *sources: str) -> str:
        """Pattern of the checkpoints that come from one of these sources."""
        models = [model for model in self.study.models.values() if model.weights.source in sources]
        return any_or_none(name for model in models for name in model.checkpoints)

    def spec(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the checkpoint of a model depends on: the part of its entry that says where weights come from."""
        entry = self.study.checkpoint(wildcards.model).recipe()
        return {key: entry[key] for key in ("name", "family", "weights", "miniature") if key in entry}

    def spectrum_spec(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the spectrum of latents depends on beside them: the model, and the scale of what it reads."""
        model = self.study.checkpoint(wildcards.model)
        return {"name": model.name, "latents": model.latents, "latent_multiplier": model.latent_multiplier}

    def spectrum_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The latents that a spectrum is of. Raises ValueError where the data set has no images."""
        model = self.study.checkpoint(wildcards.model)
        dataset = model.weights.dataset or self.study.default_dataset
        if not self.has_images(dataset):
            raise ValueError(
                f"the data set '{dataset}' has no images, so {model.name} cannot be fitted to their latents"
            )
        where = {"dataset": dataset, "condition": CLEAN}
        return {
            "dataset": paths.fill(paths.DATASET_RECORD, **where),
            "manifest": paths.fill(paths.MANIFEST, **where),
            **self.plan.latents.of(model, dataset, CLEAN),
        }

    def own_files(self, wildcards: Wildcards) -> str | None:
        """Digest of a user's own checkpoint, to notice a change; None for others."""
        weights = self.study.checkpoint(wildcards.model).weights
        if weights.source == "folder":
            return folder_digest(Path(str(weights.folder)).expanduser())
        if weights.source != "file":
            return None
        return files_digest(Path(each).expanduser() for each in (weights.path, weights.statistics) if each is not None)

    @property
    def with_statistics(self) -> str:
        """Pattern of the checkpoints of diffusion models beside which the statistics of their latents lie."""
        models = [m for m in self.study.models.values() if m.latents is not None and m.weights.given_statistics]
        return any_or_none(name for model in models for name in model.checkpoints)

    def statistics_spec(self, wildcards: Wildcards) -> dict[str, Any]:
        """Which file these statistics are, and the channels that they must have; None for any."""
        model = self.study.checkpoint(wildcards.model)
        channels = model.built.get("in_channels")
        return {"name": model.name, "statistics": model.weights.given_statistics, "channels": channels}

    def untrained_spec(self, wildcards: Wildcards) -> dict[str, Any] | None:
        """What an untrained twin is written from where checkpoints hold no configuration; None where they do."""
        model = self.study.models[wildcards.model]
        if self.plan.families[model.family].untrained != "architecture":
            return None
        return {"family": model.family, "architecture": model.built, "seed": model.seed}

    def untrained_configuration(self, wildcards: Wildcards) -> list[str]:
        """The miniature that the configuration of an untrained twin is copied from; nothing for published models."""
        is_miniature = self.study.models[wildcards.model].weights.source == "miniature"
        if not is_miniature or self.untrained_spec(wildcards) is not None:
            return []
        return [paths.CHECKPOINT, paths.CHECKPOINT_RECORD]

    def untrained_models(self, written: bool) -> str:
        """Pattern of the models whose untrained twins are written here, or whose configuration is fetched."""
        # the twin of a model that is trained here is its first checkpoint
        others = {name: model for name, model in self.study.models.items() if model.training is None}
        kinds = {name: self.plan.families[model.family].untrained for name, model in others.items()}
        return any_or_none(name for name, kind in kinds.items() if kind and (kind == "architecture") == written)

    def files(self, bundle: str) -> dict[str, str]:
        """Checkpoint and record of a bundle. Raises ValueError where a model has no untrained twin."""
        model = self.study.model_of(bundle)
        if not model.untrained:
            return self.of(model)
        if self.plan.families[model.family].untrained:
            patterns = (paths.UNTRAINED_CHECKPOINT, paths.UNTRAINED_RECORD)
        else:
            raise ValueError(f"'{bundle}': models of family '{model.family}' have no untrained twins")
        return _pair(patterns, model=model.name)

    def of(self, model: Model) -> dict[str, str]:
        """Checkpoint and record of a model at its step, from outside or from a training here."""
        if model.training is not None:
            return _pair((paths.TRAINED_CHECKPOINT, paths.TRAINED_RECORD), model=model.name, step=model.step)
        return _pair((paths.CHECKPOINT, paths.CHECKPOINT_RECORD), model=model.checkpoint)

    def of_target(self, wildcards: Wildcards) -> dict[str, str]:
        """The same for the checkpoint that the wildcard ``model`` of a target names."""
        return self.of(self.study.checkpoint(wildcards.model))


def _pair(patterns: tuple[str, str], **words: object) -> dict[str, str]:
    return dict(zip(("weights", "record"), (paths.fill(pattern, **words) for pattern in patterns), strict=True))
