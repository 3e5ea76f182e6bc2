"""Time ridge regression to all human dimensions and scikit-learn's RidgeCV of one at a time in one run: python
benchmarks/human_regression.py. Both choose α and predict the objects of one fold; the largest difference is shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.human.regression import ALPHAS, fit


def main() -> None:
    """Run both sides on random features with a planted map and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=1854)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--dimensions", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    draws = np.random.default_rng(0)
    rows = draws.standard_normal((given.objects, given.width))
    targets = rows @ draws.standard_normal((given.width, given.dimensions)) / 30
    targets += draws.standard_normal(targets.shape)
    train = np.arange(given.objects) % 5 > 0
    with threadpool_limits(given.threads):
        # the first decomposition of a process starts threads
        fit(rows[:200], targets[:200])
        RidgeCV(alphas=ALPHAS).fit(rows[:200], targets[:200, 0])
        started = time.perf_counter()
        ours = fit(rows[train], targets[train]).predict(rows[~train])
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        theirs = [
            RidgeCV(alphas=ALPHAS).fit(rows[train], targets[train, m]).predict(rows[~train])
            for m in range(given.dimensions)
        ]
        looped = time.perf_counter() - started
    worst = float(np.abs(ours - np.stack(theirs, axis=1)).max())
    print(f"{int(train.sum())} objects, D = {given.width}, {given.dimensions} dimensions, {len(ALPHAS)} α")
    print(f"ours {seconds:.2f} s, one at a time {looped:.1f} s, ratio {looped / seconds:.0f}; differ by {worst:.1e}")


if __name__ == "__main__":
    main()
