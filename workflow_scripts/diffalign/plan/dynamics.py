"""Denoising dynamics: trajectories of every model and configuration, what is measured along them, and figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.config.dynamics import Configuration
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards, any_or_none
from diffalign.specs import SAMPLERS, Model

FIGURES = ("trajectory_sheet", "spectra/images", "spectra/latents", "curves", "wavelets")
LAYER_FIGURES = ("layer_steps", "layer_statistics")
_KINDS = ("tsv", "parquet")
# keys of an entry that features depend on and trajectories do not
_OF_FEATURES = ("draws", "redraw", "seeding", "tokens", "class_tokens")


class Dynamics(Stage):
    """Rules of rules/dynamics.smk. drawn: rows of the figure of layers."""

    drawn = (
        "energy_low",
        "energy_mid",
        "energy_high",
        "edge_density",
        "texture_contrast",
        "shape_ssim",
        "color_spread",
    )

    @property
    def checkpoints(self) -> str:
        """Pattern of the checkpoints of diffusion models."""
        families = self.plan.families
        models = [model for model in self.study.models.values() if families[model.family].reads == "latents"]
        return any_or_none(name for model in models for name in model.checkpoints)

    @property
    def configurations(self) -> str:
        """Pattern of the names of configurations."""
        return any_or_none(self._expanded)

    def _is_closed(self, model: Model) -> bool:
        """Whether its denoiser is known in closed form, so that it is a reference line."""
        return self.plan.families[model.family].closed_form

    @cached_property
    def _expanded(self) -> dict[str, Configuration]:
        return self.study.dynamics.expanded()

    def _of(self, wildcards: Wildcards) -> Configuration:
        return self._expanded[wildcards.configuration]

    def _checkpoint(self, typed: str) -> str:
        """The checkpoint that a name of the configuration means, the last of several."""
        representation = self.study.representation(typed)
        return names.checkpoint_name(representation.model, representation.step)

    def dataset(self, configuration: Configuration) -> str:
        """The images whose latents give the statistics."""
        return configuration.entry.dataset or self.study.default_dataset

    def recipe(self, wildcards: Wildcards) -> dict[str, Any]:
        """What trajectories depend on beside checkpoints and images; seeds are apart, so that one more makes no other
        again.
        """
        made, model = self._of(wildcards), self.study.checkpoint(wildcards.model)
        autoencoder = self.study.models[str(model.latents)]
        entry = {key: value for key, value in model.recipe().items() if key not in _OF_FEATURES}
        scripts = [self.plan.digest("trajectories.py", family=family) for family in (model.family, autoencoder.family)]
        classes = made.entry.classes
        return {
            "format": 1,
            "model": entry,
            "autoencoder": self.plan.latents.encoder(model),
            "configuration": {
                "name": wildcards.configuration,
                "start": made.entry.start,
                "strength": made.entry.strength,
                "sampler": self._sampler(made, model),
                "steps": made.steps,
                "guidance": made.guidance,
                "prompts": list(made.entry.prompts),
                "classes": None if classes is None else list(classes),
                "samples": made.entry.samples,
            },
            "code": scripts,
        }

    def _sampler(self, made: Configuration, model: Model) -> str:
        """The sampler of a configuration; a denoiser in closed form has no scheduler of diffusers."""
        return "euler" if self._is_closed(model) and made.sampler not in SAMPLERS else made.sampler

    def run_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """What a model runs by: its recipe and checkpoint, the autoencoder's, and latents with their statistics.

        Raises ValueError where the data set has no images.
        """
        made, model = self._of(wildcards), self.study.checkpoint(wildcards.model)
        dataset = self.dataset(made)
        if not self.has_images(dataset):
            raise ValueError(f"the data set '{dataset}' has no images, so it gives no statistics of latents")
        autoencoder = str(model.latents)
        latents = self.plan.latents.of(model, dataset, CLEAN)
        decoder = self.plan.weights.of(self.study.models[autoencoder])
        where = {"dataset": dataset, "condition": CLEAN}
        return {
            "recipe": paths.DYNAMICS_RECIPE,
            **self.plan.weights.of(model),
            "autoencoder_weights": decoder["weights"],
            "autoencoder_record": decoder["record"],
            "latents": latents["latents"],
            "statistics": latents["statistics"],
            "manifest": paths.fill(paths.MANIFEST, **where),
        }

    def trajectory_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """What a model runs by, and the record of the images, for the recipe of trajectories."""
        where = {"dataset": self.dataset(self._of(wildcards)), "condition": CLEAN}
        return {**self.run_inputs(wildcards), "dataset": paths.fill(paths.DATASET_RECORD, **where)}

    def trajectories(self, wildcards: Wildcards) -> list[str]:
        """Trajectories of all seeds of a configuration."""
        return [paths.fill(paths.TRAJECTORIES, seed=seed) for seed in sorted(self._of(wildcards).entry.seeds)]

    def first_trajectories(self, wildcards: Wildcards) -> str:
        """Trajectories of the first seed, for pictures."""
        return self.trajectories(wildcards)[0]

    def reference_inputs(self, wildcards: Wildcards) -> dict[str, str]:
        """The vision model that reads images of trajectories; nothing where a configuration names none."""
        text = self._of(wildcards).entry.reference
        if text is None:
            return {}
        bundle = self.study.bundle(text)
        files = {f"reference_{key}": path for key, path in self.plan.weights.files(bundle).items()}
        return {"reference_recipe": paths.fill(paths.RECIPE, bundle=bundle), **files}

    def reference_layer(self, wildcards: Wildcards) -> str | None:
        """The layer that images of trajectories are read at."""
        text = self._of(wildcards).entry.reference
        return None if text is None else self.study.layer(text)

    def image_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Trajectories of all seeds, and the vision model."""
        return {"trajectories": self.trajectories(wildcards), **self.reference_inputs(wildcards)}

    def activation_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The model, its trajectories, and the features of their images."""
        measures = f"{paths.DYNAMICS}/measures.parquet"
        return {**self.run_inputs(wildcards), "trajectories": self.trajectories(wildcards), "measures": measures}

    def contribution_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """The model, and its trajectories."""
        return {**self.run_inputs(wildcards), "trajectories": self.trajectories(wildcards)}

    def alignment_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Features along trajectories, their final images, and the vision model.

        Raises ValueError where the configuration names none.
        """
        if self._of(wildcards).entry.reference is None:
            raise ValueError(f"dynamics.configurations of '{wildcards.configuration}' have no reference to align with")
        pooled = f"{paths.DYNAMICS}/pooled.safetensors"
        return {**self.image_inputs(wildcards), "pooled": pooled}

    def tables(self, *tables: str) -> dict[str, str]:
        """Both kinds of tables of a configuration."""
        return {f"{table}_{kind}": f"{paths.DYNAMICS}/{table}.{kind}" for table in tables for kind in _KINDS}

    def code(self, script: str) -> Callable[[Wildcards], list[str]]:
        """Digests of a script that runs the model, its autoencoder and the vision model."""

        def code(wildcards: Wildcards) -> list[str]:
            model = self.study.checkpoint(wildcards.model)
            families = [model.family, self.study.models[str(model.latents)].family]
            text = self._of(wildcards).entry.reference
            families += [] if text is None else [self.study.model_of(text).family]
            return [self.plan.digest(script, family=family) for family in families]

        return code

    def measuring(self) -> dict[str, Any]:
        """How images are measured, as a parameter."""
        section = self.study.dynamics
        bands = {"low": section.low, "mid": section.mid}
        transforms = {"window": section.window, "wavelet": section.wavelet, "wavelet_levels": section.wavelet_levels}
        return {"bands": bands, **transforms}

    def ablations(self, wildcards: Wildcards) -> dict[str, Any]:
        """What is removed, as a parameter. Raises ValueError where the configuration asks for nothing."""
        entry = self._of(wildcards).entry.removed
        if entry is None:
            raise ValueError(f"dynamics.configurations of '{wildcards.configuration}' remove nothing")
        return entry.plain()

    def words(self, wildcards: Wildcards) -> list[str]:
        """Query words of the prompts."""
        return list(self._of(wildcards).entry.words)

    def batch_size(self, wildcards: Wildcards) -> int:
        """Samples a forward pass."""
        return self.study.checkpoint(wildcards.model).batch_size or self.study.compute.batch_size

    def _gaussian(self, name: str, configuration: str) -> str | None:
        """The checkpoint of the reference line of a model: a Gaussian denoiser of the same latents, if there is one.

        Where the model's own statistics normalise latents, there is none.
        """
        model = self.study.checkpoint(name)
        if self._is_closed(model) or model.weights.given_statistics:
            return None
        for text in self._expanded[configuration].entry.models:
            other = self.study.model_of(text)
            if self._is_closed(other) and other.latents == model.latents:
                return self._checkpoint(text)
        return None

    def beside(self, *tables: str) -> Callable[[Wildcards], dict[str, Any]]:
        """Tables of a model, and the first of them of its reference line as ``reference``, for figures."""

        def beside(wildcards: Wildcards) -> dict[str, Any]:
            files = {table: f"{paths.DYNAMICS}/{table}.parquet" for table in tables}
            reference = self._gaussian(wildcards.model, wildcards.configuration)
            if reference is not None:
                files["reference"] = paths.fill(files[tables[0]], model=reference)
            return files

        return beside

    def layer_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Tables of layers and steps: contributions only where the configuration asks for them."""
        removed = ["contributions"] if self._of(wildcards).entry.removed is not None else []
        return {table: f"{paths.DYNAMICS}/{table}.parquet" for table in ("associations", "readouts", *removed)}

    def statistics_inputs(self, wildcards: Wildcards) -> dict[str, Any]:
        """Statistics of activations, and alignment where the configuration has a vision model."""
        aligned = ["alignment"] if self._of(wildcards).entry.reference is not None else []
        return {table: f"{paths.DYNAMICS}/{table}.parquet" for table in ("activations", *aligned)}

    def drawn_method(self, wildcards: Wildcards) -> str | None:
        """The method of removal that is drawn, the first of several."""
        entry = self._of(wildcards).entry.removed
        return None if entry is None else entry.methods[0]

    def miniature(self, wildcards: Wildcards) -> bool:
        """Whether the model, its autoencoder or the vision model has random miniature weights."""
        text = self._of(wildcards).entry.reference
        return self.study.is_miniature(wildcards.model) or (text is not None and self.study.is_miniature(text))

    def asked(self) -> list[tuple[str, str]]:
        """Checkpoint and configuration of all trajectories of the study."""
        found = [(self._checkpoint(text), name) for name, made in self._expanded.items() for text in made.entry.models]
        return list(dict.fromkeys(found))

    def any_miniature(self) -> bool:
        """Whether a model of the study's trajectories has random miniature weights."""
        return any(self.study.is_miniature(model) for model, _ in self.asked())

    def of_all(self, table: str, kind: str = "parquet", miniatures: bool = True) -> list[str]:
        """A table of every model and configuration. miniatures: also of those with random weights."""
        return [
            f"{paths.fill(paths.DYNAMICS, model=model, configuration=configuration)}/{table}.{kind}"
            for model, configuration in self.asked()
            if miniatures or not self.study.is_miniature(model)
        ]

    def references(self) -> dict[str, str]:
        """Checkpoint -> that of its reference line, as a parameter."""
        found = {}
        for model, configuration in self.asked():
            reference = self._gaussian(model, configuration)
            if reference is not None:
                found[model] = reference
        return found

    def targets(self) -> list[str]:
        """Tables and figures of every model and configuration, and the table and figure over all.

        A reference line stands in the figures of the models beside it; figures of it alone are made by name.
        """
        files: list[str] = []
        lines = {(self._gaussian(model, configuration), configuration) for model, configuration in self.asked()}
        for model, configuration in self.asked():
            where = {"model": model, "configuration": configuration}
            if (model, configuration) in lines:
                files.append(f"{paths.fill(paths.DYNAMICS, **where)}/times.tsv")
                continue
            figures = [*FIGURES, *(LAYER_FIGURES if self.has_layers(self.study.checkpoint(model)) else ())]
            files += [f"{paths.fill(paths.DYNAMICS_FIGURE, **where, figure=figure)}.png" for figure in figures]
            files.append(paths.fill(paths.DYNAMICS_FIGURE, **where, figure="animation") + ".gif")
        if files:
            files.append(f"{paths.fill(paths.TABLE, table='emergence')}.tsv")
            files.append(f"{paths.EMERGENCE_FIGURE}.png")
        return files

    def has_layers(self, model: Model) -> bool:
        """Whether a model has layers to study; a denoiser in closed form has none."""
        return not self._is_closed(model)
