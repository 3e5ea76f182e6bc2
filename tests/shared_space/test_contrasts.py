"""Scores and contrasts on held-out images: against other implementations, and over many simulated studies."""

import dataclasses
import math

import numpy as np
import pytest

from diffalign.alignment import measure as measure_arrays
from diffalign.alignment.settings import Preparation
from diffalign.shared_space.contrasts import (
    METRICS,
    Drawing,
    Images,
    Measured,
    compare,
    measure,
    measure_fitted,
    nearest_shares,
    over_seeds,
)
from diffalign.shared_space.pairing import pairing

DRAWING = Drawing(19, 200, 0, (0.01, 0.1, 1.0), 5)


def images(count: int, prefix: str = "image") -> Images:
    return Images(
        tuple(f"{prefix}_{number:03d}" for number in range(count)), tuple("abc"[number % 3] for number in range(count))
    )


def views(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two noisy views of four dimensions; three labels are displaced."""
    draws = np.random.default_rng(seed)
    z = draws.standard_normal((count, 4))
    z[np.arange(count) % 3 == 1, 0] += 2
    z[np.arange(count) % 3 == 2, 1] += 2
    x, y = (z + noise * draws.standard_normal(z.shape) for _ in "xy")
    return x.astype(np.float32), y.astype(np.float32)


def measured(
    fitted: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    seed: int | None = None,
    drawing: Drawing = DRAWING,
) -> Measured:
    return measure(fitted, held_out, images(len(fitted[0]), "fit").names, images(len(held_out[0])), seed, drawing)


def scaled(sides: tuple[np.ndarray, np.ndarray], scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (sides[0] * scales).astype(np.float32), (sides[1] * scales).astype(np.float32)


def test_scores_are_those_of_pairing_and_of_the_engine_of_alignments() -> None:
    x, y = views(50, 0.4, 0)
    found = measured(views(40, 0.4, 1), (x, y))
    known = pairing(x, y, np.arange(50) % 3)
    assert found.estimates["own_index"].score == pytest.approx(known.own_index)
    assert found.estimates["own_label"].score == pytest.approx(known.own_cluster)
    for metric, engine in (("cka", "unbiased_cka"), ("cknna", "cknna")):
        expected = measure_arrays(engine, x, y, k=5, preparation=Preparation(center=True)).value
        assert found.estimates[metric].score == pytest.approx(expected, rel=1e-6)
    fitted = measure_fitted((x, y), images(50), found.prediction, DRAWING)
    for metric in ("own_index", "own_label", "cka", "cknna"):
        assert fitted[metric] == pytest.approx(found.estimates[metric].score, rel=1e-6)
    assert fitted["predictivity"] == found.prediction.cross_validated
    assert tuple(found.estimates) == METRICS


def test_equally_near_rows_share_credit() -> None:
    x = np.zeros((6, 2), np.float32)
    assert nearest_shares(x, x).toarray() == pytest.approx(np.full((6, 6), 1 / 6))
    blocks = nearest_shares(*views(40, 0.3, 0), memory_mb=0)
    assert np.array_equal(blocks.toarray(), nearest_shares(*views(40, 0.3, 0)).toarray())
    assert blocks.sum(axis=1) == pytest.approx(np.ones(40))


def test_p_and_null_are_of_moved_pairs() -> None:
    from diffalign.alignment.nulls import permutations

    x, y = views(40, 0.8, 3)
    drawing = dataclasses.replace(DRAWING, permutations=39)
    found = measured(views(30, 0.8, 4), (x, y), drawing=drawing)
    orders = list(permutations(40, 39, 0))
    labels = np.arange(40) % 3
    null = [pairing(x, y[order]).own_index for order in orders]
    assert found.estimates["own_index"].null_mean == pytest.approx(np.mean(null))
    assert (
        found.estimates["own_index"].p == (1 + sum(value >= found.estimates["own_index"].score for value in null)) / 40
    )
    # image order[i] of the second set takes the label of image i
    null = [float(np.mean(_own_label(x, y, labels, order))) for order in orders]
    assert found.estimates["own_label"].null_mean == pytest.approx(np.mean(null))


def _own_label(x: np.ndarray, y: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    distances = np.square(x[:, None] - y[None]).sum(axis=2)
    of_second = np.empty_like(labels)
    of_second[order] = labels
    there = labels == of_second[distances.argmin(axis=1)]
    back = of_second == labels[distances.argmin(axis=0)]
    return np.concatenate([there, back])


def test_a_contrast_is_the_difference_and_narrower_than_its_scores() -> None:
    fitted, held_out = views(60, 0.3, 5), views(60, 0.3, 6)
    whole = measured(fitted, held_out)
    scales = np.array([1, 1, 0.7, 0.7])
    part = measured(scaled(fitted, scales), scaled(held_out, scales))
    for metric in METRICS:
        found = compare(metric, [whole], [part], images(60), DRAWING)
        assert found.difference == pytest.approx(whole.estimates[metric].score - part.estimates[metric].score)
        assert found.low < found.difference < found.high
        estimate = whole.estimates[metric]
        assert found.high - found.low < estimate.high - estimate.low
        nothing = compare(metric, [whole], [whole], images(60), DRAWING)
        assert nothing.difference == 0
        assert nothing.low <= 0 <= nothing.high
        turned = compare(metric, [part], [whole], images(60), DRAWING)
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


def test_all_or_no_credit_leaves_an_interval() -> None:
    x, y = views(40, 0.0, 7)
    found = measured((x, y), (x, y)).estimates["own_index"]
    assert (found.score, found.high) == (1, 1)
    assert 0.85 < found.low < 0.98
    far = measured((x, y), (x, np.roll(y, 1, axis=0)))
    assert far.estimates["own_index"].score == 0
    assert far.estimates["own_index"].low == 0
    assert 0.02 < far.estimates["own_index"].high < 0.15


def test_seeds_widen_intervals_and_a_single_one_leaves_them_unknown() -> None:
    fitted, held_out = views(60, 0.3, 8), views(60, 0.3, 9)
    draws = np.random.default_rng(0)
    base = measured(fitted, held_out)
    trained = []
    for seed in range(4):
        scales = np.exp(0.8 * draws.standard_normal(4))
        trained.append(measured(scaled(fitted, scales), scaled(held_out, scales), seed))
    as_if_fixed = [dataclasses.replace(run, seed=None) for run in trained]
    for metric in METRICS:
        found = compare(metric, trained, [base], images(60), DRAWING)
        fixed = compare(metric, as_if_fixed, [base], images(60), DRAWING)
        values = np.array([run.estimates[metric].score for run in trained])
        assert found.difference == pytest.approx(values.mean() - base.estimates[metric].score)
        assert (found.high - found.low) > 1.02 * (fixed.high - fixed.low)
        # no narrower than over seeds alone would be by the normal distribution
        assert (found.high - found.low) / 2 > 1.96 * values.std(ddof=1) / 2
        mean = over_seeds(metric, trained, images(60), DRAWING)
        assert mean.score == pytest.approx(values.mean())
        assert mean.p == pytest.approx(min(1, 2 * np.mean([run.estimates[metric].p for run in trained])))
        alone = compare(metric, trained[:1], [base], images(60), DRAWING)
        assert math.isfinite(alone.difference)
        assert math.isnan(alone.low)
        assert math.isnan(alone.high)


def test_a_row_without_direction_leaves_cka_undefined_and_the_rest_not() -> None:
    _, y = views(41, 0.3, 10)
    half = np.random.default_rng(0).integers(-9, 9, (20, 4))
    # whole numbers with a mean of exactly 0, and one row there
    x = np.concatenate([half, -half, np.zeros((1, 4))]).astype(np.float32)
    found = measured(views(41, 0.3, 11), (x, y))
    assert math.isnan(found.estimates["cka"].score)
    assert math.isnan(found.estimates["cknna"].p)
    assert math.isnan(compare("cka", [found], [found], images(41), DRAWING).difference)
    assert math.isnan(measure_fitted((x, y), images(41), found.prediction, DRAWING)["cknna"])
    assert math.isfinite(found.estimates["own_index"].score)
    assert math.isfinite(found.estimates["predictivity"].high)


def test_sets_without_labels_have_no_score_of_labels() -> None:
    held_out = views(40, 0.3, 12)
    plain = Images(images(40).names, None)
    found = measure(views(40, 0.3, 13), held_out, images(40, "fit").names, plain, None, DRAWING)
    assert "own_label" not in found.estimates
    with pytest.raises(ValueError, match="own_label was not measured in 1 of 1 runs"):
        compare("own_label", [found], [], plain, DRAWING)


def test_wrong_input_is_refused() -> None:
    x, y = views(40, 0.3, 14)
    with pytest.raises(ValueError, match=r"held-out images are 40, .* \(40, 4\) and \(39, 4\)"):
        measure((x, y), (x, y[:39]), images(40, "fit").names, images(40), None, DRAWING)
    with pytest.raises(ValueError, match=r"fitted images are 39, .* expected \(39, d\) of both"):
        measure((x, y), (x, y), images(39, "fit").names, images(40), None, DRAWING)
    with pytest.raises(ValueError, match="k = 40 neighbours need at least 41 fitted images, got 40"):
        measured((x, y), (x, y), drawing=dataclasses.replace(DRAWING, k=40))
    with pytest.raises(ValueError, match="names of images are sorted"):
        Images(("b", "a"), None)
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        Images(("a", "b"), ("x",))


def test_p_is_uniform_where_images_have_nothing_in_common() -> None:
    # 1000 studies gave shares of .044, .036, .055, .038 and .045; one of .05 has a standard error of .0126 over 300
    p = []
    for seed in range(300):
        draws = np.random.default_rng(seed)
        sets = [draws.standard_normal((40, 5)).astype(np.float32) for _ in range(4)]
        found = measured((sets[0], sets[1]), (sets[2], sets[3]), drawing=dataclasses.replace(DRAWING, seed=seed))
        p.append([found.estimates[metric].p for metric in METRICS])
    shares = dict(zip(METRICS, (np.array(p) <= 0.05).mean(axis=0), strict=True))
    # of few values, so that ties make p larger
    least = {"own_index": 0.01, "own_label": 0.01}
    assert all(least.get(metric, 0.03) <= share <= 0.07 for metric, share in shares.items()), shares


def test_intervals_of_contrasts_hold_the_mean_over_studies() -> None:
    studies = 50
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for study in range(studies):
        fitted, held_out = views(60, 0.3, 2 * study), views(60, 0.3, 2 * study + 1)
        base = measured(scaled(fitted, np.array([1, 1, 0.2, 0.05])), scaled(held_out, np.array([1, 1, 0.2, 0.05])))
        whole = measured(fitted, held_out)
        trained = []
        for seed in range(3):
            # a training: its own scales of dimensions
            scales = np.exp(0.5 * np.random.default_rng((study, seed)).standard_normal(4))
            trained.append(measured(scaled(fitted, scales), scaled(held_out, scales), seed))
        for metric in METRICS:
            for kind, runs in (("fixed", [whole]), ("seeds", trained)):
                contrast = compare(metric, runs, [base], images(60), DRAWING)
                found.setdefault((metric, kind), []).append((contrast.difference, contrast.low, contrast.high))
    for key, rows in found.items():
        values, low, high = np.array(rows).T
        # 300 studies gave .88 to .99; a coverage of .9 has a standard error of .042 over 50
        assert ((low <= values.mean()) & (values.mean() <= high)).mean() >= 0.8, key
