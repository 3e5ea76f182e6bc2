"""Choices in float32: those of the published loop over triplets, to the last bit."""

import itertools

import numpy as np
import pytest
import torch
from test_odd_one_out import random_triplets

from diffalign.human.odd_one_out import odd_one_out
from diffalign.human.single_precision import odd_one_out_float32
from diffalign.human.triplets import Triplets

PAIRS = list(itertools.combinations(range(3), 2))


def published_choice(rows: torch.Tensor, distance: str) -> int:
    """The odd one of a triplet of rows (3, D) as get_predictions of the published code chooses it; -1 for none."""
    if distance == "cosine":
        far = [1 - torch.nn.functional.cosine_similarity(rows[i], rows[j], dim=0) for i, j in PAIRS]
    else:
        far = [torch.linalg.norm(rows[i] - rows[j], ord=2) for i, j in PAIRS]
    distances = torch.tensor(far)
    if len(torch.unique(distances)) == 1:
        return -1
    return ({0, 1, 2} - set(PAIRS[int(torch.argmin(distances))])).pop()


def published_choices(features: np.ndarray, objects: np.ndarray, distance: str = "cosine") -> np.ndarray:
    """The same of every triplet (T, 3) of objects, as a loop over those that differ."""
    found, of = np.unique(objects, axis=0, return_inverse=True)
    rows = torch.from_numpy(features)
    return np.array([published_choice(rows[torch.from_numpy(each)], distance) for each in found.astype(np.int64)])[of]


def alike(count: int, width: int, spread: float) -> np.ndarray:
    """Rows that differ by `spread` of their size, as those of a network that hardly sees its input."""
    draws = np.random.default_rng(width)
    return (draws.standard_normal(width) + spread * draws.standard_normal((count, width))).astype(np.float32)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("width", [1, 3, 8, 17, 64, 320, 1280])
@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-6])
def test_choices_are_those_of_the_published_loop(distance: str, width: int, spread: float) -> None:
    features, triplets = alike(25, width, spread), random_triplets(150, 25)
    features[:3], features[4] = features[3], 0
    found = odd_one_out_float32(features, triplets, distance)
    assert found.odd.tolist() == published_choices(features, triplets.objects, distance).tolist()
    if spread < 1 and distance == "cosine" and width > 8:
        # rounding decides, so that float64 chooses otherwise
        assert (found.odd != odd_one_out(features, triplets, distance).odd).mean() > 0.02


def test_blocks_of_any_size_choose_alike() -> None:
    features, triplets = alike(60, 32, 1e-6), random_triplets(500, 60)
    whole = odd_one_out_float32(features, triplets)
    # a block of one row
    assert np.array_equal(odd_one_out_float32(features, triplets, memory_mb=0).closest, whole.closest)


@pytest.mark.parametrize(
    ("features", "distance", "message"),
    [
        (np.ones((4, 2)), "dot", "unknown distance 'dot' of float32; allowed: cosine, euclidean"),
        (np.full((4, 2), 1e39), "cosine", "infinite in float32"),
        (np.full((4, 2), np.nan), "cosine", "NaN or infinite"),
        (np.ones(4), "cosine", r"features are \(4,\)"),
        (np.ones((3, 2)), "cosine", "3 rows of features for 4 objects"),
    ],
)
def test_other_features_are_refused(features: np.ndarray, distance: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        odd_one_out_float32(features, Triplets(np.array([[0, 1, 2]], np.int32), 4), distance)
