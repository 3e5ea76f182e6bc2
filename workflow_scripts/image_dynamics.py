"""Frequencies and features of x_t and x̂0 at every step of trajectories, and when each of them has settled."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs, names
from diffalign.alignment.intervals import of_mean
from diffalign.dynamics import measures, orders, times
from diffalign.dynamics.features import learned_distance
from diffalign.dynamics.measures import Measured, Measuring
from diffalign.dynamics.spectra import error_spectrum, noise_floor
from diffalign.extraction.readers import OpenReader, Reader
from diffalign.io import tables
from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.trajectory_files import Chunk, Trajectories, read_trajectories
from diffalign.noise import NoiseLevel
from diffalign.offenders import first_five
from diffalign.specs import Compute

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Array = NDArray[np.float64]

KIND = FileKind("a recipe of frequencies and features along trajectories", 1)
# what is measured -> its tensors in both domains
STATES = {"x_t": {"latents": "latents", "images": "images"}, "x0": {"latents": "x0", "images": "x0_images"}}
# the estimate of the image, of which times are
ESTIMATE = "x0"
ERROR = "error"
# values of states that are measured at a time, a few dozen images of 256²: what bounds the memory of a thread
_BLOCK = 2**22
LEARNED = "learned_distance"
# of float32: what is more is infinite
LARGEST = float(np.finfo(np.float32).max)
# kinds of measures -> the family that is put in order, and the statistics of their times
FAMILIES = {"band": "bands", "wavelet": "wavelets"}
_STATISTICS = {"emergence": times.emergence, "half_rise": times.half_rise, "stabilisation": times.stabilisation}

_MODEL = dict.fromkeys(("model", "configuration"), "string")
_STEP = {"step": "int64", **dict.fromkeys(("t", "log_snr"), "float64")}
_MEASURE = dict.fromkeys(("domain", "kind", "measure"), "string")
_BOUNDS = dict.fromkeys(("low", "high"), "float64")
_COUNTS = dict.fromkeys(("seeds", "samples"), "int64")
CURVES = {**_MODEL, **_STEP, "of": "string", **_MEASURE, "mean": "float64", **_BOUNDS, **_COUNTS}
SPECTRA = {
    **_MODEL,
    **_STEP,
    **dict.fromkeys(("of", "domain"), "string"),
    **dict.fromkeys(("frequency", "power", "floor"), "float64"),
}
TIMES = {
    **_MODEL,
    **_MEASURE,
    "statistic": "string",
    "t": "float64",
    **_BOUNDS,
    **dict.fromkeys(("log_snr", "step", "spread"), "float64"),
    **_COUNTS,
}
SEED_TIMES = {**_MODEL, **_MEASURE, "statistic": "string", "seed": "int64", "t": "float64", "samples": "int64"}
ORDER = {
    **_MODEL,
    **dict.fromkeys(("domain", "family", "statistic", "measures"), "string"),
    "kendalls_w": "float64",
    **dict.fromkeys(("first", "second"), "string"),
    "difference": "float64",
    **_BOUNDS,
    "p": "float64",
    **_COUNTS,
}
INTERVAL = (
    "over seeds of the noise, for this trained network and these prompts, classes or images; not over other trainings"
)
AGREEMENT = (
    "over samples, each with noise of its own and dealt over the prompts, classes or images of the configuration, of "
    "this trained network"
)


@dataclass(frozen=True, eq=False)
class Series:
    """What was measured of all samples of the seeds, in the order of `names`.

    values: (of, domain, measure) -> (R, N, S+1) of R seeds. power: (of, domain) -> (S+1, K), means over seeds and
    samples; of also ``error``. frequencies: domain -> (K,), cycles per pixel.
    """

    seeds: tuple[int, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    levels: tuple[NoiseLevel, ...]
    values: Mapping[tuple[str, str, str], Array]
    power: Mapping[tuple[str, str], Array]
    frequencies: Mapping[str, Array]

    @property
    def t(self) -> Array:
        """Of every state."""
        return np.array([level.t for level in self.levels])


def image_dynamics(
    folders: Sequence[Path],
    reference: Reader | None,
    measuring: Measuring,
    seed: int,
    outputs: Mapping[str, Path],
    compute: Compute,
    threads: int = 1,
) -> None:
    """Measure trajectories of one model and configuration, one folder a seed, and write tables and a recipe.

    reference: whose features give ``learned_distance``. seed: of permutations. outputs: ``measures`` (Parquet),
    ``seed_times`` (Parquet), ``curves``, ``spectra``, ``times`` and ``order`` (each ``_tsv`` and ``_parquet``), and
    ``recipe``. No result depends on threads or on chunks; a chunk is held at a time, of one tensor.

    measures: seed, sample, group, step, of (x_t or x0), domain (latents or images), measure, value; features are of x0
    alone, decoded. curves: means over
    samples with 95 % t intervals over seeds; log-SNR is infinite at both ends. samples: of each seed.

    spectra: of x_t, x0 and error (x0 less the result), means over seeds and samples. floor, of latents alone, is the
    power of white noise that the schedule gives: of x_t that of its noise, σ²; of x0 and error that of x_t / α taken as
    the estimate, σ² / α², missing where α is 0.

    times, of x0: t at which bands and wavelets reach the final value within 10 % (emergence) and reach half of it
    (half_rise), and from which slope and features stay within 10 % of their largest distance from the final value
    (stabilisation); t, its interval over seeds, log-SNR at it, the mean step, and spread, the standard deviation over
    all samples. seed_times: the mean t of each seed.

    order: of bands, wavelets and features, one row of agreement, with measures in order of appearance, Kendall's W over
    all samples and its permutation p, and a row for every two of them, t of the first less t of the second, paired by
    seed.

    Raises ValueError where seeds have other samples or levels than each other, and that names tensor, step and samples
    where values are NaN, infinite, or images outside of [0, 1].
    """
    seeds = {_seed(each): each for each in map(read_trajectories, folders)}
    if len(seeds) < len(folders):
        raise ValueError(f"seeds repeat: {', '.join(str(_seed(read_trajectories(folder))) for folder in folders)}")
    if not seeds:
        raise ValueError("no trajectories to measure")
    _check_alike(list(seeds.values()))
    first = next(iter(seeds.values()))
    if len(first.levels) < 3:
        raise ValueError(f"{first.folder}: one step from noise to image; what emerges needs at least two")
    reader = None if reference is None else OpenReader(reference, compute)
    series = measured(seeds, measuring, reader, threads)
    model = names.checkpoint_name(first.recipe["model"]["name"], first.recipe["model"].get("step"))
    identity = {"model": model, "configuration": first.recipe["configuration"]["name"]}
    settled = dict(_settled(series))
    made = {
        "curves": tables.frame(_curves(series, identity), CURVES),
        "spectra": tables.frame(_spectra(series, identity), SPECTRA),
        "times": tables.frame(_times(series, settled, identity), TIMES),
        "order": tables.frame(_order(series, settled, seed, identity), ORDER),
    }
    for name, table in made.items():
        tables.write(table, outputs[f"{name}_tsv"], outputs[f"{name}_parquet"])
    write_parquet(tables.frame(_seed_times(series, settled, identity), SEED_TIMES), outputs["seed_times"])
    write_parquet(long_form(series), outputs["measures"])
    KIND.write_json(
        outputs["recipe"],
        trajectories=dict(first.recipe),
        seeds=list(series.seeds),
        samples=len(series.names),
        levels=[level.facts() for level in series.levels],
        measuring=asdict(measuring),
        reference=None if reader is None else reader.facts,
        seed=seed,
        interval=INTERVAL if len(series.seeds) > 1 else "none: an interval over seeds needs at least two",
        kendalls_w=AGREEMENT,
        versions={name: version(name) for name in ("numpy", "scipy", "scikit-image", "pywavelets")},
    )


def _seed(trajectories: Trajectories) -> int:
    return int(trajectories.recipe["seed"])


def _check_alike(seeds: Sequence[Trajectories]) -> None:
    """Raise StoreError for seeds of other samples, noise levels, models or configurations than the first."""
    first = seeds[0]
    for other in seeds[1:]:
        if (other.names, other.groups) != (first.names, first.groups):
            there, here = (set(zip(each.names, each.groups, strict=True)) for each in (other, first))
            differ = sorted({name for name, _ in there ^ here})
            raise StoreError(f"{other.folder} has other samples than {first.folder}: {first_five(differ)}")
        if other.levels != first.levels:
            raise StoreError(f"{other.folder} has other noise levels than {first.folder}; delete it and rerun")
        for key in ("model", "configuration"):
            if other.recipe[key] != first.recipe[key]:
                raise StoreError(f"{other.folder} is of another {key} than {first.folder}; delete it and rerun")


def measured(
    seeds: Mapping[int, Trajectories], measuring: Measuring, reader: OpenReader | None, threads: int
) -> Series:
    """Measure every state of every sample, one tensor of one chunk after the other. Seeds have the same samples."""
    first = next(iter(seeds.values()))
    shape = len(seeds), len(first.names), len(first.levels)
    values: dict[tuple[str, str, str], Array] = {}
    power: dict[tuple[str, str], Array] = {}
    frequencies: dict[str, Array] = {}
    passes = list(itertools.product(enumerate(sorted(seeds)), STATES, ("latents", "images")))
    with ThreadPoolExecutor(threads) as pool:
        for (row, seed), of, domain in logs.progress(passes, len(passes), "tensors of states"):
            tensor, at = STATES[of][domain], 0
            for chunk in seeds[seed].chunks(tensor):
                units = list(_units(chunk, tensor))
                measure = partial(_measured, chunk, tensor, first.levels, of, domain, measuring)
                # units are spread over threads, and nothing within them
                with threadpool_limits(1):
                    made = list(pool.map(measure, units))
                for (sample, states), (found, spectra) in zip(units, made, strict=True):
                    for name, each in found.values.items():
                        key = of, domain, name
                        values.setdefault(key, np.full(shape, np.nan))[row, at + sample, states] = each
                    frequencies[domain] = found.frequencies
                    for name, each in spectra.items():
                        total = power.setdefault((name, domain), np.zeros((shape[2], each.shape[1])))
                        total[states] += each / (shape[0] * shape[1])
                if reader is not None and domain == "images" and of == ESTIMATE:
                    key = of, domain, LEARNED
                    rows = slice(at, at + len(chunk.names))
                    values.setdefault(key, np.full(shape, np.nan))[row, rows] = learned_distances(
                        reader, chunk.arrays[tensor]
                    )
                at += len(chunk.names)
    return Series(tuple(sorted(seeds)), first.names, first.groups, first.levels, values, power, frequencies)


def _units(chunk: Chunk, tensor: str) -> Iterator[tuple[int, slice]]:
    """Samples, and states of each, that are measured at a time, whatever the chunk holds."""
    count, states = chunk.arrays[tensor].shape[:2]
    size = max(1, _BLOCK // int(np.prod(chunk.arrays[tensor].shape[2:])))
    for sample in range(count):
        for begin in range(0, states, size):
            yield sample, slice(begin, min(begin + size, states))


def _measured(
    chunk: Chunk,
    tensor: str,
    levels: Sequence[NoiseLevel],
    of: str,
    domain: str,
    measuring: Measuring,
    unit: tuple[int, slice],
) -> tuple[Measured, dict[str, Array]]:
    """Some states of one sample: measures, and power (n, K) of them and, for the estimate, of its error."""
    sample, states = unit
    whole = chunk.arrays[tensor][sample]
    block, final = _single(whole[states]), _single(whole[-1:])
    lowest, highest = (0, 1) if domain == "images" else (-LARGEST, LARGEST)
    # NaN is in no range
    bad = [not (state.min() >= lowest and state.max() <= highest) for state in block]
    if any(bad):
        step = states.start + bad.index(True)
        allowed = "in [0, 1]" if domain == "images" else "finite"
        raise ValueError(
            f"{tensor} of {chunk.names[sample]} are not {allowed} at step {step} of {len(whole) - 1}, "
            f"t = {levels[step].t:.3f}"
        )
    if domain == "latents":
        found = measures.of_latents(block, measuring)
    elif of == ESTIMATE:
        found = measures.of_images(block, final[0], measuring)
    else:
        found = measures.frequencies_of_images(block, measuring)
    if domain == "images":
        block, final = measures.planes(block), measures.planes(final)
    spectra = {of: found.power}
    if of == ESTIMATE:
        _, spectra[ERROR] = error_spectrum(block, np.broadcast_to(final, block.shape), measuring.window)
    return found, spectra


def _single(states: NDArray[np.floating]) -> NDArray[np.float32]:
    """As float32. torch converts float16 ten times as fast as NumPy."""
    return np.asarray(torch.from_numpy(states).float().numpy())


def learned_distances(reader: OpenReader, states: NDArray[np.floating]) -> Array:
    """1 - cos of the features of every state and of the last, (n, S+1), of images (n, S+1, H, W, 3)."""
    made = []
    for of_sample in states:
        bytes_of = np.rint(of_sample.astype(np.float32) * 255).astype(np.uint8)
        features = reader.features({f"{step:06d}": image for step, image in enumerate(bytes_of)})
        made.append(learned_distance(features, np.broadcast_to(features[-1:], features.shape)))
    return np.stack(made)


def long_form(series: Series) -> pd.DataFrame:
    """One row a value: seed, sample, group, step, of, domain, measure, value. Words are categories."""
    shape = len(series.seeds), len(series.names), len(series.levels)
    cells = int(np.prod(shape))
    row, sample, step = (each.ravel() for each in np.indices(shape, np.int32))
    keys = list(series.values)
    groups = sorted(set(series.groups))
    group = np.array([groups.index(each) for each in series.groups])
    words = {}
    for column, name in enumerate(("of", "domain", "measure")):
        known = sorted({key[column] for key in keys})
        words[name] = _words(np.repeat([known.index(key[column]) for key in keys], cells), known)
    return pd.DataFrame(
        {
            "seed": np.tile(np.array(series.seeds, np.int64)[row], len(keys)),
            "sample": _words(np.tile(sample, len(keys)), series.names),
            "group": _words(np.tile(group[sample], len(keys)), groups),
            "step": np.tile(step.astype(np.int64), len(keys)),
            **words,
            "value": np.concatenate([series.values[key].ravel() for key in keys]),
        }
    )


def _words(codes: NDArray[np.integer], known: Sequence[str]) -> "pd.Categorical[str]":
    return pd.Categorical.from_codes(codes, pd.Index(list(known), dtype="str"))


def write_parquet(table: pd.DataFrame, path: Path) -> None:
    """Write a table that has no text beside it, since it is large or an input of other jobs alone."""
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def _named(domain: str, measure: str) -> dict[str, str]:
    return {"domain": domain, "kind": measures.kind(measure), "measure": measure}


def _states(series: Series) -> list[dict[str, Any]]:
    return [{"step": step, "t": level.t, "log_snr": level.log_snr} for step, level in enumerate(series.levels)]


def _counts(series: Series) -> dict[str, int]:
    return {"seeds": len(series.seeds), "samples": len(series.names)}


def _curves(series: Series, identity: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for (of, domain, measure), values in series.values.items():
        mean, interval = of_mean(values.mean(axis=1))
        for step, state in enumerate(_states(series)):
            yield {
                **identity,
                **state,
                "of": of,
                **_named(domain, measure),
                "mean": mean[step],
                "low": interval.low[step],
                "high": interval.high[step],
                **_counts(series),
            }


def _spectra(series: Series, identity: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for (of, domain), power in series.power.items():
        floors = noise_floor(series.levels, "x_t" if of == "x_t" else ERROR)
        for step, state in enumerate(_states(series)):
            floor = floors[step] if domain == "latents" else None
            for frequency, each in zip(series.frequencies[domain], power[step], strict=True):
                spectrum = {"of": of, "domain": domain, "frequency": frequency, "power": each, "floor": floor}
                yield {**identity, **state, **spectrum}


def _settled(series: Series) -> Iterator[tuple[tuple[str, str, str], Array]]:
    """(domain, measure, statistic) -> t (R, N), of the estimate."""
    for (of, domain, measure), values in series.values.items():
        if of == ESTIMATE:
            flat = values.reshape(-1, values.shape[2])
            statistics = ("emergence", "half_rise") if measures.kind(measure) in FAMILIES else ("stabilisation",)
            for statistic in statistics:
                found = _STATISTICS[statistic](flat, series.t)
                yield (domain, measure, statistic), found.reshape(values.shape[:2])


def _times(
    series: Series, settled: Mapping[tuple[str, str, str], Array], identity: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for (domain, measure, statistic), found in settled.items():
        mean, interval = of_mean(found.mean(axis=1))
        # t falls, and np.interp wants what rises
        steps = np.interp(-found, -series.t, np.arange(len(series.t)))
        t = float(mean)
        yield {
            **identity,
            **_named(domain, measure),
            "statistic": statistic,
            "t": t,
            "low": float(interval.low),
            "high": float(interval.high),
            "log_snr": NoiseLevel(1 - t, t, t).log_snr,
            "step": steps.mean(),
            "spread": found.std(ddof=1),
            **_counts(series),
        }


def _seed_times(
    series: Series, settled: Mapping[tuple[str, str, str], Array], identity: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for (domain, measure, statistic), found in settled.items():
        for seed, t in zip(series.seeds, found.mean(axis=1), strict=True):
            named = {**_named(domain, measure), "statistic": statistic}
            yield {**identity, **named, "seed": seed, "t": t, "samples": len(series.names)}


def _order(
    series: Series, settled: Mapping[tuple[str, str, str], Array], seed: int, identity: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Agreement and contrasts of every family of each domain and statistic."""
    families: dict[tuple[str, str, str], dict[str, Array]] = {}
    for (domain, measure, statistic), found in settled.items():
        kind = measures.kind(measure)
        if kind != measures.SLOPE:
            families.setdefault((domain, FAMILIES.get(kind, "features"), statistic), {})[measure] = found
    samples = [f"{seed}/{name}" for seed in series.seeds for name in series.names]
    for (domain, family, statistic), of_measures in families.items():
        where = {**identity, "domain": domain, "family": family, "statistic": statistic}
        every = np.stack([found.ravel() for found in of_measures.values()], axis=1)
        agreement = orders.kendalls_w(every, samples, seed)
        yield {
            **where,
            "measures": orders.order(every, list(of_measures)),
            "kendalls_w": agreement.w,
            "p": agreement.p,
            **_counts(series),
        }
        of_seeds = {
            measure: dict(zip(series.seeds, map(float, found.mean(axis=1)), strict=True))
            for measure, found in of_measures.items()
        }
        for contrast in orders.contrasts(of_seeds):
            yield {**where, **asdict(contrast), "samples": len(series.names)}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "image_dynamics"):
        torch.set_num_threads(snakemake.threads)
        given, params, resources = dict(snakemake.input.items()), snakemake.params, snakemake.resources
        reference = None
        if params.reference_layer is not None:
            recipe, weights, record = (Path(given[f"reference_{key}"]) for key in ("recipe", "weights", "record"))
            reference = Reader(recipe, weights, record, params.reference_layer)
        folders = given["trajectories"]
        image_dynamics(
            [Path(folder) for folder in ([folders] if isinstance(folders, str) else folders)],
            reference,
            Measuring.from_parameters(params.measuring),
            params.seed,
            {key: Path(path) for key, path in snakemake.output.items()},
            Compute(resources.device, resources.batch_size, workers=0),
            snakemake.threads,
        )
