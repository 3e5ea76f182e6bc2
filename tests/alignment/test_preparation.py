import numpy as np
import pytest
import torch

from diffalign.alignment.arrays import measure
from diffalign.alignment.dissimilarities import RbfRows, _rbf
from diffalign.alignment.metrics import METRICS
from diffalign.alignment.preparation import (
    FeatureError,
    clamp_bound,
    directions,
    kernel_rows,
    spread,
    unit_rows,
    whitened,
)
from diffalign.alignment.settings import PARITY, PARITY_EPS, Preparation


def names(count: int) -> list[str]:
    return [f"image{i}" for i in range(count)]


def features(seed: int = 0, count: int = 100, width: int = 20) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, width)) * np.linspace(0.2, 4, width) + 0.5).astype(np.float32)


def normalised(values: np.ndarray) -> np.ndarray:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("shape", [(100, 20), (7, 3), (1, 5)])
def test_the_exact_bound_is_one_of_the_sorted_magnitudes(quantile: float, shape: tuple[int, int]) -> None:
    values = features(0, *shape)
    ordered = np.sort(np.abs(values).ravel())
    expected = ordered[min(int(quantile * values.size), values.size - 1)]
    assert clamp_bound([values], quantile, "exact") == expected


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.95, 0.999, 1.0])
def test_the_bound_per_image_is_the_mean_of_torch_quantiles(quantile: float) -> None:
    values = features()
    expected = torch.quantile(torch.from_numpy(values).abs(), quantile, dim=1).mean()
    assert clamp_bound([values], quantile, "per_image") == pytest.approx(float(expected), rel=1e-6)


def test_layers_of_a_model_are_pooled_as_one_tensor() -> None:
    layers = [features(seed) * (seed + 1) for seed in range(3)]
    pooled = torch.from_numpy(np.stack(layers, axis=1)).abs()
    assert pooled.shape == (100, 3, 20)
    per_image = torch.quantile(pooled.flatten(start_dim=1), 0.95, dim=1).mean()
    assert clamp_bound(layers, 0.95, "per_image") == pytest.approx(float(per_image), rel=1e-6)
    exact = pooled.flatten().sort().values[int(0.95 * pooled.numel())]
    assert clamp_bound(layers, 0.95, "exact") == float(exact)
    assert clamp_bound(layers, 0.95, "exact") != clamp_bound(layers[:1], 0.95, "exact")


def test_layers_of_different_widths_can_be_pooled() -> None:
    layers = [features(0, 50, 8), features(1, 50, 12)]
    joined = np.concatenate([np.abs(x) for x in layers], axis=1)
    assert clamp_bound(layers, 0.9, "per_image") == pytest.approx(np.quantile(joined, 0.9, axis=1).mean(), rel=1e-6)
    assert clamp_bound(layers, 0.9, "exact") == np.sort(joined.ravel())[int(0.9 * joined.size)]


def test_bounds_leave_the_features_as_they_were() -> None:
    values = features()
    before = values.copy()
    for rule in ("exact", "per_image"):
        clamp_bound([values], 0.95, rule)
        unit_rows(values, names(100), Preparation(clamp=0.95, clamp_rule=rule, center=True))
    assert np.array_equal(values, before)


@pytest.mark.parametrize("rule", ["exact", "per_image"])
def test_rows_are_clamped_before_they_are_divided_by_their_norm(rule: str) -> None:
    values = features()
    bound = clamp_bound([values], 0.95, rule)
    rows = unit_rows(values, names(100), Preparation(clamp=0.95, clamp_rule=rule))
    assert np.allclose(rows, normalised(np.clip(values, -bound, bound)), atol=1e-7)
    given = unit_rows(values, names(100), Preparation(clamp=0.95, clamp_rule=rule), bound)
    assert np.array_equal(given, rows)


def test_a_clamp_at_the_largest_magnitude_changes_nothing() -> None:
    values = features()
    assert np.array_equal(unit_rows(values, names(100), Preparation(clamp=1)), unit_rows(values, names(100)))


def test_a_bound_of_all_layers_must_be_given() -> None:
    preparation = Preparation(clamp=0.95, clamp_over="model")
    with pytest.raises(ValueError, match="clamp_over 'model' needs the bound of all layers of the model"):
        unit_rows(features(), names(100), preparation)
    rows = unit_rows(features(), names(100), preparation, 0.7)
    assert np.allclose(rows, normalised(np.clip(features(), -0.7, 0.7)), atol=1e-7)


def test_a_bound_is_of_no_use_without_a_clamp() -> None:
    values = features()
    assert np.array_equal(unit_rows(values, names(100), Preparation(), 0.1), unit_rows(values, names(100)))


def test_rows_have_unit_norm() -> None:
    rows = unit_rows(features() + 5, names(100))
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert np.allclose(rows, normalised(features().astype(np.float64) + 5), atol=1e-6)
    for dtype in (np.float16, np.float64):
        typed = (features() + 5).astype(dtype)
        assert np.allclose(unit_rows(typed, names(100)), normalised(typed.astype(np.float64)), atol=1e-6)


def test_centring_takes_the_mean_of_every_dimension_off() -> None:
    values = features() + 5
    double = values.astype(np.float64)
    expected = normalised(double - double.mean(axis=0))
    assert np.allclose(unit_rows(values, names(100), Preparation(center=True)), expected, atol=1e-6)


def test_centring_follows_clamping() -> None:
    values = features()
    bound = clamp_bound([values], 0.8, "exact")
    clipped = np.clip(values, -bound, bound).astype(np.float64)
    rows = unit_rows(values, names(100), Preparation(clamp=0.8, center=True))
    assert np.allclose(rows, normalised(clipped - clipped.mean(axis=0)), atol=1e-6)


def test_whitened_features_have_the_identity_for_covariance() -> None:
    mixed = features() @ np.random.default_rng(1).standard_normal((20, 20))
    white = whitened(mixed)
    assert white.shape == (100, 20)
    assert np.allclose(white.mean(axis=0), 0, atol=1e-10)
    assert np.allclose(np.cov(white.T), np.eye(20), atol=1e-8)


def test_whitening_does_not_see_linear_maps() -> None:
    """Whitened rows are the same up to a rotation, so their products are the same."""
    mixed = features() @ np.random.default_rng(1).standard_normal((20, 20)) + 3
    ours, theirs = (whitened(x) for x in (features(), mixed))
    assert np.allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-6)
    rows = [unit_rows(x.astype(np.float32), names(100), Preparation(whiten=True)) for x in (features(), mixed)]
    assert np.allclose(rows[0] @ rows[0].T, rows[1] @ rows[1].T, atol=1e-3)
    assert np.allclose(np.linalg.norm(rows[0], axis=1), 1, atol=1e-6)


def test_whitening_leaves_out_directions_without_variance() -> None:
    doubled = np.concatenate([features(), features()[:, :5], np.ones((100, 1), np.float32)], axis=1)
    white = whitened(doubled)
    assert white.shape == (100, 20)
    assert np.allclose(np.cov(white.T), np.eye(20), atol=1e-6)


def test_whitening_needs_more_images_than_dimensions() -> None:
    assert whitened(features(0, 22, 20)).shape == (22, 20)
    for count in (21, 20, 5):
        with pytest.raises(FeatureError, match=f"whitening 20 dimensions needs more than 21 images, got {count}"):
            unit_rows(features(0, count, 20), names(count), Preparation(whiten=True))


def test_parity_with_the_published_scripts() -> None:
    assert PARITY["platonic"] == Preparation(clamp=0.95, clamp_rule="per_image", clamp_over="model")
    assert PARITY["vfm-vae"] == Preparation(clamp=0.95, clamp_rule="exact", clamp_over="layer")
    assert set(PARITY) == {"platonic", "vfm-vae"}
    assert PARITY_EPS == 1e-6
    assert not any(preparation.center or preparation.whiten for preparation in PARITY.values())
    assert METRICS["cknna"].scaled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clamp_rule": "mean"}, "unknown clamp_rule 'mean'; allowed: exact, per_image"),
        ({"clamp_over": "image"}, "unknown clamp_over 'image'; allowed: layer, model"),
        ({"clamp": 0}, "clamp 0: a quantile is above 0 and at most 1"),
        ({"clamp": 1.5}, "clamp 1.5: a quantile is above 0 and at most 1"),
        ({"clamp": float("nan")}, "clamp nan"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preparation(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (0, "zero norm")]
)
def test_rows_without_direction_are_named(value: float, message: str) -> None:
    values = np.ones((9, 4), np.float32)
    values[2:9] = value
    with pytest.raises(
        FeatureError, match=f"7 of 9 images have .*{message}.*first: image2, image3, image4, image5, image6 …$"
    ):
        unit_rows(values, names(9))


def test_rows_that_centring_leaves_nothing_of() -> None:
    values = np.ones((9, 4), np.float32) / 3
    with pytest.raises(FeatureError, match="9 of 9 images have features of zero norm"):
        unit_rows(values, names(9), Preparation(center=True))


def test_features_beyond_float32_and_tables_of_another_shape() -> None:
    values = np.ones((3, 2))
    values[1, 0] = 1e300
    with pytest.raises(FeatureError, match="1 of 3 images have features beyond the range of float32, first: image1"):
        unit_rows(values, names(3))
    for shape in ((4,), (2, 3, 4), (0, 5), (5, 0)):
        with pytest.raises(FeatureError, match="features are a table of images and dimensions; got shape"):
            unit_rows(np.zeros(shape), names(shape[0]))


def test_large_and_small_features_keep_their_direction() -> None:
    values = features()
    rows = unit_rows(values, names(100))
    for scale in (1e-30, 1e30):
        assert np.allclose(unit_rows(values * np.float32(scale), names(100)), rows, atol=1e-5)


def test_the_spread_beside_a_common_mean() -> None:
    random = np.random.default_rng(0)
    for offset in (0.0, 3.0, 1e3, 1e5):
        rows = unit_rows((random.standard_normal((5000, 16)) + offset).astype(np.float32), names(5000))
        double = rows.astype(np.longdouble)
        mean = double.mean(axis=0)
        wanted = np.square(double - mean).sum() / np.square(double).sum()
        assert spread(rows) == pytest.approx(float(wanted), rel=1e-6)
        if offset < 100:
            # the share of the common mean, and the mean cosine of all pairs
            assert 1 - spread(rows) == pytest.approx(float((mean @ mean) / np.square(double).sum(axis=1).mean()))
            assert 1 - spread(rows) == pytest.approx(float((rows @ rows.T).mean()), abs=1e-5)


def kornblith(a: np.ndarray, b: np.ndarray) -> float:
    """Linear CKA of features as they are."""
    x, y = (side.astype(np.float64) - side.mean(axis=0, dtype=np.float64) for side in (a, b))
    return float(np.square(x.T @ y).sum() / np.sqrt(np.square(x.T @ x).sum()) / np.sqrt(np.square(y.T @ y).sum()))


def test_norms_are_kept_on_request() -> None:
    """Norms that vary on one side count in CKA as it was published, and not in CKA of unit rows; nor in lists."""
    a = features()
    b = a * np.random.default_rng(1).lognormal(0, 1.5, (100, 1)).astype(np.float32)
    kept = Preparation(normalize=None)
    assert measure("cka", a, b, preparation=kept).value == pytest.approx(kornblith(a, b), abs=1e-5)
    assert measure("cka", a, b).value > 0.999 > kornblith(a, b) + 0.2
    for metric in ("mutual_knn", "cknna"):
        found = measure(metric, a, b, k=5, preparation=kept).value
        assert found == pytest.approx(measure(metric, a, b, k=5).value, abs=1e-6)
    rows = kernel_rows(b, names(100), kept)
    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1)
    assert np.allclose(rows, b / np.sqrt(np.square(b, dtype=np.float64).sum(axis=1).mean()))
    assert np.allclose(directions(rows, kept), unit_rows(b, names(100)), atol=1e-7)
    unit = kernel_rows(b, names(100))
    assert np.array_equal(unit, unit_rows(b, names(100)))
    assert directions(unit, Preparation()) is unit
    # an RBF kernel of rows that are not of unit norm
    apart = np.square(rows[:, None].astype(np.float64) - rows).sum(axis=2)
    assert np.allclose(_rbf(RbfRows(rows, 0.7), slice(3, 9)), np.exp(-apart[3:9] / (2 * 0.49)), atol=1e-5)
    # no unit, so none of the scale either
    for metric in ("cka", "cka_rbf", "procrustes"):
        scaled = measure(metric, 1000 * a, b, preparation=kept).value
        assert scaled == pytest.approx(measure(metric, a, b, preparation=kept).value, abs=1e-5)
    with pytest.raises(ValueError, match="unknown normalize 'l1'; allowed: l2, None"):
        Preparation(normalize="l1")
