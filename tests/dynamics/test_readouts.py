"""Linear read-outs: exact splits, planted maps, maps of images, and tokens that are seen once."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from diffalign.dynamics import readouts
from diffalign.dynamics.readouts import FOLDS, MAPS, Moments, exchanged, folds, image_maps, token_maps
from diffalign.randomness import keyed

PENALTIES = (1e-2, 1.0, 1e2, 1e4)
NAMES = [f"class_{n % 10}_{n:05d}" for n in range(24)]


def drawn(name: str, *shape: int) -> np.ndarray:
    return keyed(0, "test", name).standard_normal(shape)


def read_out(x: np.ndarray, y: np.ndarray, fold: np.ndarray, batch: int = 5) -> np.ndarray:
    """R² of maps y (N, T, M) from tokens x (N, T, D), batch by batch."""
    moments = Moments(x.shape[1], x.shape[2], y.shape[2], torch.device("cpu"))
    for start in range(0, len(x), batch):
        rows = slice(start, start + batch)
        moments.add(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]), fold[rows])
    return moments.held_out(PENALTIES)


def by_hand(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The same by scikit-learn, from tokens, one fit after the other."""

    def errors(training: np.ndarray, held: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        mean_x, mean_y = x[training].mean(axis=0), y[training].mean(axis=0)
        inside, outside = (x[training] - mean_x).reshape(-1, x.shape[2]), (x[held] - mean_x).reshape(-1, x.shape[2])
        scale = inside.std(axis=0)
        scale[scale < 1e-9] = np.inf
        model = Ridge(penalty, fit_intercept=False).fit(inside / scale, (y[training] - mean_y).reshape(len(inside), -1))
        left = (y[held] - mean_y).reshape(len(outside), -1)
        return np.square(left - model.predict(outside / scale)).sum(axis=0), np.square(left).sum(axis=0)

    residual = total = 0
    for held in range(FOLDS):
        others = [other for other in range(FOLDS) if other != held]
        judged = np.array(
            [
                sum(errors((fold != held) & (fold != inner), fold == inner, penalty)[0] for inner in others)
                for penalty in PENALTIES
            ]
        )
        fits = [errors(fold != held, fold == held, penalty) for penalty in PENALTIES]
        best = judged.argmin(axis=0)
        residual = residual + np.array([fits[penalty][0][m] for m, penalty in enumerate(best)])
        total = total + fits[0][1]
    return 1 - residual / total


def test_read_outs_are_those_of_scikit_learn_on_the_same_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    fold = folds(NAMES, NAMES, 0)
    x = drawn("x", 24, 9, 6) * 10.0 ** np.arange(-2, 4) + 7
    x[..., 3] = 5.0  # a constant channel
    y = x[..., :2] @ drawn("w", 2, 3) + drawn("e", 24, 9, 3) * [0.1, 50, 3] + drawn("mean", 9, 3)
    found = read_out(x, y, fold)
    np.testing.assert_allclose(found, by_hand(x, y, fold), rtol=0, atol=1e-8)
    assert found[0] > 0.5
    # neither batches nor how many matrices are factored at a time matter
    monkeypatch.setattr(readouts, "_CHUNK", 1)
    np.testing.assert_allclose(found, read_out(x, y, fold, 24), rtol=0, atol=1e-10)


def test_a_planted_map_is_found_and_a_shuffled_one_is_not() -> None:
    fold, other = folds(NAMES, NAMES, 0), exchanged(NAMES, 0)
    y = drawn("planted", 24, 16, 1)
    x = drawn("noise", 24, 16, 12) + y * drawn("direction", 12)
    r2, shuffled = read_out(x, np.concatenate([y, y[other]], axis=2), fold)
    assert r2 > 0.8
    assert shuffled < 0.02


def test_what_tells_samples_apart_is_no_read_out() -> None:
    """Each sample has a map of one value and tokens that name it: a split of tokens would give R² 1."""
    x = np.repeat(np.eye(24)[:, None], 16, axis=1) + 0.01 * drawn("names", 24, 16, 24)
    y = np.repeat(drawn("values", 24, 1, 1), 16, axis=1)
    assert read_out(x, y, folds(NAMES, NAMES, 0))[0] < 0.1
    of_tokens = np.arange(24 * 16) % FOLDS
    assert read_out(x.reshape(-1, 1, 24), y.reshape(-1, 1, 1), of_tokens)[0] > 0.9


def test_the_mean_map_alone_is_worth_nothing() -> None:
    """Tokens that know their position, and maps that are the same for all samples but for noise."""
    y = drawn("template", 1, 16, 1) * 10 + drawn("wobble", 24, 16, 1)
    x = np.repeat(np.eye(16)[None], 24, axis=0)
    assert read_out(x, y, folds(NAMES, NAMES, 0))[0] == pytest.approx(0, abs=1e-6)


def test_a_map_that_never_varies_has_no_r2() -> None:
    y = np.concatenate([np.full((24, 9, 1), 0.3), drawn("varies", 24, 9, 1)], axis=2)
    found = read_out(drawn("tokens", 24, 9, 4), y, folds(NAMES, NAMES, 0))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


def test_folds_are_of_whole_groups_where_there_are_enough() -> None:
    groups = [f"class {n % 10}" for n in range(24)]
    fold = folds(NAMES, groups, 0)
    assert set(fold) == set(range(FOLDS))
    for first, second in itertools.combinations(range(24), 2):
        if groups[first] == groups[second]:
            assert fold[first] == fold[second]
    # of two prompts, samples are dealt: as many a fold
    assert np.bincount(folds(NAMES, [f"prompt {n % 2}" for n in range(24)], 0)).tolist() == [6] * FOLDS
    # by name, whatever the order
    order = np.random.default_rng(0).permutation(24)
    for of in (groups, ["one"] * 24):
        moved = folds([NAMES[i] for i in order], [of[i] for i in order], 0)
        np.testing.assert_array_equal(moved, folds(NAMES, of, 0)[order])
    with pytest.raises(ValueError, match="3 samples; read-outs need at least 4"):
        folds(NAMES[:3], NAMES[:3], 0)


def test_no_sample_keeps_its_own_map() -> None:
    for count in (2, 3, 24):
        other = exchanged(NAMES[:count], 0)
        assert sorted(other) == list(range(count))
        assert (other != np.arange(count)).all()
    with pytest.raises(ValueError, match="single sample"):
        exchanged(NAMES[:1], 0)


def test_mistakes_are_named() -> None:
    moments = Moments(4, 3, 1, torch.device("cpu"))
    assert sum(each.numel() * 8 for each in (moments.x, moments.xx)) == Moments.size(4, 3)
    moments.add(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1), np.array([0, 1]))
    with pytest.raises(ValueError, match="a fold has no samples"):
        moments.held_out(PENALTIES)
    with pytest.raises(ValueError, match=r"penalties \[0.0\]: each must be above 0"):
        moments.held_out([0.0])


def square(side: int = 32) -> np.ndarray:
    image = np.zeros((side, side, 3), np.float32)
    image[8:24, 8:24] = 1
    return image


def test_maps_of_a_square() -> None:
    edges, _, shape = np.moveaxis(image_maps(square()), 2, 0)
    np.testing.assert_array_equal(shape, square()[..., 0])
    assert edges[8, 16] > 0.2
    assert edges[16, 16] < 1e-3
    assert edges[0, 0] < 1e-3
    # what is dark within light is the shape, too
    np.testing.assert_array_equal(image_maps(1 - square())[..., 2], shape)
    stripes = np.full((32, 32, 3), 0.5, np.float32)
    stripes[:, 16:] += 0.2 * (-1.0) ** np.arange(16)[None, :, None]
    textured = image_maps(stripes)[..., 1]
    assert textured[16, 26] > 20 * textured[16, 4] + 0.05


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_images_of_one_colour_have_no_maps(value: float) -> None:
    found = image_maps(np.full((16, 16, 3), value, np.float32))
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_maps_are_averaged_over_the_cells_of_tokens() -> None:
    images = np.stack([square(), 1 - square()])
    found = token_maps(images, {(4, 4), (2, 8)})
    assert found[4, 4].shape == (2, 16, len(MAPS))
    maps = image_maps(images[0])
    np.testing.assert_allclose(found[4, 4][0], maps.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3)).reshape(16, 3), atol=1e-9)
    np.testing.assert_allclose(found[2, 8][0], maps.reshape(2, 16, 8, 4, 3).mean(axis=(1, 3)).reshape(16, 3), atol=1e-9)
    # a cell of 32 / 5 pixels takes parts of them, so that means stay
    np.testing.assert_allclose(token_maps(images, {(5, 5)})[5, 5][0].mean(axis=0), maps.mean(axis=(0, 1)), atol=1e-6)
    with pytest.raises(ValueError, match=r"a token grid of 64 x 64 is finer than images of shape \(32, 32\)"):
        token_maps(images, {(64, 64)})
    images[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="expected finite values"):
        token_maps(images, {(4, 4)})
