"""All that trajectories of one model and configuration need: the denoiser, its conditioning, levels, and a decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign import models
from diffalign.io.checkpoints import verify
from diffalign.io.headers import StoreError, check_same_names
from diffalign.io.latents import Latents, read_statistics, unnormalised
from diffalign.io.manifest import read_manifest
from diffalign.models import Denoiser
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five
from diffalign.sampling.classes import noise_shapes, starting_noise, step_noise
from diffalign.sampling.conditions import Conditioning, asked_from_noise, asked_of_images, conditioning
from diffalign.sampling.schedulers import Timetable, from_latents, from_noise, generators, scheduled, timetable
from diffalign.sampling.starts import STARTS, levels_of, noised, noising
from diffalign.sampling.trajectories import (
    CLASS_TOKENS,
    Around,
    Predict,
    State,
    first_level,
    guided,
    onwards,
    trajectory,
)
from diffalign.specs import PIPELINE, SAMPLERS, Model
from diffalign.stimuli.labels import check_same_classes


@dataclass(frozen=True)
class Files:
    """Checkpoints of a model and its autoencoder with their records, and latents (shards), their statistics and the
    manifest of a data set.
    """

    weights: Path
    record: Path
    autoencoder_weights: Path
    autoencoder_record: Path
    latents: tuple[Path, ...]
    statistics: Path
    manifest: Path


@dataclass(frozen=True)
class Settings:
    """A configuration of trajectories, as the section `dynamics` of the configuration describes each key."""

    name: str
    start: str
    strength: float | None
    sampler: str | None
    steps: int
    guidance: float
    prompts: Sequence[str] | None
    classes: Sequence[int] | None
    samples: int


@dataclass(frozen=True, eq=False)
class Run:
    """Trajectories of one model under one configuration, of any samples and seeds.

    decode: latents (B, C, h, w) as the model reads them -> images (B, 3, H, W) float32 in [0, 1]. levels: of states
    0 … S, t falling to 0. groups: name of each sample, in ascending order -> its class, prompt or photograph. facts:
    what the recipe says beyond the configuration. table: of a scheduler of diffusers, else None.
    """

    denoiser: Denoiser
    decode: Callable[[Tensor], Tensor]
    levels: tuple[NoiseLevel, ...]
    groups: Mapping[str, str]
    facts: Mapping[str, Any]
    model: str
    settings: Settings
    conditions: Conditioning
    latents: Latents
    side: int
    device: torch.device
    table: Timetable | None = None

    def states(self, names: Sequence[str], seed: int | Sequence[int], around: Around | None = None) -> Iterator[State]:
        """States 0 … S of these samples, one batch, on the device.

        seed: one for all samples, or one for each, so that a name may stand in a batch under several seeds. around:
        entered around every call of the model that belongs to a step, with the number of the step: both calls of Heun's
        method, and both of guidance. Raises ValueError for a name that is no sample, and that names the step
        and the first five samples where latents become NaN or infinite.
        """
        self._check(names)
        around = around or nullcontext
        shapes = dict(noise_shapes(self.denoiser, self.side))
        drawn = {what: starting_noise(names, shape, self.model, seed, what) for what, shape in shapes.items()}
        noise, tokens = drawn["latents"].to(self.device), drawn.get(CLASS_TOKENS)
        asked, predict = self.conditioning(names), self._predict(len(names))
        start, sampler = self.settings.start, str(self.settings.sampler)
        clean = None if start == "noise" else torch.stack([self.latents[name] for name in names]).to(self.device)
        if clean is not None and start == "noising":
            yield from noising(predict, self.levels, clean, noise, asked, names, around)
        elif self.table is not None:
            x_t = None if clean is None else noised(clean, noise, self.levels[0])
            first = from_noise(self.table, noise) if x_t is None else from_latents(self.table, x_t)
            drawing = generators(names, self.model, seed)
            yield from scheduled(self.table, predict, first, asked, names, drawing, around)
        else:
            of_steps = step_noise(names, list(shapes.items()), self.model, seed, self.device)
            if clean is None:
                given = None if tokens is None else tokens.to(self.device)
                yield from trajectory(predict, self.levels, noise, asked, names, sampler, given, of_steps, around)
            else:
                x_t = noised(clean, noise, self.levels[0])
                yield from onwards(predict, self.levels, [x_t], asked, names, sampler, of_steps, around)

    def conditioning(self, names: Sequence[str]) -> dict[str, Tensor]:
        """What the conditional model is given beside latents, one row a name, to ask it again at stored states.

        Class tokens of models that denoise them are no part of it: they are stored with latents. Raises ValueError for
        a name that is no sample.
        """
        self._check(names)
        return self.conditions.of(names)

    def _predict(self, count: int) -> Predict:
        """The model's estimates, guided where there is a condition to leave out."""
        if self.conditions.null is None:
            return self.denoiser.predict
        return guided(self.denoiser.predict, self.conditions.none(count), self.settings.guidance)

    def _check(self, names: Sequence[str]) -> None:
        unknown = [name for name in names if name not in self.groups]
        if unknown or not names:
            raise ValueError(f"{len(unknown)} of {len(names)} names are no samples of this run: {first_five(unknown)}")


def prepare(recipe: Mapping[str, Any], files: Files, device: torch.device) -> Run:
    """Load what trajectories need, and check that the configuration fits the model before anything is made.

    recipe: ``model``, ``autoencoder`` and ``configuration``, as `Settings`. Raises CheckpointError for checkpoints that
    are not the recorded ones and an autoencoder without a decoder, StoreError for latents that are not of one square
    side, and ValueError for settings that the model cannot follow: a start, a sampler or scheduler, fewer than two
    steps, no samples, classes that it does not have.
    """
    model, decoder = Model.from_recipe(recipe["model"]), Model.from_recipe(recipe["autoencoder"])
    settings = Settings(**recipe["configuration"])
    if settings.start not in STARTS:
        raise ValueError(f"unknown start '{settings.start}'; allowed: {', '.join(STARTS)}")
    if settings.steps < 2:
        raise ValueError(f"{settings.steps} steps; dynamics need at least 2")
    checkpoint = verify(files.record, files.weights)
    of_decoder = verify(files.autoencoder_record, files.autoencoder_weights)
    # the decoder first: a pipeline without one is refused before the larger network is loaded
    loaded = models.load(decoder, files.autoencoder_weights, device, decoder=True)
    denoiser = models.load_denoiser(model, files.weights, device)
    latents, side = _latents(model, denoiser, decoder, files)
    if settings.start == "noise":
        asked = asked_from_noise(model, denoiser, settings.samples, settings.prompts, settings.classes)
    else:
        if denoiser.class_token_width is not None:
            raise ValueError(f"{model.name} has class tokens, which images of a start '{settings.start}' do not")
        images = read_manifest(files.manifest)
        check_same_names([image.name for image in images], sorted(latents), files.manifest, files.statistics.parent)
        asked = asked_of_images(model, denoiser, settings.samples, images, settings.prompts, settings.classes)
        taken = [image for image in images if image.name in asked.groups]
        check_same_classes(taken, checkpoint.get("classes"), model.name)
    conditions = conditioning(model, denoiser, asked, files.weights, device)
    table = None
    if settings.start == "noising" or settings.sampler in SAMPLERS:
        levels = _own_levels(denoiser, conditions, settings, side, device)
    else:
        table = _table(model, denoiser, conditions, settings, side)
        levels = list(table.levels)
    statistics = read_statistics(files.statistics)

    def decode(given: Tensor) -> Tensor:
        made = loaded.decode(unnormalised(given, statistics, model.latent_multiplier)).float()
        if made.shape[-1] != made.shape[-2]:
            raise ValueError(f"images of {made.shape[-2]} x {made.shape[-1]} pixels; dynamics need square ones")
        return made

    facts = {
        **denoiser.facts,
        "weights": checkpoint,
        "autoencoder_weights": of_decoder,
        "scheduler": None if table is None else _scheduler_facts(table),
        "torch": torch.__version__,
    }
    return Run(
        denoiser,
        decode,
        tuple(levels),
        asked.groups,
        facts,
        model=model.name,
        settings=settings,
        conditions=conditions,
        latents=latents,
        side=side,
        device=device,
        table=table,
    )


def _latents(model: Model, denoiser: Denoiser, decoder: Model, files: Files) -> tuple[Latents, int]:
    """Normalised latents of the data set, and their one side. Raises StoreError, or ValueError for other channels."""
    latents, folder = Latents(files.latents, files.statistics, model.latent_multiplier), files.statistics.parent
    if latents.channels != denoiser.latent_channels:
        raise ValueError(
            f"{model.name} makes latents of {denoiser.latent_channels} channels, but those of '{decoder.name}' have "
            f"{latents.channels}"
        )
    sides = sorted(set(latents.sides.values()))
    if len(sides) > 1:
        raise StoreError(f"{folder}: latents are of sides {', '.join(map(str, sides))}; trajectories are of one")
    _, height, width = latents[next(iter(latents))].shape
    if height != width:
        raise StoreError(f"{folder}: latents are {height} x {width}; dynamics need square images")
    if denoiser.only_side not in (None, width):
        raise ValueError(f"{model.name} reads latents of side {denoiser.only_side}, but those in {folder} are {width}")
    return latents, width


def _own_levels(
    denoiser: Denoiser, conditions: Conditioning, settings: Settings, side: int, device: torch.device
) -> list[NoiseLevel]:
    probe = {what: torch.zeros(1, *shape, device=device) for what, shape in noise_shapes(denoiser, side)}
    zeros = probe.pop("latents")
    first = first_level(denoiser, zeros, {**conditions.none(1), **probe})
    return levels_of(denoiser, settings.start, settings.steps, first, settings.strength)


def _table(model: Model, denoiser: Denoiser, conditions: Conditioning, settings: Settings, side: int) -> Timetable:
    sampler = settings.sampler
    if denoiser.scheduler is None or sampler is None:
        raise ValueError(
            f"{model.name}: family '{model.family}' has no scheduler of diffusers, so no sampler '{sampler}'; "
            f"allowed: {', '.join(SAMPLERS)}"
        )
    strength = settings.strength if settings.start == "img2img" else None
    if settings.start == "img2img" and (strength is None or not 0 < strength <= 1):
        raise ValueError(f"strength {strength}; expected t in (0, 1]")
    try:
        scheduler = denoiser.scheduler(
            settings.steps, side, conditions.none(1), None if sampler == PIPELINE else sampler
        )
        return timetable(scheduler, denoiser.level("t0").timestep, strength)
    except ValueError as error:
        raise ValueError(
            f"{model.name}, sampler '{sampler}': {error}; of every model: {', '.join(SAMPLERS)}, {PIPELINE}"
        ) from error


def _scheduler_facts(table: Timetable) -> dict[str, Any]:
    """Its class and configuration, as far as JSON has words for it."""
    config = {key: value for key, value in table.scheduler.config.items() if not key.startswith("_")}
    plain = {key: value for key, value in config.items() if isinstance(value, str | int | float | bool | None)}
    return {"class": type(table.scheduler).__name__, **dict(sorted(plain.items()))}
