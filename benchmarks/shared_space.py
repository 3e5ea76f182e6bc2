"""Time and memory of affinities to landmarks: python benchmarks/shared_space.py. Landmarks are chosen, the scale is
found and all rows are transformed; at a smaller size, the same affinities by torch.cdist without blocks, in float32 and
at the same scale, stand beside ours in the same run.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.shared_space.landmarks import choose
from diffalign.shared_space.rbf import Rbf, fit_rbf


def plain(x: torch.Tensor, fit: Rbf) -> torch.Tensor:
    """The affinities of the published code."""
    distances = torch.cdist(x, torch.from_numpy(fit.landmarks))
    return torch.exp(-(distances**2) / (2 * fit.gamma * fit.variance))


def main() -> None:
    """Run on random features and print a line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--landmarks", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--choice", default="farthest")
    parser.add_argument("--c", type=float, default=0.05)
    parser.add_argument("--memory-mb", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compared", type=int, default=10_000, help="tokens of the comparison")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    draws = np.random.default_rng(0)
    centres = draws.standard_normal((50, given.width), np.float32)
    x = draws.standard_normal((given.tokens, given.width), np.float32)
    x += 2 * centres[draws.integers(0, 50, given.tokens)]
    names = [f"{row:07d}" for row in range(given.tokens)]
    with threadpool_limits(given.threads):
        started = time.perf_counter()
        rows = choose(x, given.landmarks, given.choice, 0, names)
        chosen = time.perf_counter()
        fit = fit_rbf(x, rows, given.c, given.memory_mb)
        fitted = time.perf_counter()
        made = fit.apply(x, given.memory_mb)
        applied = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{given.tokens} tokens x {given.landmarks} landmarks x {given.width}, {given.threads} threads")
    print(
        f"landmarks ({given.choice}) {chosen - started:.1f} s, scale {fitted - chosen:.1f} s (γ = {fit.gamma:.4g}), ",
        end="",
    )
    print(f"transform {applied - fitted:.1f} s, all {applied - started:.1f} s; peak memory {peak:.2f} GB")
    few = x[: given.compared]
    ours, theirs = [], []
    with threadpool_limits(given.threads):
        for _ in range(3):
            started = time.perf_counter()
            fit.apply(few, given.memory_mb)
            ours.append(time.perf_counter() - started)
            started = time.perf_counter()
            expected = plain(torch.from_numpy(few), fit)
            theirs.append(time.perf_counter() - started)
    worst = float(np.abs(made[: len(few)] - expected.numpy()).max())
    print(f"{len(few)} tokens: ours {min(ours):.2f} s, torch.cdist {min(theirs):.2f} s, ", end="")
    print(f"ratio {min(theirs) / min(ours):.2f}; differ by {worst:.1e}")


if __name__ == "__main__":
    main()
