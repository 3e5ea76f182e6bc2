"""Time the metrics and dense published formulas in one run; print ratios and peak memory.

python benchmarks/alignment.py pairs --count 1000 5000      one pair of layers, metric by metric
python benchmarks/alignment.py grid                         24 x 28 layers, N = 10,000: lists, factors, matrices, nulls
python benchmarks/alignment.py pair --count 50000           one pair at a large N, every stage

References implement the definitions of Huh et al. 2024 as in their code: N x N kernels, full argsorts, and N³ products
of which only sums are used. ``sensible`` has no N³ products. Every measurement runs in its own process; peak memory is
that of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

K, EPS = 10, 1e-6
EIGHT = ("cycle_knn", "mutual_knn", "lcs_knn", "edit_distance_knn", "cknna", "cka", "unbiased_cka", "svcca")
WIDTHS = {"a": 1024, "b": 1152}
DEPTHS = {"a": 24, "b": 28}


def layer(side: str, depth: int, count: int, width: int) -> NDArray[np.float32]:
    """Features of one layer of a synthetic model. Both models share the images; deeper layers keep less of them."""
    images = np.random.default_rng(0).standard_normal((count, 64), dtype=np.float32) * np.exp(-np.arange(64) / 20)
    own = np.random.default_rng([1 + (side == "b"), depth])
    mixed = images @ own.standard_normal((64, width)) / 8
    noise = (0.15 + 0.05 * depth) * own.standard_normal((count, width), dtype=np.float32)
    return np.asarray(np.tanh(mixed) + noise, np.float32)


def published(metric: str, a: Any, b: Any, dense: bool) -> float:
    """One metric of two tensors (N, D) of unit rows, by N x N kernels. dense: with the N³ products as published."""
    import torch

    def lists(rows: Any) -> Any:
        return (rows @ rows.T).fill_diagonal_(-1e8).argsort(dim=1, descending=True)[:, :K]

    def total(k: Any, other: Any) -> Any:
        return (k @ other).sum() if dense else k.sum(dim=0) @ other.sum(dim=1)

    def unbiased(k: Any, other: Any) -> Any:
        m = len(k)
        k, other = k.clone().fill_diagonal_(0), other.clone().fill_diagonal_(0)
        second = k.sum() * other.sum() / ((m - 1) * (m - 2))
        return ((k * other.T).sum() + second - 2 * total(k, other) / (m - 2)) / (m * (m - 3))

    def biased(k: Any, other: Any) -> Any:
        if dense:
            h = torch.eye(len(k)) - 1 / len(k)
            return torch.trace(k @ h @ other @ h)
        return ((k - k.mean(dim=0)) * (other - other.mean(dim=0)).T).sum()

    def mask(kernel: Any) -> Any:
        top = kernel.clone().fill_diagonal_(-torch.inf).topk(K, dim=1).indices
        return torch.zeros_like(kernel).scatter_(1, top, 1)

    def masked(k: Any, other: Any) -> Any:
        both = mask(k) * mask(other)
        return unbiased(both * k, both * other)

    if metric == "svcca":
        return _published_svcca(a, b)
    if metric in ("cka", "unbiased_cka", "cknna"):
        hsic = {"cka": biased, "unbiased_cka": unbiased, "cknna": masked}[metric]
        k, other = a @ a.T, b @ b.T
        return float(hsic(k, other) / (torch.sqrt(hsic(k, k) * hsic(other, other)) + EPS))
    first, second = lists(a), lists(b)
    if metric == "mutual_knn":
        masks = [torch.zeros(len(a), len(a)).scatter_(1, side, 1) for side in (first, second)]
        return float((masks[0] * masks[1]).sum() / (len(a) * K))
    if metric == "cycle_knn":
        return float((first[second] == torch.arange(len(a))[:, None, None]).flatten(1).any(dim=1).float().mean())
    step = _common_length if metric == "lcs_knn" else _edits
    values = [step(x, y) for x, y in zip(first.tolist(), second.tolist(), strict=True)]
    return float(np.mean(values)) if metric == "lcs_knn" else 1 - float(np.mean(values)) / K


def _published_svcca(a: Any, b: Any) -> float:
    import torch
    from sklearn.cross_decomposition import CCA

    vectors = []
    for rows in (a, b):
        standardised = rows - rows.mean(dim=0)
        vectors.append(torch.svd_lowrank(standardised / (standardised.std(dim=0) + 1e-8), q=10)[0].numpy())
    variates = CCA(n_components=10).fit(*vectors).transform(*vectors)
    return float(np.mean([np.corrcoef(variates[0][:, i], variates[1][:, i])[0, 1] for i in range(10)]))


def _common_length(x: list[int], y: list[int]) -> int:
    table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
    for i, one in enumerate(x, 1):
        for j, other in enumerate(y, 1):
            same = table[i - 1][j - 1] + 1
            table[i][j] = same if one == other else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def _edits(x: list[int], y: list[int]) -> int:
    before = list(range(len(y) + 1))
    for i, one in enumerate(x, 1):
        now = [i]
        for j, other in enumerate(y, 1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (one != other)))
        before = now
    return before[-1]


def run_reference(given: argparse.Namespace) -> dict[str, Any]:
    """One metric of one pair of layers by a reference."""
    import torch

    from diffalign.alignment.preparation import unit_rows

    torch.set_num_threads(given.threads)
    names = [str(i) for i in range(given.count)]
    a, b = (
        torch.from_numpy(unit_rows(layer(side, depth, given.count, WIDTHS[side]), names))
        for side, depth in zip("ab", given.layers, strict=True)
    )
    (a[:64] @ a[:64].T).sum()
    started = time.perf_counter()
    value = published(given.metric, a, b, given.mode == "published")
    return {"value": value, "seconds": time.perf_counter() - started}


def run_ours(given: argparse.Namespace) -> dict[str, Any]:
    """One metric of one pair of layers, with its lists, factors and products."""
    from diffalign.alignment.arrays import array_layer
    from diffalign.alignment.metrics import Settings, measure_grid

    names = [str(i) for i in range(given.count)]
    features = [layer(side, depth, given.count, WIDTHS[side]) for side, depth in zip("ab", given.layers, strict=True)]
    layers = [array_layer(side, names, K) for side in features]
    measure_grid([given.metric], *([array_layer(side[:64], names[:64], K)] for side in features), Settings(K))
    started = time.perf_counter()
    value = measure_grid([given.metric], layers[:1], layers[1:], Settings(K, EPS))[given.metric][0, 0]
    return {"value": float(value), "seconds": time.perf_counter() - started}


def write_study(folder: Path, count: int, depths: dict[str, int], widths: dict[str, int]) -> None:
    """Write the feature files of both sides, in the format of an extraction, and the settings."""
    from diffalign.io.feature_files import LAYERS, Features, write_features
    from diffalign.provenance import file_sha256

    names = tuple(f"{i:07d}" for i in range(count))
    for side, depth in depths.items():
        made = {}
        for i in range(depth):
            path = folder / side / f"b{i}.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            recipe = {"bundle": side, "model": {"name": side}, "layer": f"b{i}", "module": f"blocks.{i}"}
            write_features(path, Features(layer(side, i, count, widths[side]), names, recipe))
            made[f"b{i}"] = {"sha256": file_sha256(path)}
        LAYERS.write_json(folder / f"{side}.json", layers=made)
    (folder / "alignment.json").write_text(json.dumps({"k": K, "eps": EPS, "rbf_sigma": 1}))


def run_stage(given: argparse.Namespace) -> dict[str, Any]:
    """One job of the workflow: neighbors, factors, align_layers or calibrate_layers."""
    import align_layers
    import calibrate_layers
    import factors
    import neighbors
    from diffalign.alignment.settings import Preparation
    from diffalign.io import recipes
    from diffalign.io.sides import Files

    folder, metrics = Path(given.folder), given.metrics
    drawing = {"permutations": given.permutations, "alpha": 0.05, "seed": 0, "split_selection": False}
    (folder / "calibration.json").write_text(json.dumps(drawing))
    sides = [Files(folder / f"{s}.npz", folder / f"{s}.json", folder / f"{s}_factors.npz") for s in "ab"]
    files = (sides[0], sides[1])
    matrices = folder / "matrices.npz"
    started = time.perf_counter()
    if given.stage == "neighbors":
        search = neighbors.Search("cpu", 500, given.threads)
        for side in "ab":
            neighbors.neighbors(folder / f"{side}.json", given.k_max, Preparation(), folder / f"{side}.npz", search)
    elif given.stage == "factors":
        for side in "ab":
            factors.factors(folder / f"{side}.npz", folder / f"{side}.json", folder / f"{side}_factors.npz")
    elif given.stage == "align_layers":
        where = recipes.Where("made up", "clean")
        align_layers.align_layers(files, folder / "alignment.json", None, where, metrics, matrices, 0, given.memory_mb)
    else:
        settings = folder / "alignment.json", folder / "calibration.json"
        output = folder / "calibrations.npz"
        calibrate_layers.calibrate_layers(files, *settings, None, matrices, metrics, output, given.memory_mb)
    return {"seconds": time.perf_counter() - started}


def in_process(mode: str, given: argparse.Namespace, **options: Any) -> dict[str, Any]:
    """The result of one measurement, run in its own process, with its peak memory in GB."""
    command = [sys.executable, __file__, mode]
    for key, value in {"threads": given.threads, "memory-mb": given.memory_mb, "k-max": given.k_max, **options}.items():
        command += [f"--{key}", *(map(str, value) if isinstance(value, list | tuple) else [str(value)])]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        if mode in ("ours", "stage"):
            raise RuntimeError(f"{' '.join(command)} failed with status {done.returncode}")
        # a reference needs more memory than ours
        return {"value": float("nan"), "seconds": float("nan"), "gb": float("nan")}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def pairs(given: argparse.Namespace) -> None:
    """A table of one pair of layers: metric x N."""
    print("| N | metric | published | sensible | ours | published / ours | sensible / ours | GB published | GB ours |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in given.count:
        for metric in given.metrics:
            one = {
                mode: in_process(mode, given, metric=metric, count=count, layers=[12, 14])
                for mode in ("published", "sensible", "ours")
            }
            p, s, o = (one[mode]["seconds"] for mode in ("published", "sensible", "ours"))
            memory = f"{one['published']['gb']:.1f} | {one['ours']['gb']:.1f}"
            times = f"{p:.2f} s | {s:.2f} s | {o:.2f} s | {p / o:.0f} | {s / o:.1f}"
            print(f"| {count} | {metric} | {times} | {memory} |", flush=True)


def grid(given: argparse.Namespace) -> None:
    """All stages of one pair of models, and the references on a sample of the pairs of layers."""
    count = given.count[0]
    with tempfile.TemporaryDirectory(dir=given.scratch) as name:
        folder = Path(name)
        depths = DEPTHS if given.command == "grid" else {"a": 1, "b": 1}
        widths = WIDTHS if given.command == "grid" else {"a": 768, "b": 768}
        write_study(folder, count, depths, widths)
        lists = [metric for metric in given.metrics if "knn" in metric or metric == "cknna"]
        stages = [("neighbors", given.metrics), ("factors", given.metrics), ("align_layers", given.metrics)]
        stages += [("calibrate_layers", lists), ("calibrate_layers", given.metrics)]
        print(
            f"{depths['a']} x {depths['b']} layers, N = {count}, D = {widths['a']} and {widths['b']}, k = {K}, ", end=""
        )
        print(f"{given.threads} threads\n\n| stage | metrics | seconds | GB |\n|---|---|---|---|")
        seconds = {}
        for stage, metrics in stages:
            done = in_process(
                "stage", given, stage=stage, folder=folder, metrics=list(metrics), permutations=given.permutations
            )
            seconds[stage] = done["seconds"]
            print(f"| {stage} | {len(metrics)} | {done['seconds']:.0f} | {done['gb']:.2f} |", flush=True)
        if given.command == "grid":
            _beside_references(given, folder, seconds["neighbors"], depths, count)


def _beside_references(
    given: argparse.Namespace, folder: Path, long_seconds: float, depths: dict[str, int], count: int
) -> None:
    """Ratios over the grid: ours with the time of all lists, the reference timed on a few pairs and multiplied.

    The references look for k neighbours, so ours is timed with lists of k as well as with the study's longer ones.
    """
    cells = depths["a"] * depths["b"]
    short = in_process("stage", given, **{"k-max": K}, stage="neighbors", folder=folder)
    print(f"\nAll lists of {K} neighbours: {short['seconds']:.0f} s; of {given.k_max}: {long_seconds:.0f} s")
    print("\n| metric | published, a pair | sensible, a pair | ours, grid without lists | ", end="")
    print(f"published / ours, lists of {K} | … of {given.k_max} | sensible / ours | largest difference |")
    print("|---|---|---|---|---|---|---|---|")
    for metric in ("cknna", "mutual_knn"):
        ours = in_process("stage", given, stage="align_layers", folder=folder, metrics=[metric], permutations=200)
        matrix = np.load(folder / metric / "layers.npy")
        timed: dict[str, list[float]] = {"published": [], "sensible": []}
        difference = 0.0
        for at in [(0, 0), (12, 14), (23, 27)][: given.sample]:
            for mode, values in timed.items():
                done = in_process(mode, given, metric=metric, count=count, layers=list(at))
                values.append(done["seconds"])
                difference = max(difference, abs(done["value"] - matrix[at]))
        p, s = (float(np.mean(values)) for values in timed.values())
        quick, long = (ours["seconds"] + lists for lists in (short["seconds"], long_seconds))
        ratios = f"{p * cells / quick:.0f} | {p * cells / long:.0f} | {s * cells / quick:.0f}"
        print(
            f"| {metric} | {p:.1f} s | {s:.1f} s | {ours['seconds']:.1f} s | {ratios} | {difference:.1e} |", flush=True
        )


def main() -> None:
    """Parse, and run one measurement or a table of them."""
    single: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "published": run_reference,
        "sensible": run_reference,
        "ours": run_ours,
        "stage": run_stage,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "command", choices=["pairs", "grid", "pair", *single], help="pairs, grid or pair; others are parts"
    )
    parser.add_argument("--count", type=int, nargs="+", default=[10_000], help="N")
    parser.add_argument("--metrics", nargs="+", default=list(EIGHT))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-mb", type=int, default=1000, help="for prepared layers")
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--sample", type=int, default=2, help="pairs of layers on which references are timed")
    parser.add_argument("--k-max", type=int, default=100, help="neighbours that lists hold")
    parser.add_argument("--scratch", help="folder for feature files; a grid takes 2.3 GB")
    for part in ("metric", "folder", "stage"):
        parser.add_argument(f"--{part}", help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.command not in single:
        (pairs if given.command == "pairs" else grid)(given)
        return
    given.mode = given.command
    given.count = given.count[0]
    with threadpool_limits(given.threads):
        result = single[given.mode](given)
    result["gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(result))


if __name__ == "__main__":
    main()
