"""Half-shared encoders: training, targets, and that results depend on nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffalign.shared_space import half_shared
from diffalign.shared_space.half_shared import (
    NORMS,
    PUBLISHED,
    HalfShared,
    Problem,
    fit_half_shared,
    fit_problems,
    targets,
)
from diffalign.shared_space.pairing import pairing

SHORT = HalfShared(steps=40, width=8)
NAMES = tuple(f"{row:02d}" for row in range(24))


def sets(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    x = draws.standard_normal((24, 3)).astype(np.float32)
    return x, (x @ draws.standard_normal((3, 5)) + 4).astype(np.float32)


def test_targets_go_by_name_and_seed() -> None:
    order = np.random.default_rng(0).permutation(24)
    labels = np.array(["b", "a", "c"] * 8)
    for target in half_shared.TARGETS:
        settings = HalfShared(target=target, random_classes=4)
        z = targets(settings, NAMES, labels, 1)
        again = targets(settings, [NAMES[row] for row in order], labels[order], 1)
        assert z.dtype == np.int64
        assert np.array_equal(again, z[order]), target
        assert np.array_equal(targets(settings, NAMES, labels, 2), z) == (target in ("index", "labels")), target
    assert targets(HalfShared(target="index"), NAMES, None, 0).tolist() == list(range(24))
    assert sorted(targets(HalfShared(target="permuted_index"), NAMES, None, 0)) == list(range(24))
    assert targets(HalfShared(target="labels"), NAMES, labels, 0).tolist() == [1, 0, 2] * 8
    many = [str(row) for row in range(4000)]
    counts = np.bincount(targets(HalfShared(target="random", random_classes=4), many, None, 0))
    assert len(counts) == 4
    assert abs(counts - 1000).max() < 120


def test_encoders_learn_what_they_are_told_and_share_their_last_layer() -> None:
    x, y = sets()
    z = targets(HalfShared(), NAMES, None, 0)
    settings = HalfShared(steps=250, learning_rate=3e-3)
    first, second = fit_half_shared(x, y, z, settings, 0)
    assert first.apply(x).shape == second.apply(y).shape == (24, 32)
    assert first.apply(x).dtype == np.float32
    # the same thing at the same place of the shared space, well above 1 / 24
    assert pairing(first.apply(x), second.apply(y)).own_index > 0.5
    # with partners shuffled there is nothing to find
    order = np.random.default_rng(1).permutation(24)
    assert pairing(first.apply(x)[order], second.apply(y)).own_index < 0.3


@pytest.mark.parametrize("loss", half_shared.LOSSES)
@pytest.mark.parametrize("norm", NORMS)
def test_regularisation_keeps_affinities(norm: str, loss: str) -> None:
    x, y = sets()
    z = targets(HalfShared(target="random"), NAMES, None, 0)
    distance = []
    for weight in (0.0, 10.0):
        settings = HalfShared(steps=60, learning_rate=3e-3, weight=weight, norm=norm, loss=loss)
        first, _ = fit_half_shared(x, y, z, settings, 0)
        inputs = torch.from_numpy((x - x.mean(0)) / x.std(0, ddof=1))[None]
        made = torch.from_numpy(first.apply(x))[None]
        distance.append(float((half_shared._affinity(made) - half_shared._affinity(inputs)).square().mean()))
    assert distance[1] < distance[0] / 2


@pytest.mark.parametrize("batch_size", [10, 512])
def test_a_problem_does_not_depend_on_others_threads_or_the_global_generator(batch_size: int) -> None:
    settings = replace(SHORT, batch_size=batch_size)
    problems = [
        Problem(*sets(seed), targets(replace(settings, target=target), NAMES, None, seed), seed)
        for seed, target in enumerate(["index", "random", "permuted_index"])
    ]
    together = fit_problems(problems, settings)
    for number in (0, 2):
        torch.manual_seed(number)
        problem = problems[number]
        alone = fit_half_shared(problem.x, problem.y, problem.z, settings, problem.seed)
        for mine, theirs, x in zip(alone, together[number], (problem.x, problem.y), strict=True):
            np.testing.assert_allclose(mine.apply(x), theirs.apply(x), atol=1e-4)
    before = torch.get_num_threads()
    fit_problems(problems[:1], settings)
    assert torch.get_num_threads() == before
    # and is another one with another seed
    other = fit_half_shared(problems[0].x, problems[0].y, problems[0].z, settings, 9)
    assert np.abs(other[0].apply(problems[0].x) - together[0][0].apply(problems[0].x)).max() > 0.01


def test_an_encoder_is_its_layers() -> None:
    x, y = sets()
    x = np.concatenate([x, np.full((24, 1), 7, np.float32)], axis=1)
    first, _ = fit_half_shared(x, y, targets(SHORT, NAMES, None, 0), SHORT, 0)
    # a constant column is not divided by 0
    assert first.std[3] == 1
    assert [weight.shape for weight in first.weights] == [(4, 8), (8, 8), (8, 8)]
    hidden = torch.from_numpy((x - first.mean) / first.std)
    for number, (weight, bias) in enumerate(zip(first.weights, first.biases, strict=True)):
        hidden = (torch.nn.functional.gelu(hidden) if number else hidden) @ torch.from_numpy(weight)
        hidden = hidden + torch.from_numpy(bias)
    np.testing.assert_allclose(first.apply(x), hidden.numpy(), atol=1e-5)


def test_an_epoch_deals_all_rows_out() -> None:
    settings = HalfShared(steps=7, batch_size=10)
    problem = Problem(*sets(), targets(settings, NAMES, None, 0), 0)
    batches = list(half_shared._Fit([problem], [24], settings)._batches("first"))
    assert [batch.shape for batch in batches if batch is not None] == [(1, n) for n in (10, 10, 4, 10, 10, 4, 10)]
    epochs = [torch.cat([b for b in batches[at : at + 3] if b is not None], 1)[0].tolist() for at in (0, 3)]
    assert all(sorted(epoch) == list(range(24)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert (PUBLISHED.steps, PUBLISHED.batch_size) == (3000 * 2, 16)


def test_bad_input_is_refused() -> None:
    x, y = sets()
    z = np.arange(24)
    with pytest.raises(ValueError, match="sets have 24 and 23 rows"):
        fit_half_shared(x, y[:23], z, SHORT, 0)
    with pytest.raises(ValueError, match=r"classes the shape \(20,\)"):
        fit_half_shared(x, y, z[:20], SHORT, 0)
    with pytest.raises(ValueError, match="the second set is constant: 24 equal rows"):
        fit_half_shared(x, np.ones_like(y), z, SHORT, 0)
    bad = x.copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="the first set are NaN or infinite in row 3"):
        fit_half_shared(bad, y, z, SHORT, 0)
    with pytest.raises(ValueError, match="unknown target 'classes'; allowed: index, permuted_index, labels, random"):
        HalfShared(target="classes")
    with pytest.raises(ValueError, match="batch_size is 1; allowed: 2 or more"):
        HalfShared(batch_size=1)
    with pytest.raises(ValueError, match="needs a label of each of 24 rows"):
        targets(HalfShared(target="labels"), NAMES, None, 0)
    encoder, _ = fit_half_shared(x, y, z, replace(SHORT, steps=1), 0)
    with pytest.raises(ValueError, match="5 columns; this encoder takes 3"):
        encoder.apply(y)
