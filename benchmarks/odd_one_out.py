"""Time odd-one-out choices of all layers and a loop over triplets in one run: python benchmarks/odd_one_out.py.

The loop measures three distances a triplet with torch, as the published scripts do; it runs on a sample of the triplets
of one layer, and its time is scaled up. Both must choose alike on the sample.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.triplets import Triplets


def loop(rows: NDArray[np.float32], objects: NDArray[np.int32]) -> list[int]:
    """The odd one of each triplet by cosine distance: -1 where all three are equal, else the first smallest."""
    import torch
    from torch.nn.functional import cosine_similarity

    features = torch.from_numpy(rows)
    pairs = list(itertools.combinations(range(3), 2))
    odd = []
    for triplet in objects:
        parts = torch.stack([features[i] for i in triplet])
        distances = torch.tensor([1 - cosine_similarity(parts[i], parts[j], dim=0) for i, j in pairs])
        if torch.unique(distances).shape[0] == 1:
            odd.append(-1)
        else:
            odd.append(({0, 1, 2} - set(pairs[int(torch.argmin(distances))])).pop())
    return odd


def main() -> None:
    """Run both sides on random features and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", type=int, default=4_700_000)
    parser.add_argument("--objects", type=int, default=1854)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--sample", type=int, default=2000, help="triplets of the loop")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    draws = np.random.default_rng(0)
    objects = draws.integers(0, given.objects, (given.triplets, 3), dtype=np.int32)
    a, b, odd = objects.T
    triplets = Triplets(objects[(a != b) & (a != odd) & (b != odd)], given.objects)
    rows = draws.standard_normal((given.objects, given.width), dtype=np.float32)
    sample = triplets.taken(np.arange(given.sample))
    with threadpool_limits(given.threads):
        # loops are compiled when they first run
        odd_one_out(rows, sample)
        started = time.perf_counter()
        for _ in range(given.layers):
            choices = odd_one_out(rows, triplets)
        ours = time.perf_counter() - started
        started = time.perf_counter()
        theirs = loop(rows, sample.objects)
        looped = (time.perf_counter() - started) * len(triplets) / given.sample * given.layers
    equal = float((choices.odd[: given.sample] == theirs).mean())
    print(f"{len(triplets)} triplets of {given.objects} objects, {given.layers} layers, D = {given.width}")
    print(f"ours {ours:.1f} s, the loop {looped:.0f} s, ratio {looped / ours:.0f}, share of equal choices {equal:.4f}")


if __name__ == "__main__":
    main()
