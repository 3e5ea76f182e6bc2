"""How often unrelated alignment and quality of several recipes seem related: python benchmarks/trainings.py.

Recipes shift alignment and quality, each by an independent normal number of standard deviation 2; values of a training
have a common trend, a deviation of the training and one of each of five steps, and those of alignment and quality are
independent. Printed, for each number of recipes and trainings: the share of studies with p <= .05, and of those whose
interval excludes 0, where trainings are ranked over all recipes, and within them; the latter also where seeds deviate
alike in all recipes, which trainings of one seed could do, with trainings and with seeds as what is permuted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment.trainings import PartialCorrelation, partial_spearman

TREND = np.array([0.1, 0.3, 0.5, 0.8, 0.9])
DESIGNS = ((2, 3), (2, 4), (3, 3), (3, 4), (2, 5))


def values(random: np.random.Generator, recipes: int, trainings: int, alike: float) -> NDArray[np.float64]:
    """Alignment or quality (recipes x trainings, S). alike: share of the variance of trainings that seeds explain."""
    of_recipe = 2 * random.standard_normal((recipes, 1, 1))
    of_seed = np.sqrt(alike) * random.standard_normal((1, trainings, 1))
    own = np.sqrt(1 - alike) * random.standard_normal((recipes, trainings, 1))
    of_step = 0.4 * random.standard_normal((recipes, trainings, len(TREND)))
    return np.asarray((3 * TREND + of_recipe + 0.5 * (of_seed + own + of_step)).reshape(-1, len(TREND)))


def shares(found: list[PartialCorrelation]) -> str:
    """Of studies with a small p, and with an interval beside 0; NaN where there is none."""
    p, low, high = (np.array([getattr(each, key) for each in found]) for key in ("p", "low", "high"))
    cells = [(p, p <= 0.05), (low, (low > 0) | (high < 0))]
    return " / ".join(f"{is_so.mean():.3f}" if np.isfinite(known).any() else "none" for known, is_so in cells)


def main() -> None:
    """Print one row a design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    studies = parser.parse_args().studies
    print(
        "recipes x trainings | over all recipes: p / interval | within recipes | the same, seeds alike | "
        "seeds alike and permuted"
    )
    for recipes, trainings in DESIGNS:
        names = [str(at) for at in range(recipes) for _ in range(trainings)]
        found: dict[str, list[PartialCorrelation]] = {"pooled": [], "within": [], "alike": [], "seeds": []}
        for study in range(studies):
            random = np.random.default_rng([study, recipes, trainings])
            x, y = (values(random, recipes, trainings, 0.0) for _ in range(2))
            found["pooled"].append(partial_spearman(x, y, 0))
            found["within"].append(partial_spearman(x, y, 0, names))
            x, y = (values(random, recipes, trainings, 1.0) for _ in range(2))
            found["alike"].append(partial_spearman(x, y, 0, names))
            found["seeds"].append(partial_spearman(x, y, 0, names, list(range(trainings)) * recipes))
        print(f"{recipes} x {trainings} | " + " | ".join(map(shares, found.values())), flush=True)


if __name__ == "__main__":
    main()
