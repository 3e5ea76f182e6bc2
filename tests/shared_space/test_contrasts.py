"""Scores and contrasts on held-out images: against other implementations, and over many simulated studies."""

import dataclasses
import math

import numpy as np
import pytest

from diffalign.alignment import measure as measure_arrays
from diffalign.alignment.groups import Groups
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
    return measure(fitted, held_out, images(len(fitted[0]), "fit"), images(len(held_out[0])), seed, drawing)


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
    assert "image_040" in found.estimates["cknna"].reason
    assert math.isnan(compare("cka", [found], [found], images(41), DRAWING).difference)
    assert math.isnan(measure_fitted((x, y), images(41), found.prediction, DRAWING)["cknna"])
    assert math.isfinite(found.estimates["own_index"].score)
    assert math.isfinite(found.estimates["predictivity"].high)


def test_sets_without_labels_have_no_score_of_labels() -> None:
    held_out = views(40, 0.3, 12)
    plain = Images(images(40).names, None)
    found = measure(views(40, 0.3, 13), held_out, images(40, "fit"), plain, None, DRAWING)
    assert "own_label" not in found.estimates
    with pytest.raises(ValueError, match="own_label was not measured in 1 of 1 runs"):
        compare("own_label", [found], [], plain, DRAWING)


def test_wrong_input_is_refused() -> None:
    x, y = views(40, 0.3, 14)
    with pytest.raises(ValueError, match=r"held-out images are 40, .* \(40, 4\) and \(39, 4\)"):
        measure((x, y), (x, y[:39]), images(40, "fit"), images(40), None, DRAWING)
    with pytest.raises(ValueError, match=r"fitted images are 39, .* expected \(39, d\) of both"):
        measure((x, y), (x, y), images(39, "fit"), images(40), None, DRAWING)
    with pytest.raises(ValueError, match="k = 40 neighbours need at least 41 fitted images, got 40"):
        measured((x, y), (x, y), drawing=dataclasses.replace(DRAWING, k=40))
    with pytest.raises(ValueError, match="names of images are sorted"):
        Images(("b", "a"), None)
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        Images(("a", "b"), ("x",))
    with pytest.raises(ValueError, match="1 groups for 2 images"):
        Images(("a", "b"), None, ("x",))
    one = dataclasses.replace(images(40), groups=("one",) * 40)
    with pytest.raises(ValueError, match="40 held-out images are 1 group; at least 2 are needed"):
        measure((x, y), (x, y), images(40, "fit"), one, None, DRAWING)
    halves = ("left", "right") * 20
    fit_halves, held_halves = (dataclasses.replace(images(40, prefix), groups=halves) for prefix in ("fit", "image"))
    with pytest.raises(ValueError, match="2 groups are both fitted and held out, first: left, right"):
        measure((x, y), (x, y), fit_halves, held_halves, None, DRAWING)


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


def grouped(sizes: list[int], prefix: str) -> Images:
    """Images of groups of some sizes."""
    groups = tuple(f"{prefix}_{group:02d}" for group, size in enumerate(sizes) for _ in range(size))
    return Images(tuple(f"{group}_{number:03d}" for number, group in enumerate(groups)), None, groups)


def codes(of: Images, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets that each encode the groups, in ways that have nothing in common."""
    draws = np.random.default_rng(seed)
    noise = 0.5 * draws.standard_normal((2, len(of.names), 8))
    x, y = draws.standard_normal((2, of.units.count, 8))[:, of.units.codes] + noise
    return x.astype(np.float32), y.astype(np.float32)


def test_groups_of_one_image_change_nothing() -> None:
    fitted, held_out = views(40, 0.4, 20), views(40, 0.6, 21)
    fit_images, of = images(40, "fit"), images(40)
    own = dataclasses.replace(of, groups=of.names)
    renamed = dataclasses.replace(of, groups=tuple(f"group of {name}" for name in of.names))
    expected = measure(fitted, held_out, fit_images, of, None, DRAWING).estimates
    assert measure(fitted, held_out, fit_images, own, None, DRAWING).estimates == expected
    # names alone key the parts of a jackknife
    assert measure(fitted, held_out, fit_images, renamed, None, DRAWING).estimates == expected


def test_codes_of_groups_alone_are_no_alignment() -> None:
    # exchanged by image, p of CKA, CKNNA and predictivity was .05 or less in all studies; 300 studies of groups of 16
    # images gave .027, .027, .040 and .037
    p, r2 = [], []
    for seed in range(40):
        fit_images, held_out = grouped([8] * 10, "fit"), grouped([8] * 10, "out")
        drawing = dataclasses.replace(DRAWING, seed=seed)
        found = measure(codes(fit_images, 2 * seed), codes(held_out, 2 * seed + 1), fit_images, held_out, None, drawing)
        p.append([each.p for each in found.estimates.values()])
        r2.append(found.estimates["predictivity"].score)
    assert ((np.array(p) <= 0.05).mean(axis=0) <= 0.15).all()
    assert np.mean(r2) < 0


def test_whole_groups_of_one_size_are_exchanged() -> None:
    fit_images, held_out = grouped([6] * 8, "fit"), grouped([5, 3, 5, 5, 3, 5, 5, 7], "out")
    x, y = codes(held_out, 1)
    y[:, :4] = x[:, :4]
    found = measure(codes(fit_images, 0), (x, y), fit_images, held_out, None, DRAWING).estimates["own_index"]
    orders = list(Groups.of([name[:6] for name in held_out.names]).exchanges.orders(19, 0))
    null = [pairing(x, y[order]).own_index for order in orders]
    assert found.null_mean == pytest.approx(np.mean(null))
    assert found.p == (1 + sum(value >= found.score - 1e-9 for value in null)) / 20


def test_few_arrangements_of_groups_leave_no_p_and_say_so() -> None:
    fit_images, held_out = grouped([6] * 8, "fit"), grouped([12, 12, 10, 11, 13, 14], "out")
    x, y = codes(held_out, 1)
    found = measure(codes(fit_images, 0), (x, y), fit_images, held_out, None, DRAWING)
    for estimate in found.estimates.values():
        assert math.isnan(estimate.p)
        assert math.isnan(estimate.null_mean)
        assert math.isfinite(estimate.low)
        assert estimate.reason == (
            "6 groups (1 of 10, 1 of 11, 2 of 12, 1 of 13, 1 of 14 images) have 2 arrangements (whole groups of one "
            "size); significance at 0.05 needs at least 20"
        )
    again = over_seeds("cka", [dataclasses.replace(found, seed=seed) for seed in (0, 1)], held_out, DRAWING)
    assert math.isnan(again.p)
    assert again.reason.startswith("6 groups")


def test_copies_of_images_do_not_narrow_intervals() -> None:
    x, y = views(20, 0.5, 30)
    labels = images(20).labels
    assert labels is not None
    copies = Images(
        tuple(f"{number:03d}" for number in range(100)),
        tuple(np.repeat(labels, 5)),
        tuple(f"group_{number // 5:02d}" for number in range(100)),
    )
    fitted = views(40, 0.5, 31)
    spread = 1e-4 * np.random.default_rng(0).standard_normal((2, 100, 4))
    many = tuple(
        (np.repeat(side, 5, axis=0) + noise).astype(np.float32) for side, noise in zip((x, y), spread, strict=True)
    )
    part = np.array([1, 1, 0.5, 0.2])

    def widths(both: tuple[np.ndarray, np.ndarray], of: Images) -> dict[str, tuple[float, float]]:
        one = measure(fitted, both, images(40, "fit"), of, None, DRAWING)
        other = measure(scaled(fitted, part), scaled(both, part), images(40, "fit"), of, None, DRAWING)
        gains = {metric: compare(metric, [one], [other], of, DRAWING) for metric in ("own_label", "predictivity")}
        return {
            metric: (one.estimates[metric].high - one.estimates[metric].low, gains[metric].high - gains[metric].low)
            for metric in gains
        }

    singles, groups, naive = (
        widths((x, y), images(20)),
        widths(many, copies),
        widths(many, dataclasses.replace(copies, groups=None)),
    )
    for metric, of_singles in singles.items():
        for single, group, wrong in zip(of_singles, groups[metric], naive[metric], strict=True):
            # Student's t of 19 degrees in place of the normal distribution, and draws of the bootstrap
            assert 0.9 < group / single < 1.3, metric
            assert wrong / single < 0.7, metric


def test_intervals_over_groups_hold_the_mean_over_studies() -> None:
    fit_images, held_out = grouped([6] * 12, "fit"), grouped([6] * 12, "out")
    found: dict[str, list[tuple[float, float, float]]] = {}
    for study in range(40):
        sides = []
        for of, shift in ((fit_images, 0), (held_out, 1)):
            common, own = codes(of, 4 * study + shift)[0], codes(of, 4 * study + 2 + shift)
            sides.append(((common + 0.5 * own[0]).astype(np.float32), (common + 0.5 * own[1]).astype(np.float32)))
        whole = measure(sides[0], sides[1], fit_images, held_out, None, DRAWING)
        scales = np.array([1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2])
        part = measure(scaled(sides[0], scales), scaled(sides[1], scales), fit_images, held_out, None, DRAWING)
        for metric, score in whole.estimates.items():
            gain = compare(metric, [whole], [part], held_out, DRAWING)
            found.setdefault(metric, []).append((score.score, score.low, score.high))
            found.setdefault(f"gain of {metric}", []).append((gain.difference, gain.low, gain.high))
    for key, rows in found.items():
        values, low, high = np.array(rows).T
        assert ((low <= values.mean()) & (values.mean() <= high)).mean() >= 0.8, key
