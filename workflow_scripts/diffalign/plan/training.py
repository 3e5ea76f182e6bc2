"""Models that are trained here: what a training reads, and the checkpoints that it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffalign.conditions import CLEAN
from diffalign.plan import paths
from diffalign.plan.stage import Stage, Wildcards
from diffalign.specs import Model, Training


class Trainings(Stage):
    """Rules of rules/training.smk."""

    @property
    def models(self) -> dict[str, Training]:
        """The trainings of the study by the name of their model."""
        models = self.study.models.items()
        return {name: model.training for name, model in models if model.training is not None}

    @property
    def teachers(self) -> list[str]:
        """The representations that layers are aligned with in a training, each once."""
        return list(dict.fromkeys(each.teacher for each in self.models.values() if each.teacher is not None))

    def rule_name(self, model: str) -> str:
        """The name of the rule of one model: train_digits_sit."""
        return f"train_{model.replace('.', '_')}"

    def recipe(self, wildcards: Wildcards) -> dict[str, Any]:
        """What the weights of a model depend on: its entry, its training, its autoencoder, its seed and code."""
        model = self.study.models[wildcards.model]
        entry = {key: value for key, value in model.recipe().items() if key not in _OF_FEATURES}
        return {
            "format": 1,
            "model": {**entry, "layers": self._aligned(model)},
            "autoencoder": self.study.models[model.latents].encoder() if model.latents else None,
            "code": self.plan.digest("train.py", family=model.family),
        }

    def _aligned(self, model: Model) -> dict[str, str]:
        """The layer that is aligned with a teacher; no weights depend on the others."""
        layer = None if model.training is None else model.training.teacher_layer
        return {} if layer is None else {layer: model.layers[layer]}

    def inputs(self, name: str) -> Callable[[Wildcards], dict[str, Any]]:
        """What a training reads: images and their manifest, or latents of them, and tokens of a teacher."""
        model, training = self.study.models[name], self.models[name]
        where = {"dataset": training.dataset, "condition": CLEAN}

        def inputs(_: Wildcards) -> dict[str, Any]:
            if not self.has_images(training.dataset):
                raise ValueError(f"the data set '{training.dataset}' has no images, so {name} cannot be trained on it")
            files: dict[str, Any] = {
                "recipe": paths.fill(paths.TRAINING_RECIPE, model=name),
                "dataset": paths.fill(paths.DATASET_RECORD, **where),
                "manifest": paths.fill(paths.MANIFEST, **where),
            }
            if model.latents is None:
                files["images"] = paths.fill(paths.PICTURES, **where)
            else:
                files |= self.plan.latents.of(model, training.dataset, CLEAN)
            if training.teacher is not None:
                files["teacher"] = paths.fill(paths.TOKENS, **where, bundle=self.study.bundle(training.teacher))
            return files

        return inputs

    def outputs(self, name: str) -> dict[str, Any]:
        """Checkpoints and their records, in order of steps, and the losses of every step."""
        losses = paths.fill(paths.LOSSES_OF_TRAINING, model=name)
        return {
            "checkpoints": [self._of_step(paths.TRAINED_CHECKPOINT, name, step) for step in self.steps(name)],
            "records": [self._of_step(paths.TRAINED_RECORD, name, step) for step in self.steps(name)],
            "tsv": f"{losses}.tsv",
            "parquet": f"{losses}.parquet",
        }

    def steps(self, name: str) -> list[int]:
        """The steps whose weights are kept."""
        return list(self.models[name].checkpoints)

    def teacher_layer(self, name: str) -> str | None:
        """The layer of the teacher whose tokens are aligned with; None without a teacher."""
        teacher = self.models[name].teacher
        return None if teacher is None else self.study.layer(teacher)

    def figures(self) -> list[str]:
        """The losses that models are trained with, each a figure."""
        return list(dict.fromkeys(training.loss for training in self.models.values()))

    def losses_of(self, wildcards: Wildcards) -> list[str]:
        """The tables of the trainings with the loss of a figure."""
        models = [name for name, training in self.models.items() if training.loss == wildcards.loss]
        return [f"{paths.fill(paths.LOSSES_OF_TRAINING, model=name)}.tsv" for name in models]

    def recipes(self) -> dict[str, str]:
        """Model -> the recipe that its training shares with those of other seeds, by the names of through_training."""
        named = {
            self.study.representation(name).model: recipe
            for recipe, typed in self.study.through_training.recipes.items()
            for name in typed
        }
        return {name: named.get(name, name) for name in self.models}

    def targets(self) -> list[str]:
        """The figures of all losses."""
        return [f"{paths.fill(paths.LOSSES_FIGURE, loss=loss)}.png" for loss in self.figures()]

    def _of_step(self, pattern: str, name: str, step: int) -> str:
        return paths.fill(pattern, model=name, step=step)


# keys of an entry that features depend on and weights do not
_OF_FEATURES = ("layers", "step", "noise", "draws", "redraw", "seeding", "tokens", "precision")
