"""Time the neighbour search and a brute force in one run: python benchmarks/neighbors.py --device cuda.

The brute force multiplies blocks of rows in float32 on the same device and sorts each row of products whole; its lists
may differ from exact ones where float32 cannot tell two rows apart. Peak memory excludes the rows.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment.search.exact import nearest_neighbors
from diffalign.devices import choose_device

SIDES = ("search", "brute force")


def brute_force(rows: NDArray[np.float32], k: int, queries: range, device: str) -> NDArray[np.integer]:
    """The first k of an argsort of every row of products: (len(queries), k)."""
    import torch

    there = torch.from_numpy(rows).to(device)
    lists = []
    for start in range(queries.start, queries.stop, 256):
        block = torch.arange(start, min(start + 256, queries.stop), device=device)
        products = there[block] @ there.T
        products[torch.arange(len(block), device=device), block] = -torch.inf
        lists.append(products.argsort(dim=1, descending=True, stable=True)[:, :k].clone().cpu().numpy())
    return np.concatenate(lists)


def peak_mb(device: str) -> tuple[float, float]:
    """Peak memory of this process, and of the GPU."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cpu":
        return host, 0.0
    import torch

    return host, torch.cuda.max_memory_allocated() / 2**20


def measure(side: str, given: argparse.Namespace) -> None:
    """Run one side on random rows; print seconds and the memory added on the host and the GPU, and save the lists."""
    on = choose_device(given.device)
    rows = np.random.default_rng(0).standard_normal((given.count, given.width), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = range(min(given.queries or given.count, given.count))
    device = None if on.type == "cpu" else on
    # the first product of a process starts threads and kernels
    nearest_neighbors(rows[:200], 5, device=device)
    host, gpu = peak_mb(on.type)
    started = time.perf_counter()
    if side == "search":
        options = {"memory_mb": given.memory_mb, "threads": given.threads}
        lists = nearest_neighbors(rows, given.k, queries, **options, device=device).indices
    else:
        lists = brute_force(rows, given.k, queries, on.type)
    seconds = time.perf_counter() - started
    host_after, gpu_after = peak_mb(on.type)
    np.save(given.lists, lists.astype(np.int32))
    print(seconds, host_after - host, gpu_after - gpu)


def main() -> None:
    """Run both sides, each in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="N, rows")
    parser.add_argument("--width", type=int, default=1024, help="D")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--queries", type=int, help="search for the first so many rows only, where all take too long")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-mb", type=int, default=2000)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--lists", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        with threadpool_limits(given.threads):
            measure(given.side, given)
        return
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.npy" for i in range(len(SIDES))]
        for side, path in zip(SIDES, paths, strict=True):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side, "--lists", str(path)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows[side] = [float(number) for number in output.split()]
        equal = float((np.load(paths[0]) == np.load(paths[1])).mean())
    print(
        f"N = {given.count}, D = {given.width}, k = {given.k}, queries = {given.queries or given.count}, {given.device}"
    )
    print(f"{'':12} {'seconds':>10} {'host MB':>10} {'GPU MB':>10}")
    for side, numbers in rows.items():
        print(f"{side:12} {numbers[0]:10.2f} {numbers[1]:10.0f} {numbers[2]:10.0f}")
    ratio = rows["brute force"][0] / rows["search"][0]
    print(f"{'ratio':12} {ratio:10.2f}   share of equal entries: {equal:.6f}")


if __name__ == "__main__":
    main()
