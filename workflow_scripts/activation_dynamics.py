"""Activations at the stored states of trajectories: statistics, correlations with change, read-outs, and words."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffalign import logs, names
from diffalign.alignment.intervals import of_mean
from diffalign.devices import choose_device
from diffalign.dynamics import attention
from diffalign.dynamics.activations import MEASURES, check_finite, replaying, statistics, token_grid
from diffalign.dynamics.associations import associate, strata
from diffalign.dynamics.readouts import FOLDS, MAPS, Moments, exchanged, folds, token_maps
from diffalign.io import tables
from diffalign.io.atomic import read_settings_file
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.pooled_files import write_pooled
from diffalign.io.trajectory_files import CLASS_TOKENS, Trajectories, read_trajectories
from diffalign.offenders import first_five
from diffalign.sampling.runs import Files, Run, prepare
from diffalign.specs import Compute, Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Array = NDArray[np.float64]
Grid = tuple[int, int]

KIND = FileKind("a recipe of activations along trajectories", 1)
_CELL = {
    **dict.fromkeys(("model", "configuration", "layer"), "string"),
    **dict.fromkeys(("depth", "step"), "int64"),
    **dict.fromkeys(("t", "log_snr"), "float64"),
}
_BOUNDS = dict.fromkeys(("low", "high"), "float64")
_COUNTS = dict.fromkeys(("seeds", "samples"), "int64")
ACTIVATIONS = {**_CELL, "measure": "string", "mean": "float64", **_BOUNDS, **_COUNTS}
ASSOCIATIONS = {
    **_CELL,
    **dict.fromkeys(("activation", "feature"), "string"),
    **dict.fromkeys(("rho", "p", "p_family", "q"), "float64"),
    "n": "int64",
}
READOUTS = {**_CELL, "map": "string", "r2": "float64", **_BOUNDS, "shuffled": "float64", **_COUNTS}
ATTENTION = {**_CELL, **dict.fromkeys(("word", "measure"), "string"), "mean": "float64", **_BOUNDS, **_COUNTS}
# of a word's map: its mean, how spread it is, and its correlation with each map of the final image
OF_WORDS = ("share", "entropy", *MAPS)
_INTERVAL = (
    "over seeds of the noise, for this trained network and these prompts, classes or images; not over other trainings"
)


@dataclass(frozen=True)
class Settings:
    """words: of the prompts. permutations: of correlations. ridge: penalties of read-outs. seed: of permutations, folds
    and exchanged maps.
    """

    words: Sequence[str]
    permutations: int
    ridge: Sequence[float]
    seed: int


@dataclass(frozen=True, eq=False)
class Study:
    """A model and its trajectories, one folder a seed, ascending. layers: alias -> path, in order of depth.

    start: what trajectories begin with. widths: tokens and channels of each layer. grids: of its tokens, where they
    have one.
    """

    run: Run
    start: str
    seeds: Mapping[int, Trajectories]
    layers: Mapping[str, str]
    device: torch.device
    batch_size: int
    widths: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the samples of every seed, ascending."""
        return tuple(self.run.groups)

    @property
    def steps(self) -> range:
        """Those at which a sampler asks the model: all but the result."""
        return range(len(self.run.levels) - 1)

    def states(self, seed: int, step: int) -> Iterator[tuple[list[str], Tensor, dict[str, Tensor]]]:
        """Names, x_t and conditioning of one batch of a step after the other. A chunk is in memory at a time."""
        trajectories = self.seeds[seed]
        tensors = ["latents", *(each for each in trajectories.tensors if each == CLASS_TOKENS)]
        for chunk in trajectories.chunks(*tensors):
            for start in range(0, len(chunk.names), self.batch_size):
                rows = slice(start, start + self.batch_size)
                members = list(chunk.names[rows])
                at_step = {
                    key: torch.from_numpy(array[rows, step].copy()).to(self.device)
                    for key, array in chunk.arrays.items()
                }
                yield members, at_step.pop("latents"), {**self.run.conditioning(members), **at_step}


@dataclass(frozen=True, eq=False)
class Measured:
    """statistics: (A, L, S, N) of `MEASURES`, NaN where a layer has none; N are all samples, seed by seed.

    pooled: (step, layer) -> (N, D). r2: (step, layer) -> (R, 6), of each seed, `MAPS` and then the same exchanged.
    """

    statistics: Array
    pooled: dict[tuple[int, str], NDArray[np.float32]]
    r2: dict[tuple[int, str], Array]


def activation_dynamics(
    recipe: Path,
    files: Files,
    folders: Sequence[Path],
    measures: Path,
    settings: Settings,
    outputs: Mapping[str, Path],
    compute: Compute,
    threads: int = 1,
) -> None:
    """Run a model again at the stored states of its trajectories, with its conditioning and without guidance.

    recipe: what the trajectories are made by. folders: theirs, one a seed. measures: what their images measure.
    outputs: ``pooled``, ``recipe``, and ``activations``, ``associations``, ``readouts`` and ``attention`` (each
    ``_tsv`` and ``_parquet``). Steps are those at which the model was asked, so not the result.

    activations: means over samples with 95 % t intervals over seeds. associations: of each statistic of a layer at a
    step with the change of every measure of the decoded estimate to the next step, over samples; samples in strata of
    two or more count (`strata_of`). readouts: R² on held-out samples, a read-out for each seed, its mean and t interval
    over seeds; shuffled: the mean R² of maps that samples exchanged. Layers without a grid of tokens have none, nor
    have fewer than four samples. attention: of models that read prompts, the share that a word has, how spread it is,
    and its correlation over positions with maps of the final image; means over samples, intervals over seeds. samples:
    of each seed, but for n, which is of all. seeds: those that have a value, over which mean and interval are.

    Tokens are seen batch by batch. In memory are one batch of them, features of all steps and layers, and sums for
    read-outs of as many layers as compute.memory_mb holds; further layers take further passes. Raises StoreError for
    trajectories or measures of another recipe or other samples, and ValueError that names layer, step and samples where
    activations are NaN or infinite, and for a word that a prompt lacks.
    """
    content = read_settings_file(recipe)
    model = Model.from_recipe(content["model"])
    device = choose_device(compute.device)
    run = prepare(content, files, device)
    configuration = content["configuration"]
    seeds = _trajectories(folders, content, run)
    study = Study(run, configuration["start"], seeds, model.layers, device, compute.batch_size)
    words = _words(study, settings.words, configuration["prompts"] or (), files.weights)
    changes = _changes(measures, study)
    study = probed(study)
    made = measured(study, settings, compute.memory_mb * 2**20, threads)
    identity = {
        "model": names.checkpoint_name(model.name, content["model"].get("step")),
        "configuration": configuration["name"],
    }
    found = {
        "activations": tables.frame(_activations(study, made, identity), ACTIVATIONS),
        "associations": tables.frame(_associations(study, made, changes, settings, identity), ASSOCIATIONS),
        "readouts": tables.frame(_readouts(study, made, identity), READOUTS),
        "attention": tables.frame(_attention(study, words, identity), ATTENTION),
    }
    for name, table in found.items():
        tables.write(table, outputs[f"{name}_tsv"], outputs[f"{name}_parquet"])
    facts = {
        **{key: value for key, value in content.items() if key != "format"},
        **run.facts,
        "seeds": list(study.seeds),
        "samples": len(study.names),
        "layers": dict(study.layers),
        "grids": {layer: list(grid) for layer, grid in study.grids.items()},
        "settings": asdict(settings),
        "read_out_folds": "groups" if FOLDS <= len(set(run.groups.values())) < len(run.groups) else "samples",
        "interval": _INTERVAL if len(study.seeds) > 1 else "none: an interval over seeds needs at least two",
    }
    groups = {f"{seed}/{name}": group for seed in study.seeds for name, group in run.groups.items()}
    write_pooled(outputs["pooled"], made.pooled, groups, list(study.layers), run.levels, facts)
    KIND.write_json(outputs["recipe"], **facts)


def _trajectories(folders: Sequence[Path], content: Mapping[str, Any], run: Run) -> dict[int, Trajectories]:
    """Trajectories by seed, ascending. Raises StoreError for those of another recipe, samples or noise levels."""
    found = {int(each.recipe["seed"]): each for each in map(read_trajectories, folders)}
    if len(found) < max(1, len(folders)):
        raise StoreError(f"{len(folders)} folders of trajectories are of {len(found)} seeds")
    for each in found.values():
        other = [key for key in ("model", "autoencoder", "configuration") if each.recipe[key] != content[key]]
        if (each.names, each.groups) != (tuple(run.groups), tuple(run.groups.values())):
            other.append("samples")
        if each.levels != run.levels:
            other.append("noise levels")
        if other:
            raise StoreError(f"{each.folder}: of other {', '.join(other)} than asked for; delete the folder and rerun")
    return dict(sorted(found.items()))


def _changes(path: Path, study: Study) -> tuple[list[str], Array]:
    """Measures of the decoded estimate, and their change (F, S, N) from each step to the next.

    Raises StoreError for other samples or steps than those of the trajectories.
    """
    keys = ["seed", "sample", "step", "measure", "value"]
    chosen = [("of", "==", "x0"), ("domain", "==", "images")]
    table = pd.read_parquet(path, columns=keys, filters=chosen)
    features = [str(feature) for feature in table["measure"].unique()]
    samples = pd.MultiIndex.from_product([list(study.seeds), study.names], names=["seed", "sample"])
    states = pd.MultiIndex.from_product([features, range(len(study.run.levels))], names=["measure", "step"])
    wide = table.pivot(index=["measure", "step"], columns=["seed", "sample"], values="value")
    if not features or set(wide.columns) != set(samples) or set(wide.index) != set(states):
        raise StoreError(f"{path}: measures are of other samples or steps than the trajectories; delete it and rerun")
    values = wide.reindex(index=states, columns=samples).to_numpy(np.float64)
    return features, np.diff(values.reshape(len(features), len(study.run.levels), len(samples)), axis=1)


def probed(study: Study) -> Study:
    """The study with tokens, channels and grids of its layers, by one pass over one sample."""
    _, x_t, conditioning = next(study.states(next(iter(study.seeds)), 0))
    one = {key: values[:1] for key, values in conditioning.items()}
    with replaying(study.run.denoiser, study.layers) as replay:
        tokens = replay(x_t[:1], study.run.levels[0], one)
    widths = {layer: (each.shape[1], each.shape[2]) for layer, each in tokens.items()}
    grids = {layer: token_grid(count, *x_t.shape[2:]) for layer, (count, _) in widths.items()}
    without = [layer for layer, grid in grids.items() if grid is None]
    if without:
        logs.log.info("layers without a grid of tokens, and so without read-outs: %s", first_five(without))
    if len(study.names) < FOLDS:
        logs.log.warning("%d samples of a seed are too few for read-outs, which need %d", len(study.names), FOLDS)
    return replace(study, widths=widths, grids={layer: grid for layer, grid in grids.items() if grid is not None})


def measured(study: Study, settings: Settings, memory: float, threads: int) -> Measured:
    """Statistics, pooled features and read-outs of every seed, step and layer. memory: bytes of sums for read-outs."""
    count, layers = len(study.names), list(study.layers)
    shape = len(MEASURES), len(layers), len(study.steps), len(study.seeds) * count
    made = Measured(np.full(shape, np.nan), {}, {})
    row_of = {name: row for row, name in enumerate(study.names)}
    parts = _in_parts(study, memory)
    passes = [(row, part, step) for row in range(len(study.seeds)) for part in parts for step in study.steps]
    reads = len(study.names) >= FOLDS
    fold = folds(study.names, list(study.run.groups.values()), settings.seed) if reads else np.empty(0, np.int64)
    maps: dict[Grid, Tensor] = {}
    of_seed = -1
    for number, part, step in logs.progress(passes, len(passes), "steps"):
        seed = list(study.seeds)[number]
        if number != of_seed and reads:
            maps, of_seed = _maps(study, seed, settings.seed), number
        moments = {
            layer: Moments(*study.widths[layer], 2 * len(MAPS), study.device)
            for layer in part
            if reads and layer in study.grids
        }
        with replaying(study.run.denoiser, {layer: study.layers[layer] for layer in part}) as replay:
            for members, x_t, conditioning in study.states(seed, step):
                rows = np.array([row_of[name] for name in members])
                columns = number * count + rows
                for layer, tokens in replay(x_t, study.run.levels[step], conditioning).items():
                    check_finite(tokens, layer, step, members)
                    for measure, values in statistics(tokens, study.grids.get(layer), threads).items():
                        place = MEASURES.index(measure), layers.index(layer), step
                        made.statistics[(*place, columns)] = values
                    pooled = tokens.mean(dim=1, dtype=torch.float32).cpu().numpy()
                    held = made.pooled.setdefault((step, layer), np.empty((shape[3], pooled.shape[1]), np.float32))
                    held[columns] = pooled
                    if layer in moments:
                        moments[layer].add(tokens, maps[study.grids[layer]][rows], fold[rows])
        for layer, sums in moments.items():
            r2 = made.r2.setdefault((step, layer), np.full((len(study.seeds), 2 * len(MAPS)), np.nan))
            r2[number] = sums.held_out(settings.ridge)
    return made


def _maps(study: Study, seed: int, key: int) -> dict[Grid, Tensor]:
    """Maps of the final images of a seed, and the same exchanged among its samples: grid -> (N, T, 6)."""
    other = exchanged(study.names, key)
    found = token_maps(study.seeds[seed].final_images(), set(study.grids.values()))
    return {
        grid: torch.from_numpy(np.concatenate([maps, maps[other]], axis=2)).to(study.device)
        for grid, maps in found.items()
    }


def _in_parts(study: Study, memory: float) -> list[list[str]]:
    """Layers in order, in parts whose sums for read-outs take so many bytes, or single ones that take more."""
    parts: list[list[str]] = [[]]
    taken = 0
    for layer in study.layers:
        size = Moments.size(*study.widths[layer]) if layer in study.grids else 0
        if parts[-1] and taken + size > memory:
            parts.append([])
            taken = 0
        parts[-1].append(layer)
        taken += size
    return parts


@dataclass(frozen=True)
class Words:
    """Query words, and where they stand in the prompt of each sample: name -> positions of each."""

    words: tuple[str, ...]
    positions: Mapping[str, Sequence[Sequence[int]]]


def _words(study: Study, words: Sequence[str], texts: Sequence[str], weights: Path) -> Words | None:
    """Words of a model that reads prompts by attention that is known here; None where there are none.

    Raises ValueError for a word that a prompt lacks, and where images have several prompts.
    """
    prompts = list(dict.fromkeys(texts))
    if not words or not prompts or not attention.cross_attentions(study.run.denoiser.module):
        return None
    found = attention.text_positions(weights, prompts, words)
    if study.start == "noise":
        prompt_of = dict(study.run.groups)
    elif len(prompts) == 1:
        prompt_of = dict.fromkeys(study.names, prompts[0])
    else:
        raise ValueError(f"words of {len(prompts)} prompts: trajectories that start from images have words of one")
    return Words(tuple(words), {name: [found[prompt, word] for word in words] for name, prompt in prompt_of.items()})


def _cells(study: Study, identity: Mapping[str, str], layer: str, depth: int, step: int) -> dict[str, Any]:
    level = study.run.levels[step]
    return {**identity, "layer": layer, "depth": depth, "step": step, "t": level.t, "log_snr": level.log_snr}


def _over_seeds(values: Array) -> dict[str, float]:
    """Mean and t interval over the seeds (R,) that have a value, and how many have one."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return {**dict.fromkeys(("mean", "low", "high"), np.nan), "seeds": 0}
    mean, interval = of_mean(defined)
    return {"mean": float(mean), "low": float(interval.low), "high": float(interval.high), "seeds": len(defined)}


def _activations(study: Study, made: Measured, identity: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    of_seeds = made.statistics.reshape(*made.statistics.shape[:3], len(study.seeds), -1).mean(axis=4)
    for depth, layer in enumerate(study.layers):
        for step in study.steps:
            for measure, values in zip(MEASURES, of_seeds[:, depth, step], strict=True):
                if np.isfinite(values).all():
                    cell = _cells(study, identity, layer, depth, step)
                    yield {**cell, "measure": measure, **_over_seeds(values), "samples": len(study.names)}


def strata_of(study: Study) -> list[str]:
    """The stratum of every sample, seed by seed. Samples of a model that is conditioned on nothing are of one group."""
    groups = study.run.groups
    same = study.start == "noise" and all(name == group for name, group in groups.items())
    seeds = [seed for seed in study.seeds for _ in groups]
    return strata(seeds, (["all"] * len(groups) if same else list(groups.values())) * len(study.seeds))


def _associations(
    study: Study, made: Measured, changes: tuple[Sequence[str], Array], settings: Settings, identity: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Rows of the measures that any layer has; cells that are undefined are missing."""
    within = strata_of(study)
    there = np.flatnonzero(~np.isnan(made.statistics).all(axis=(1, 2, 3)))
    features, change = changes
    found = associate(made.statistics[there], change, within, settings.permutations, settings.seed)
    if not found.samples:
        logs.log.warning("no two samples are of one class, prompt or image, so correlations are undefined")
    for depth, layer in enumerate(study.layers):
        for step in study.steps:
            cell = _cells(study, identity, layer, depth, step)
            for a, f in np.ndindex(len(there), len(features)):
                values = {key: getattr(found, key)[a, f, depth, step] for key in ("rho", "p", "p_family", "q")}
                yield {
                    **cell,
                    "activation": MEASURES[there[a]],
                    "feature": features[f],
                    **values,
                    "n": found.samples,
                }


def _readouts(study: Study, made: Measured, identity: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for depth, layer in enumerate(study.layers):
        for step in study.steps:
            if (step, layer) not in made.r2:
                continue
            r2 = made.r2[step, layer]
            for i, each in enumerate(MAPS):
                over = _over_seeds(r2[:, i])
                yield {
                    **_cells(study, identity, layer, depth, step),
                    "map": each,
                    "r2": over.pop("mean"),
                    **over,
                    "shuffled": _over_seeds(r2[:, len(MAPS) + i])["mean"],
                    "samples": len(study.names),
                }


def _attention(study: Study, words: Words | None, identity: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of words, in the order in which attention is called: under the layer of the entry that it is a part of, else
    under its module path.
    """
    if words is None:
        return
    found = of_words(study, words)
    paths = list(dict.fromkeys(path for path, _ in found))
    for depth, path in enumerate(paths):
        alias = [layer for layer, whole in study.layers.items() if path.startswith(f"{whole}.")]
        for step in study.steps:
            cell = _cells(study, identity, alias[0] if alias else path, depth, step)
            for w, word in enumerate(words.words):
                for m, measure in enumerate(OF_WORDS):
                    over = _over_seeds(found[path, step][:, w, m])
                    yield {**cell, "word": word, "measure": measure, **over, "samples": len(study.names)}


def of_words(study: Study, words: Words) -> dict[tuple[str, int], Array]:
    """(module path, step) -> (R, W, 5), of each seed and word the mean over samples of `OF_WORDS`.

    Samples whose maps have no correlation, since one is constant, are left out of its mean; NaN where all are.
    """
    found: dict[tuple[str, int], Array] = {}
    passes = [(row, seed, step) for row, seed in enumerate(study.seeds) for step in study.steps]
    maps: dict[Grid, Array] = {}
    of_seed = -1
    row_of = {name: row for row, name in enumerate(study.names)}
    for number, seed, step in logs.progress(passes, len(passes), "words"):
        if number != of_seed:
            maps, of_seed = {}, number
        values: dict[str, list[Array]] = {}
        for members, x_t, conditioning in study.states(seed, step):
            tokens = conditioning["prompt_embeds"].shape[1]
            marked = attention.marks([words.positions[name] for name in members], tokens, study.device)
            with torch.no_grad(), attention.shares(study.run.denoiser.module, marked) as caught:
                study.run.denoiser.run(x_t, study.run.levels[step], conditioning)
            rows = [row_of[name] for name in members]
            for path, shares in caught.items():
                grid = token_grid(shares.shape[2], *x_t.shape[2:])
                if grid is not None and grid not in maps:
                    maps |= token_maps(study.seeds[seed].final_images(), {grid})
                values.setdefault(path, []).append(_of_maps(shares, None if grid is None else maps[grid][rows]))
        for path, parts in values.items():
            joined = np.concatenate(parts)
            defined = np.isfinite(joined)
            sums = np.where(defined, joined, 0).sum(axis=0)
            means = np.divide(sums, defined.sum(axis=0), out=np.full_like(sums, np.nan), where=defined.any(axis=0))
            empty = np.full((len(study.seeds), *means.shape), np.nan)
            found.setdefault((path, step), empty)[number] = means
    return found


def _of_maps(shares: Array, maps: Array | None) -> Array:
    """`OF_WORDS` (B, W, 5) of shares (B, W, T) beside maps (B, T, 3) of the final images, if tokens have a grid."""
    correlations = np.full((*shares.shape[:2], len(MAPS)), np.nan)
    if maps is not None:
        for i in range(len(MAPS)):
            correlations[..., i] = attention.correlations(shares, maps[:, None, :, i])
    alone = np.stack([shares.mean(axis=2), attention.entropy(shares)], axis=2)
    return np.concatenate([alone, correlations], axis=2)


def _paths(given: str | Collection[str]) -> list[Path]:
    """One file or several, as Snakemake gives them."""
    return [Path(path) for path in ([given] if isinstance(given, str) else given)]


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "activation_dynamics"):
        torch.set_num_threads(snakemake.threads)
        given, params, resources = snakemake.input, snakemake.params, snakemake.resources
        files = Files(
            *(Path(given.weights), Path(given.record)),
            *(Path(given.autoencoder_weights), Path(given.autoencoder_record)),
            tuple(_paths(given.latents)),
            *(Path(given.statistics), Path(given.manifest)),
        )
        activation_dynamics(
            Path(given.recipe),
            files,
            _paths(given.trajectories),
            Path(given.measures),
            Settings(list(params.words), params.permutations, list(params.ridge), params.seed),
            {key: Path(path) for key, path in snakemake.output.items()},
            # a quarter of the job's memory is for sums of read-outs
            Compute(resources.device, resources.batch_size, workers=0, memory_mb=resources.mem_mb // 4),
            snakemake.threads,
        )
