"""What layers contribute to the images of one model and configuration: the change of the result without them."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffalign import logs, names
from diffalign.alignment.trainings import mean_over_trainings
from diffalign.devices import choose_device
from diffalign.dynamics import interventions
from diffalign.dynamics.features import FEATURES, features
from diffalign.dynamics.interventions import LeftOut, Means, Target, Window
from diffalign.dynamics.spectra import BANDS, Bands, band_energies
from diffalign.io import tables
from diffalign.io.atomic import read_settings_file
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.trajectory_files import Trajectories, first_of_groups, read_trajectories
from diffalign.offenders import first_five, flagged
from diffalign.sampling.runs import Files, Run, prepare
from diffalign.sampling.trajectories import Around
from diffalign.specs import Compute, Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Array = NDArray[np.float64]
Images = NDArray[np.float32]

KIND = FileKind("a recipe of contributions of layers", 1)
COLUMNS = {
    **dict.fromkeys(("model", "configuration", "layer"), "string"),
    "depth": "int64",
    "part": "string",
    **dict.fromkeys(("window", "first_step", "last_step"), "int64"),
    **dict.fromkeys(("t_from", "t_to"), "float64"),
    **dict.fromkeys(("method", "measure"), "string"),
    **dict.fromkeys(("effect", "low", "high", "size", "change", "sd"), "float64"),
    **dict.fromkeys(("seeds", "samples"), "int64"),
}
# features that compare an image with the result
OF_TWO = ("shape_ssim", "shape_iou", "color_distance", "ssim", "psnr")
# the variance that rounding to 8 bits adds to an image: energies of bands below it are not seen
FLOOR = 1 / 255**2 / 12
# a standard deviation below this share of the largest value is rounding
_CONSTANT = 1e-9
# of means over samples that are held at a time
_MEANS_BYTES = 2**30
INTERVAL = "over seeds of the noise, for this trained network and these prompts, classes or images"


@dataclass(frozen=True)
class Ablations:
    """What is removed. windows: that the steps are cut into. samples: of each seed. parts, methods: of
    `diffalign.dynamics.interventions`.
    """

    windows: int
    samples: int
    parts: tuple[str, ...]
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Removal:
    """A target, the steps without it, and what stands in its place."""

    target: Target
    window: Window
    method: str


@dataclass(frozen=True, eq=False)
class Measured:
    """What removals change. removals: R of them. left_out: what cannot be removed. changes: measure -> (R, seeds,
    samples), without the target less with it. scales: measure -> the standard deviation that `effect` is in units of.
    """

    removals: tuple[Removal, ...]
    left_out: tuple[LeftOut, ...]
    changes: Mapping[str, Array]
    scales: Mapping[str, float]


def contributions(
    recipe: Path,
    files: Files,
    folders: Sequence[Path],
    ablations: Ablations,
    bands: Bands,
    outputs: Mapping[str, Path],
    compute: Compute,
) -> None:
    """Run the sampler again without each layer or part, in each window of steps, and write what the results show.

    recipe: JSON of the configuration. folders: its trajectories, one a seed. outputs: ``contributions_tsv``,
    ``contributions_parquet`` and ``recipe``. A row is of a removal and a measure; t_from and t_to are the noise levels
    before the first and after the last step of its window. The measures are the logarithm of each band's energy
    (``energy_low`` …), to which `FLOOR` is added, and the features of `diffalign.dynamics.features` that need no model,
    beside the result with the layer.

    change: mean over samples and seeds of the measure without the layer less that with it, in its own unit. sd: of the
    measure over all unablated samples; of features that compare two images, the root mean square change by the result
    of another sample of the seed in the place of its own, over √2, which is the same where there is one image alone.
    effect: change / sd, with the 95 % t interval over seeds. size: root mean square change / sd. Both are missing where
    sd is 0: no sample differs from another, so there is nothing to compare a change with.

    Raises ValueError for a configuration without a sampler (`noising`), where images become NaN or infinite, and as
    `interventions.targets`; StoreError for trajectories of another configuration.
    """
    content = read_settings_file(recipe)
    if content["configuration"]["start"] == "noising":
        raise ValueError("noising makes no images, so no layer contributes to them")
    model = Model.from_recipe(content["model"])
    stored = [read_trajectories(folder) for folder in folders]
    seeds = _seeds(stored, content, recipe)
    run = prepare(content, files, choose_device(compute.device))
    members = spread(run.groups, ablations.samples)
    measured = measured_removals(run, model.layers, list(seeds), members, ablations, bands, compute.batch_size)
    identity = {
        "model": names.checkpoint_name(model.name, content["model"].get("step")),
        "configuration": content["configuration"]["name"],
    }
    table = tables.frame(({**identity, **row} for row in table_rows(measured, run)), COLUMNS)
    tables.write(table, outputs["contributions_tsv"], outputs["contributions_parquet"])
    KIND.write_json(
        outputs["recipe"],
        trajectories={**stored[0].recipe, "seed": None},
        seeds=list(seeds),
        samples=members,
        ablations=asdict(ablations),
        bands=asdict(bands),
        floor=FLOOR,
        left_out=[asdict(each) for each in measured.left_out],
        interval=INTERVAL if len(seeds) > 1 else "none: an interval over seeds needs at least two",
        torch=torch.__version__,
    )


def _seeds(stored: Sequence[Trajectories], content: Mapping[str, Any], recipe: Path) -> dict[int, Trajectories]:
    """Seed -> its trajectories, ascending. Raises StoreError for those of another configuration."""
    for each in stored:
        for key in ("model", "configuration"):
            if each.recipe[key] != content[key]:
                raise StoreError(f"{each.folder} is of another {key} than {recipe}; delete it and rerun")
    return {int(each.recipe["seed"]): each for each in sorted(stored, key=lambda each: int(each.recipe["seed"]))}


def spread(groups: Mapping[str, str], count: int) -> list[str]:
    """The first `count` samples, dealt over their groups in turn: the first of each group, then the second of each.

    groups: name -> group. Raises ValueError where there are fewer.
    """
    if not 1 <= count <= len(groups):
        raise ValueError(f"ablations of {count} samples, but each seed has {len(groups)}")
    return first_of_groups(list(groups), list(groups.values()), count)


def measured_removals(
    run: Run,
    layers: Mapping[str, str],
    seeds: Sequence[int],
    members: Sequence[str],
    ablations: Ablations,
    bands: Bands,
    batch_size: int,
) -> Measured:
    """Run all removals of all seeds. layers: alias -> module path, by depth. members: names of the samples.

    Means are over all samples of a seed, in a pass of their own for as many targets as fit into `_MEANS_BYTES`.
    """
    steps = len(run.levels) - 1
    windows = interventions.windows(steps, ablations.windows)
    found, left_out = interventions.targets(
        run.denoiser, layers, ablations.parts, lambda: _first_calls(run, members[:1], seeds[0])
    )
    for each in left_out:
        logs.log.info("%s (%s) is not removed: %s", each.layer, each.part, each.reason)
    removals = [Removal(t, w, method) for method in ablations.methods for t in found for w in windows]
    logs.log.info("%d removals of %d samples of %d seeds", len(removals), len(members), len(seeds))
    changes: dict[str, Array] = {}
    progress = logs.progress(iter(range(len(seeds) * len(removals))), len(seeds) * len(removals), "contributions")
    base = results(run, members, seeds, batch_size)
    own = [measures(each, each, bands) for each in base]
    others = [measures(np.roll(each, 1, axis=0), each, bands) for each in base]
    # means are of one seed, and nothing else depends on it
    for method, at in _together(ablations.methods, len(seeds)):
        places = [place for place, removal in enumerate(removals) if removal.method == method]
        entered = _all_entered(run, seeds[at.start], [removals[place] for place in places], batch_size)
        for place, around in zip(places, entered, strict=True):
            try:
                images = results(run, members, seeds[at], batch_size, around)
            except ValueError as error:
                target, window = removals[place].target, removals[place].window
                where = f"{target.layer} ({target.part}) in steps {window.first} to {window.last}"
                raise ValueError(f"without {where}, {method}: {error}") from error
            for number, made in zip(range(len(seeds))[at], images, strict=True):
                next(progress, None)
                for measure, values in measures(made, base[number], bands).items():
                    grid = changes.setdefault(measure, np.empty((len(removals), len(seeds), len(members))))
                    grid[place, number] = values - own[number][measure]
    scales = {measure: _scale(measure, own, others) for measure in changes}
    return Measured(tuple(removals), tuple(left_out), changes, scales)


def _together(methods: Sequence[str], count: int) -> Iterator[tuple[str, slice]]:
    """Each method, and which of so many seeds are sampled in one batch."""
    for method in methods:
        size = 1 if method == "mean" else count
        yield from ((method, slice(first, first + size)) for first in range(0, count, size))


def _first_calls(run: Run, members: Sequence[str], seed: int) -> None:
    """Make the calls of the first step, and those that the second begins with: a state is given after its estimate."""
    states = run.states(members, seed)
    next(states)
    next(states)


def _all_entered(run: Run, seed: int, removals: Sequence[Removal], batch_size: int) -> Iterator[Around]:
    """What is entered around the steps of each removal, in their order. seed: of means."""
    means: Means | None = None
    held: set[Target] = set()
    for place, removal in enumerate(removals):
        if removal.method == "mean" and removal.target not in held:
            rest = dict.fromkeys(each.target for each in removals[place:] if each.method == "mean")
            group = _fitting(list(rest), len(run.levels) - 1)
            means, held = _recorded(run, seed, group, batch_size), set(group)
        yield interventions.around(
            run.denoiser, removal.target, removal.window, means if removal.method == "mean" else None
        )


def _fitting(targets: Sequence[Target], steps: int) -> list[Target]:
    """The first targets whose means fit into the memory, at least one."""
    group: list[Target] = []
    held = 0
    for target in targets:
        held += 8 * target.size * steps
        if group and held > _MEANS_BYTES:
            break
        group.append(target)
    return group


def _recorded(run: Run, seed: int, group: Sequence[Target], batch_size: int) -> Means:
    """Means of targets over all samples of a seed, at every step of an unablated run."""
    means = Means(run.denoiser, group)
    members = sorted(run.groups)
    logs.log.info("means of %d targets over %d samples of seed %d", len(group), len(members), seed)
    for start in range(0, len(members), batch_size):
        for _ in run.states(members[start : start + batch_size], seed, means.recording):
            pass
    return means


def results(
    run: Run, members: Sequence[str], seeds: Sequence[int], batch_size: int, around: Around | None = None
) -> Images:
    """The decoded results (R, N, H, W, 3) float32 in [0, 1] of R seeds. Raises ValueError that names samples that are
    NaN.
    """
    parts = []
    rows = [(name, seed) for seed in seeds for name in members]
    for start in range(0, len(rows), batch_size):
        batch = [name for name, _ in rows[start : start + batch_size]]
        (last,) = deque(run.states(batch, [seed for _, seed in rows[start : start + batch_size]], around), maxlen=1)
        images = run.decode(last.latents).permute(0, 2, 3, 1).cpu().numpy()
        bad = ~np.asarray(np.isfinite(images).reshape(len(images), -1).all(axis=1))
        if bad.any():
            step = len(run.levels) - 1
            raise ValueError(f"images are NaN or infinite at step {step}, for {first_five(flagged(batch, bad))}")
        parts.append(images.astype(np.float32))
    made = np.concatenate(parts)
    return made.reshape(len(seeds), len(members), *made.shape[1:])


def measures(images: Images, final: Images, bands: Bands) -> dict[str, Array]:
    """Logarithms of energies of bands, and features: measure -> (N,)."""
    energies = band_energies(np.moveaxis(images, -1, 1), bands, "none")
    found = {f"energy_{band}": np.log(energies[:, i] + FLOOR) for i, band in enumerate(BANDS)}
    return {**found, **features(images, final, bands)}


def _scale(measure: str, own: Sequence[Mapping[str, Array]], others: Sequence[Mapping[str, Array]]) -> float:
    """The standard deviation of a measure over unablated samples; NaN where it is 0, or of one sample.

    own, others: of each seed, measures of results beside themselves, and of the result of another sample beside them.
    """
    values = np.concatenate([each[measure] for each in own])
    if measure in OF_TWO:
        moved = np.concatenate([each[measure] for each in others]) - values
        sd = float(np.sqrt(np.square(moved).mean() / 2))
    else:
        sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return sd if sd > _CONSTANT * max(1.0, float(np.abs(values).max())) else float("nan")


def table_rows(measured: Measured, run: Run) -> Iterator[dict[str, Any]]:
    """A row a removal and measure, with the columns of `COLUMNS` but model and configuration."""
    order = [
        measure for measure in chain((f"energy_{band}" for band in BANDS), FEATURES) if measure in measured.changes
    ]
    for place, removal in enumerate(measured.removals):
        target, window = removal.target, removal.window
        for measure in order:
            changes, sd = measured.changes[measure][place], measured.scales[measure]
            of_seeds = changes.mean(axis=1)
            effect = None if np.isnan(sd) else mean_over_trainings(of_seeds / sd)
            yield {
                "layer": target.layer,
                "depth": target.depth,
                "part": target.part,
                "window": window.number,
                "first_step": window.first,
                "last_step": window.last,
                "t_from": run.levels[window.first].t,
                "t_to": run.levels[window.last + 1].t,
                "method": removal.method,
                "measure": measure,
                **({} if effect is None else {"effect": effect.value, "low": effect.low, "high": effect.high}),
                "size": float(np.sqrt(np.square(changes).mean())) / sd,
                "change": float(of_seeds.mean()),
                "sd": 0.0 if np.isnan(sd) else sd,
                "seeds": changes.shape[0],
                "samples": changes.shape[1],
            }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "contributions"):
        torch.set_num_threads(snakemake.threads)
        given, params, resources = snakemake.input, snakemake.params, snakemake.resources
        asked = params.ablations
        contributions(
            Path(given.recipe),
            Files(
                Path(given.weights),
                Path(given.record),
                Path(given.autoencoder_weights),
                Path(given.autoencoder_record),
                tuple(Path(shard) for shard in given.latents),
                Path(given.statistics),
                Path(given.manifest),
            ),
            [Path(folder) for folder in given.trajectories],
            Ablations(asked["windows"], asked["samples"], tuple(asked["parts"]), tuple(asked["methods"])),
            Bands(**params.measuring["bands"]),
            {key: Path(path) for key, path in snakemake.output.items()},
            Compute(resources.device, resources.batch_size, workers=0),
        )
