"""Coverage of intervals of odd-one-out accuracy by simulated studies: python benchmarks/human_dependence.py.

Objects are drawn with replacement from the 1854 rows of VICE's embedding, each dimension times a lognormal factor of
its own, so that a study has its own objects, and people. People choose by a softmax over dot products with weights of
their own on dimensions; a model sees the rows through noise that belongs to the object. The truth is the mean over
600,000 triplets of three fresh objects each. With --embedding none, rows are lognormal draws.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow_scripts"))

from diffalign.alignment.intervals import Interval, around
from diffalign.human.dependence import chosen_on_other_objects, covariance, known
from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.triplets import Triplets, odd_last

# noise of the two models that are compared, and of each of the equal layers of a third
NOISES = (0.3, 0.6)
LAYERS = 6


class Population:
    """Objects, people and models without end. people: standard deviation of their log weights of dimensions."""

    def __init__(self, rows: NDArray[np.float64], people: float, draws: np.random.Generator) -> None:
        self.rows, self.people, self.draws = rows, people, draws
        self.spread = rows.std(axis=0)

    def objects(self, count: int) -> NDArray[np.float64]:
        """Fresh objects (N, M)."""
        rows = self.rows[self.draws.integers(0, len(self.rows), count)]
        return rows * self.draws.lognormal(0, 0.3, rows.shape)

    def seen(self, objects: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
        """Objects (N, M) as a model sees them."""
        return objects + noise * self.spread * self.draws.standard_normal(objects.shape)

    def judged(self, objects: NDArray[np.float64], table: NDArray[np.integer], people: int) -> Triplets:
        """Choices of people on triplets (T, 3). people: how many; 0 for one who weighs all dimensions alike."""
        who = None if people == 0 else self.draws.integers(0, people, len(table))
        weights = np.ones((max(1, people), objects.shape[1]))
        if people:
            weights = self.draws.lognormal(-(self.people**2) / 2, self.people, weights.shape)
        odd = np.empty(len(table), np.int64)
        for start in range(0, len(table), 100_000):
            part = slice(start, start + 100_000)
            x, y, z = (objects[table[part, i]] for i in range(3))
            w = weights[0] if who is None else weights[who[part]]
            logits = np.stack([(w * y * z).sum(axis=1), (w * x * z).sum(axis=1), (w * x * y).sum(axis=1)], axis=1)
            odd[part] = (logits + self.draws.gumbel(size=logits.shape)).argmax(axis=1)
        return Triplets(np.asarray(odd_last(table, odd), np.int32), len(objects), who)

    def truth(self, noises: tuple[float, ...], people: bool, count: int = 600_000) -> NDArray[np.float64]:
        """Accuracies of models on triplets of fresh objects by fresh people."""
        totals = np.zeros(len(noises))
        part = 50_000
        for _ in range(count // part):
            objects = self.objects(3 * part)
            triplets = self.judged(objects, np.arange(3 * part).reshape(-1, 3), part if people else 0)
            for i, noise in enumerate(noises):
                x, y, odd = (self.seen(objects, noise)[triplets.objects[:, column]] for column in range(3))
                others = np.maximum((x * odd).sum(axis=1), (y * odd).sum(axis=1))
                totals[i] += ((x * y).sum(axis=1) > others).mean()
        return totals / (count // part)


def triplets_of(objects: int, distinct: int, repeats: int, draws: np.random.Generator) -> NDArray[np.int64]:
    """Triplets (distinct x repeats, 3) of three different objects."""
    table = draws.integers(0, objects, (2 * distinct + 1000, 3))
    different = (table[:, 0] != table[:, 1]) & (table[:, 0] != table[:, 2]) & (table[:, 1] != table[:, 2])
    return np.repeat(table[different][:distinct], repeats, axis=0)


def covers(interval: Interval, truth: NDArray[np.float64] | float) -> NDArray[np.bool_]:
    """Whether intervals hold the truth."""
    return np.asarray((interval.low <= truth) & (truth <= interval.high))


def study(
    population: Population, objects: int, distinct: int, repeats: int, people: int, truth: NDArray[np.float64]
) -> dict[str, float]:
    """One study: which intervals cover the truth of the first accuracy and of the difference, and how wide they are;
    how far the accuracy of the best of equal layers is from that of each, by the rule that chose it.
    """
    rows = population.objects(objects)
    triplets = population.judged(rows, triplets_of(objects, distinct, repeats, population.draws), people)
    noises = [*NOISES, *[NOISES[0]] * LAYERS]
    gained = np.stack([odd_one_out(population.seen(rows, each), triplets, "dot").credit() for each in noises])
    weights = np.array([[1.0, 0.0], [1.0, -1.0]])
    aims = weights @ truth
    over = covariance(gained[:2], triplets, known(triplets))
    after = over.interval(weights)
    before = around(weights @ over.means, np.sqrt(np.einsum("ml,lk,mk->m", weights, over.least, weights)))
    found: dict[str, float] = {}
    for word, interval in (("before", before), ("after", after)):
        found |= {f"{word} accuracy": covers(interval, aims)[0], f"{word} difference": covers(interval, aims)[1]}
        found |= {f"{word} error": interval.error[0], f"{word} error of difference": interval.error[1]}
    layers = gained[2:]
    folds = population.draws.permutation(objects) % 10
    elsewhere = chosen_on_other_objects(layers, triplets, folds)
    largest = layers[layers.mean(axis=1).argmax()]
    for word, credit, part in (
        ("best before", largest, triplets),
        ("best after", elsewhere.credit[elsewhere.kept], triplets.taken(elsewhere.kept)),
    ):
        over = covariance(credit[None], part, known(triplets))
        found |= {f"{word} bias": over.means[0] - truth[0], f"{word} covers": covers(over.interval(), truth[0])[0]}
    return found


def main() -> None:
    """Simulate studies of several sizes and print coverage before (over triplets) and after (over objects, people)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedding", default="../shared/data/things/vice_embedding.npy")
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--large", action="store_true", help="also a million choices")
    options = parser.parse_args()
    draws = np.random.default_rng(0)
    if options.embedding == "none":
        rows = draws.lognormal(-2, 1, (1854, 42))
    else:
        rows = np.load(options.embedding).astype(np.float64)
    population = Population(rows, 1.0, draws)
    truths = {people: population.truth(NOISES, people) for people in (False, True)}
    print(f"truth: {truths}", flush=True)
    sizes = [
        (48, 17_000, 1, 0),
        (200, 10_000, 1, 0),
        (1854, 10_000, 1, 0),
        (1854, 1000, 20, 325),
        (1854, 100_000, 1, 0),
    ]
    if options.large:
        sizes.append((1854, 1_000_000, 1, 0))
    for objects, distinct, repeats, people in sizes:
        count = options.studies
        found = [study(population, objects, distinct, repeats, people, truths[people > 0]) for _ in range(count)]
        print(
            f"{objects} objects, {distinct} distinct triplets, {repeats} choices of each, {people or 'unknown'} people"
        )
        for key in found[0]:
            print(f"  {key}: {np.mean([each[key] for each in found]):.5f}", flush=True)


if __name__ == "__main__":
    main()
