"""The didactic study of a shared space: easy and hard pairs of sets, what each method makes of them, and the claims."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment.intervals import of_mean
from diffalign.io import tables
from diffalign.io.atomic import replacing, write_arrays
from diffalign.shared_space import linear_maps, toy
from diffalign.shared_space.half_shared import HalfShared, Problem, fit_problems, targets
from diffalign.shared_space.pairing import pairing
from diffalign.shared_space.toy import Aligned, ByAffinity, Fit, Toy

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

Array = NDArray[np.float64]

UNALIGNED, FIXED, AUTO = "unaligned", "rbf", "rbf_auto"
# the same with distances as the published code computes them
CDIST = {FIXED: "rbf_cdist", AUTO: "rbf_auto_cdist"}
# the isotropic case with few landmarks, as a case of its own
LANDMARKS = "landmarks"
LANDMARK_CHOICES = ("last", "farthest", "kmeans", "random")
# what the half-shared encoders learn -> target and number of random classes; of this case
TARGETS: Mapping[str, tuple[str, int]] = {
    "half_shared_labels": ("labels", 2),
    "half_shared_index": ("index", 2),
    "half_shared_random_3": ("random", 3),
    "half_shared_random_10": ("random", 10),
    "half_shared_permuted_index": ("permuted_index", 2),
}
TRAINED = "anisotropic"
# ridge of baselines, a multiple of the mean eigenvalue: enough for sets that lie on a line
_RIDGE = 1e-6
# scores of a fit; merging is of the affinity of both sets together
SCORES = ("own_cluster", "own_index", "merging")

_WHAT = dict.fromkeys(("case", "method"), "string")
SUMMARY = {
    **_WHAT,
    **{f"{score}{bound}": "float64" for score in SCORES for bound in ("", "_low", "_high")},
    **dict.fromkeys(("gamma_x", "gamma_y"), "float64"),
    "seeds": "int64",
}
SEEDS = {**_WHAT, "seed": "int64", **dict.fromkeys((*SCORES, "gamma_x", "gamma_y"), "float64")}
CLAIMS = {
    "claim": "string",
    "statement": "string",
    "score": "string",
    **dict.fromkeys(("first", "second"), "string"),
    **dict.fromkeys(("first_mean", "second_mean", "difference", "low", "high"), "float64"),
    "expected": "string",
    "holds": "boolean",
    "seeds": "int64",
}


def _procrustes(of: Toy, seed: int) -> Aligned:
    first, second = linear_maps.fit_procrustes(of.x, of.y)
    return Aligned(first.apply(of.x), second.apply(of.y))


def _cca(of: Toy, seed: int) -> Aligned:
    first, second = linear_maps.fit_cca(of.x, of.y, 2, _RIDGE)
    return Aligned(first.apply(of.x), second.apply(of.y))


def _ridge(of: Toy, seed: int) -> Aligned:
    first, second = linear_maps.fit_ridge(of.x, of.y, _RIDGE)
    return Aligned(first.apply(of.x), second.apply(of.y))


def _relative(of: Toy, seed: int) -> Aligned:
    first, second = linear_maps.fit_relative(of.x, of.y, range(len(of.x)))
    return Aligned(first.apply(of.x), second.apply(of.y))


# baselines, which see which points belong together, as all methods here do
BASELINES: Mapping[str, Fit] = {"procrustes": _procrustes, "cca": _cca, "ridge": _ridge, "relative": _relative}


@dataclass(frozen=True)
class Claim:
    """A statement of the study about the difference of a score, first less second, each (case, method); second may be a
    number. expected: ``above 0``, ``0`` in every seed, or ``not above 0``.
    """

    name: str
    statement: str
    score: str
    first: tuple[str, str]
    second: tuple[str, str] | float
    expected: str = "above 0"


def _rescued(case: str, words: str) -> list[Claim]:
    """That auto-scaling brings out pairs in a case: against a fixed γ, and against chance."""
    clusters = 1 / toy.CLUSTERS
    return [
        Claim(
            f"auto_scaling_{case}",
            f"auto-scaling raises the pairing of clusters above γ = 1 {words}",
            "own_cluster",
            (case, AUTO),
            (case, FIXED),
        ),
        Claim(
            f"auto_scaling_{case}_index",
            f"auto-scaling raises the pairing of points above γ = 1 {words}",
            "own_index",
            (case, AUTO),
            (case, FIXED),
        ),
        _shown(case, words),
        Claim(
            f"pairs_{case}",
            f"after auto-scaling, clusters pair better than by chance {words}",
            "own_cluster",
            (case, AUTO),
            clusters,
        ),
    ]


def _shown(case: str, words: str, expected: str = "above 0") -> Claim:
    return Claim(
        f"pairs_show_{case}",
        f"auto-scaling sets clusters apart in the affinity of both sets, where γ = 1 lets them melt {words}",
        "merging",
        (case, FIXED),
        (case, AUTO),
        expected,
    )


def _merged(choice: str, scale: str, words: str) -> Claim:
    return Claim(
        f"last_merge_more_than_{choice}{'' if scale == FIXED else '_auto'}",
        f"the last five points as landmarks merge clusters, where {choice} landmarks do not ({words})",
        "merging",
        (LANDMARKS, f"{scale}_last"),
        (LANDMARKS, f"{scale}_{choice}"),
    )


def _learned(first: str, second: str) -> Claim:
    names = [f"half_shared_{name}" for name in (first, second)]
    words = [name.replace("_", " ") for name in (first, second)]
    return Claim(
        f"{first}_beats_{second}",
        f"half-shared encoders that learn {words[0]} pair points better than with {words[1]}",
        "own_index",
        (TRAINED, names[0]),
        (TRAINED, names[1]),
    )


CLAIMED: Sequence[Claim] = (
    Claim(
        "isotropic",
        "shift, rotation and isotropic scale: all points pair (γ = 1)",
        "own_index",
        ("isotropic", FIXED),
        1.0,
        "0",
    ),
    Claim(
        "isotropic_auto",
        "shift, rotation and isotropic scale: all points pair (auto-scaling)",
        "own_index",
        ("isotropic", AUTO),
        1.0,
        "0",
    ),
    *[
        _merged(choice, scale, words)
        for scale, words in ((FIXED, "γ = 1"), (AUTO, "auto-scaling"))
        for choice in ("farthest", "kmeans")
    ],
    *_rescued("outliers", "with two outliers"),
    *_rescued("anisotropic", "with scales of 1/4 and 4"),
    *_rescued("strongly_anisotropic", "with a scale of 1/1000"),
    *_rescued("network_4", "after a random network of 4 layers"),
    Claim(
        "lost_network_12",
        "after a random network of 12 layers, auto-scaling pairs clusters no better than chance",
        "own_cluster",
        ("network_12", AUTO),
        1 / toy.CLUSTERS,
        "not above 0",
    ),
    Claim(
        "lost_network_12_cdist",
        "the same with the float32 distances of the published code",
        "own_cluster",
        ("network_12", CDIST[AUTO]),
        1 / toy.CLUSTERS,
        "not above 0",
    ),
    _shown("network_12", "after a random network of 12 layers", "not above 0"),
    Claim(
        "network_4_beats_12",
        "after auto-scaling, clusters pair better after 4 random layers than after 12",
        "own_cluster",
        ("network_4", AUTO),
        ("network_12", AUTO),
    ),
    _learned("index", "random_3"),
    _learned("permuted_index", "random_3"),
    _learned("random_10", "random_3"),
    _learned("index", "random_10"),
    _learned("permuted_index", "random_10"),
    _learned("index", "labels"),
    _learned("permuted_index", "labels"),
)


def didactic_alignment(
    seeds: Sequence[int],
    c: float,
    landmarks: int,
    settings: HalfShared,
    outputs: Mapping[str, Path],
    extra: Mapping[str, Fit] | None = None,
) -> None:
    """Align both sets of every case by every method, for every seed, and write scores, claims and what figures show.

    seeds: of blobs, networks, landmarks and trainings; 0 is the published set of points. c: the mean affinity that
    auto-scaling reaches. landmarks: number of them in the case ``landmarks``. settings: of half-shared encoders, but
    for their targets. extra: further methods by name, for all cases but ``landmarks``.

    outputs: ``summary_tsv`` and ``summary_parquet``, a row a case and method, with means and 95 % t intervals over
    seeds; ``seeds``, Parquet, a row a seed; ``claims_tsv`` and ``claims_parquet``, a row a statement with the paired
    difference over seeds, its t interval, and whether it came out as expected: ``above 0`` holds where the whole
    interval is, ``not above 0`` where it is not, and ``0`` where all seeds have 0; missing where there is one seed and
    no interval; ``arrays``, npz of the first seed: ``points/case`` (2, N, 2), ``affinity/case/method`` (2N, 2N) of both
    sets in the shared space, ``landmarks/case/method`` where not all points are, and ``clusters`` (N,).

    Raises ValueError for seeds that repeat or none, and what methods raise, with case, method and seed.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {', '.join(map(str, seeds))}: at least one, each once")
    rows: list[dict[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for case, method, seed, of, aligned in _fits(seeds, c, landmarks, settings, extra or {}):
        affinity = toy.stacked_affinity(aligned.x_new, aligned.y_new)
        found = pairing(aligned.x_new, aligned.y_new, of.clusters)
        scores = {**asdict(found), "merging": toy.merging(affinity, of.clusters)}
        gammas = {"gamma_x": aligned.gamma_x, "gamma_y": aligned.gamma_y}
        rows.append({"case": case, "method": method, "seed": seed, **scores, **gammas})
        if seed == seeds[0]:
            arrays[f"points/{case}"] = np.stack([of.x, of.y])
            arrays[f"affinity/{case}/{method}"] = affinity.astype(np.float32)
            arrays["clusters"] = of.clusters
            if aligned.landmarks is not None:
                arrays[f"landmarks/{case}/{method}"] = aligned.landmarks
    by_seed = tables.frame(rows, SEEDS)
    values: dict[tuple[str, str], dict[str, Array]] = {}
    for key, table in by_seed.groupby(["case", "method"], sort=False):
        case, method = map(str, key)
        values[case, method] = {name: table[name].to_numpy(dtype=np.float64) for name in list(SEEDS)[3:]}
    tables.write(tables.frame(_summary(values), SUMMARY), outputs["summary_tsv"], outputs["summary_parquet"])
    tables.write(
        tables.frame([judged(claim, values) for claim in CLAIMED], CLAIMS),
        outputs["claims_tsv"],
        outputs["claims_parquet"],
    )
    with replacing(outputs["seeds"]) as temporary:
        by_seed.to_parquet(temporary, index=False)
    write_arrays(outputs["arrays"], arrays)


def _fits(
    seeds: Sequence[int], c: float, landmarks: int, settings: HalfShared, extra: Mapping[str, Fit]
) -> Iterator[tuple[str, str, int, Toy, Aligned]]:
    """Case, method, seed, both sets, and both in the shared space."""
    affine: dict[str, Fit] = {UNALIGNED: toy.unaligned, FIXED: ByAffinity(None), AUTO: ByAffinity(c)}
    everywhere = {**affine, **BASELINES, **extra}
    few: dict[str, Fit] = {
        f"{name}_{choice}": ByAffinity(mean, choice, landmarks)
        for choice in LANDMARK_CHOICES
        for name, mean in ((FIXED, None), (AUTO, c))
    }
    of_cases: dict[str, dict[str, Fit]] = dict.fromkeys(toy.SECOND_SETS, everywhere)
    for case in ("network_4", "network_12"):
        of_cases[case] = {
            **everywhere,
            CDIST[FIXED]: ByAffinity(None, cdist=True),
            CDIST[AUTO]: ByAffinity(c, cdist=True),
        }
    # float32 leaves some of its points at their mean, where they have no direction
    del of_cases["network_12"]["relative"]
    of_cases[LANDMARKS] = {UNALIGNED: toy.unaligned, **few}
    for case, methods in of_cases.items():
        toys = {seed: toy.toy("isotropic" if case == LANDMARKS else case, seed) for seed in seeds}
        for method, fit in methods.items():
            for seed, of in toys.items():
                try:
                    yield case, method, seed, of, fit(of, seed)
                except ValueError as error:
                    raise ValueError(f"{case}, {method}, seed {seed}: {error}") from error
    yield from _trained(seeds, settings)


def _trained(seeds: Sequence[int], settings: HalfShared) -> Iterator[tuple[str, str, int, Toy, Aligned]]:
    """Half-shared encoders of every target and seed, which are trained together."""
    toys = {seed: toy.toy(TRAINED, seed) for seed in seeds}
    keys, problems = [], []
    for method, (target, classes) in TARGETS.items():
        own = replace(settings, target=target, random_classes=classes)
        for seed, of in toys.items():
            keys.append((method, seed))
            problems.append(Problem(of.x, of.y, targets(own, of.names, of.clusters, seed), seed))
    for (method, seed), (first, second) in zip(keys, fit_problems(problems, settings), strict=True):
        of = toys[seed]
        yield TRAINED, method, seed, of, Aligned(first.apply(of.x), second.apply(of.y))


def _summary(values: Mapping[tuple[str, str], Mapping[str, Array]]) -> Iterator[dict[str, Any]]:
    for (case, method), of_fit in values.items():
        row: dict[str, Any] = {"case": case, "method": method}
        for score in SCORES:
            mean, interval = of_mean(of_fit[score])
            row |= {score: float(mean), f"{score}_low": float(interval.low), f"{score}_high": float(interval.high)}
        row |= {gamma: float(of_fit[gamma].mean()) for gamma in ("gamma_x", "gamma_y")}
        yield {**row, "seeds": len(of_fit["own_index"])}


def judged(claim: Claim, values: Mapping[tuple[str, str], Mapping[str, Array]]) -> dict[str, Any]:
    """The row of a claim. values: (case, method) -> score -> (seeds,), paired by seed."""
    first = values[claim.first][claim.score]
    second = values[claim.second][claim.score] if isinstance(claim.second, tuple) else np.full_like(first, claim.second)
    mean, interval = of_mean(first - second)
    if claim.expected == "0":
        holds: bool | None = bool((first == second).all())
    elif np.isnan(interval.low):
        holds = None
    else:
        holds = bool(interval.low > 0) == (claim.expected == "above 0")
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "score": claim.score,
        "first": "/".join(claim.first),
        "second": "/".join(claim.second) if isinstance(claim.second, tuple) else f"{claim.second:.4g}",
        "first_mean": float(first.mean()),
        "second_mean": float(second.mean()),
        "difference": float(mean),
        "low": float(interval.low),
        "high": float(interval.high),
        "expected": claim.expected,
        "holds": holds,
        "seeds": len(first),
    }


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "didactic_alignment"), threadpool_limits(1):
        # sets are tiny: a second thread would wait for the first
        torch.set_num_threads(1)
        params = snakemake.params
        didactic_alignment(
            params.seeds,
            params.c,
            params.landmarks,
            HalfShared(**params.half_shared),
            {key: Path(path) for key, path in snakemake.output.items()},
        )
