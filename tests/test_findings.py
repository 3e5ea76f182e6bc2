"""Findings: the sentences that small tables made by hand must give, word by word."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diffalign.io import tables
from findings import Sources, direction, findings
from image_dynamics import ORDER
from shared_scores import CONTRASTS as GAINS
from shared_scores import SCORES as SHARED_SCORES
from shared_space import CONSISTENCY
from through_training_table import CONTRASTS, CORRELATIONS, STEPS

NAN = math.nan
SIT, REPA = "SiT", "SiT + REPA"


def step(step: int, mean: float, gain: tuple[float, float, float], **changes: Any) -> dict[str, Any]:
    """A row of the means over trainings: by default of unbiased CKA over three trainings of SiT."""
    known = {"recipe": SIT, "quantity": "alignment", "measure": "unbiased_cka", "scale": "calibrated", "trainings": 3}
    bounds = {"low": mean - 0.02, "high": mean + 0.02}
    gains = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    paired = {"gain_trainings": 3, "gain_from": mean - gain[0], "gain_to": mean}
    return {**known, "step": step, "mean": mean, **bounds, **gains, **paired, **changes}


def contrast(step: int, difference: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    known = {"recipe": REPA, "other": SIT, "quantity": "alignment", "measure": "unbiased_cka"}
    return {
        **known,
        "scale": "calibrated",
        "trainings": 3,
        "step": step,
        "difference": difference,
        "low": low,
        "high": high,
        **changes,
    }


def correlation(rho: float, p: float, low: float, high: float, reason: str = "", recipes: int = 1) -> dict[str, Any]:
    known = {"metric": "unbiased_cka", "scale": "calibrated", "measure": "share_of_class", "trainings": 6, "steps": 3}
    return {**known, "rho": rho, "p": p, "low": low, "high": high, "recipes": recipes, "reason": reason}


def score(source: str, level: float, layer: str, second_half: float, **changes: Any) -> dict[str, Any]:
    """A row of an atlas, with the columns that findings read."""
    known = {"model": "digits.sit", "metric": "unbiased_cka", "n": 1000}
    more = {
        "second_half_low": second_half - 0.02,
        "second_half_high": second_half + 0.02,
        "n_second_half": 500,
        "groups_second_half": 500,
        "chosen": False,
        "maximum_p": 0.005,
        "second_half_p": 0.005,
        "leak": None,
    }
    return {**known, **more, "source": source, "level": level, "layer": layer, "second_half": second_half, **changes}


def share(given: str, value: float, low: float, high: float, layer: str = "b3", level: float = 0.3) -> dict[str, Any]:
    bounds = {"share": value, "share_low": low, "share_high": high}
    return {"model": "digits.sit", "level": level, "layer": layer, "given": given, **bounds, "n": 1000, "reason": None}


# the maximum at b3 and t = 0.3, and pure noise
SCORES = (
    score("trained", 0.3, "b2", 0.25),
    score("trained", 0.3, "b3", 0.30, chosen=True),
    score("trained", 1.0, "b3", 0.001, maximum_p=0.43),
    score("untrained", 0.3, "b2", 0.05),
    score("untrained", 0.3, "b3", 0.04, chosen=True),
    score("labels", NAN, "labels", 0.6, chosen=True),
)
SHARES = (
    share("labels+pixels_p8+untrained", 0.52, 0.45, 0.59),
    share("labels", 0.7, 0.6, 0.8),
    share("pixels_p8", 0.9, 0.8, 1.0),
    share("labels+pixels_p8+untrained", 0.1, 0.0, 0.2, layer="b2"),
    share("labels+pixels_p8+untrained", 0.2, 0.1, 0.3, level=1.0),
)


def of_trainings(
    folder: Path,
    steps: Sequence[Mapping[str, Any]] = (),
    contrasts: Sequence[Mapping[str, Any]] = (),
    correlations: Sequence[Mapping[str, Any]] = (),
    metrics: Sequence[str] = ("unbiased_cka",),
) -> pd.DataFrame:
    given = {"steps": (steps, STEPS), "contrasts": (contrasts, CONTRASTS), "correlations": (correlations, CORRELATIONS)}
    for name, (rows, columns) in given.items():
        tables.write_tsv(tables.frame(rows, columns), folder / f"{name}.tsv")
    return found(folder, Sources([], **{name: folder / f"{name}.tsv" for name in given}), metrics)


def of_atlas(
    folder: Path,
    scores: Sequence[Mapping[str, Any]] = SCORES,
    shares: Sequence[Mapping[str, Any]] = SHARES,
    metrics: Sequence[str] = ("unbiased_cka",),
) -> pd.DataFrame:
    files = folder / "scores.tsv", folder / "beyond.tsv"
    for rows, file in zip((scores, shares), files, strict=True):
        tables.write_tsv(pd.DataFrame(rows), file)
    return found(folder, Sources([files]), metrics)


def found(folder: Path, sources: Sources, metrics: Sequence[str]) -> pd.DataFrame:
    """The table of findings, whose sentences are the lines of the text."""
    outputs = folder / "findings.tsv", folder / "findings.parquet", folder / "findings.txt"
    findings(sources, metrics, "digits.vit_final", outputs)
    table = pd.read_csv(outputs[0], sep="\t")
    assert table["sentence"].tolist() == pd.read_parquet(outputs[1])["sentence"].tolist()
    assert table["sentence"].tolist() == outputs[2].read_text(encoding="utf-8").splitlines()
    return table


def test_a_gain_is_told_with_both_ends_and_its_interval(tmp_path: Path) -> None:
    # rows in no order: the first and the last step count
    steps = [step(600, 0.24, (0.19, 0.15, 0.23)), step(0, 0.05, (0, 0, 0)), step(300, 0.3, (0.25, 0.2, 0.3))]
    (row,) = of_trainings(tmp_path, steps).to_dict("records")
    assert row["sentence"] == (
        "SiT: calibrated unbiased_cka with digits.vit_final rises from 0.050 at step 0 to 0.240 at step 600: +0.190 "
        "[0.150, 0.230] over 3 trainings."
    )
    known = {key: row[key] for key in ("topic", "measure", "value", "low", "high", "over")}
    assert known == {
        "topic": "training",
        "measure": "unbiased_cka",
        "value": 0.19,
        "low": 0.15,
        "high": 0.23,
        "over": "3 trainings",
    }


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ((-0.1, -0.15, -0.05), "falls from 0.200 at step 0 to 0.100 at step 600: -0.100 [-0.150, -0.050] over 3"),
        (
            (0.1, -0.02, 0.22),
            "is not shown to change from 0.000 at step 0 to 0.100 at step 600: +0.100 [-0.020, 0.220]",
        ),
        ((0.1, NAN, NAN), "is not shown to change from 0.000 at step 0 to 0.100 at step 600: +0.100 (no interval)"),
    ],
    ids=("loss", "neither", "no-interval"),
)
def test_the_interval_decides_whether_alignment_is_said_to_change(
    gain: tuple[float, float, float], said: str, tmp_path: Path
) -> None:
    table = of_trainings(tmp_path, [step(0, 0.05, (0, 0, 0)), step(600, 0.1, gain)])
    assert said in table["sentence"].item()


def test_without_step_0_no_gain_is_told(tmp_path: Path) -> None:
    none = (NAN, NAN, NAN)
    table = of_trainings(tmp_path, [step(100, 0.1, none), step(300, 0.2, none, trainings=1, low=NAN, high=NAN)])
    assert table["sentence"].item() == (
        "SiT: calibrated unbiased_cka with digits.vit_final is 0.200 (no interval) at step 300 over 1 training; there "
        "is no value at step 0 beside it, so nothing is said of its gain."
    )
    assert table["value"].item() == 0.2


def test_a_gain_is_told_of_the_trainings_that_have_both_ends(tmp_path: Path) -> None:
    """Three trainings are there at the last step, and two of them at step 0."""
    paired = {"gain_trainings": 2, "gain_from": 0.002, "gain_to": 0.117}
    steps = [step(0, 0.0, (0, NAN, NAN), trainings=2), step(100, 0.11, (0.115, 0.051, 0.179), **paired)]
    assert of_trainings(tmp_path, steps)["sentence"].item() == (
        "SiT: calibrated unbiased_cka with digits.vit_final rises from 0.002 at step 0 to 0.117 at step 100: +0.115 "
        "[0.051, 0.179] over 2 trainings."
    )


def test_raw_scores_are_not_called_calibrated(tmp_path: Path) -> None:
    raw = {"measure": "rsa_pearson", "scale": "raw"}
    table = of_trainings(
        tmp_path,
        [step(600, 0.2, (0.1, 0.05, 0.15), **raw)],
        [contrast(600, 0.1, 0.05, 0.15, **raw)],
        [correlation(0.5, 0.04, 0.1, 0.9) | {"metric": "rsa_pearson", "scale": "raw"}],
        ["rsa_pearson"],
    )
    assert len(table) == 3
    assert not table["sentence"].str.contains("calibrated").any()
    assert table["sentence"].str.contains("rsa_pearson").all()


def test_quality_is_told_by_its_name_after_all_metrics(tmp_path: Path) -> None:
    gain = (0.5, 0.4, 0.6)
    quality = {"quantity": "quality", "measure": "share_of_class"}
    own = {"quantity": "quality", "measure": "FID"}
    steps = [
        row
        for more in (own, quality, {}, {"measure": "cknna"})
        for row in (step(0, 0.1, (0, 0, 0), **more), step(600, 0.6, gain, **more))
    ]
    table = of_trainings(tmp_path, steps, metrics=("cknna", "unbiased_cka"))
    assert table["measure"].tolist() == ["cknna", "unbiased_cka", "FID", "share_of_class"]
    assert "SiT: FID rises from 0.100" in table["sentence"][2]
    assert table["sentence"][3].startswith("SiT: share assigned to own class rises from 0.100 at step 0 to 0.600")


def test_recipes_are_compared_at_the_last_step_that_both_have(tmp_path: Path) -> None:
    contrasts = [
        contrast(100, 0.4, 0.3, 0.5),
        contrast(600, 0.031, 0.012, 0.05),
        contrast(100, -4.0, -5.0, -3.0, quantity="quality", measure="frechet"),
        contrast(300, -2.0, -4.5, 0.5, quantity="quality", measure="frechet", trainings=1),
        contrast(100, -0.2, -0.3, -0.1, recipe="SiT + SRA"),
    ]
    quality = [step(600, 9.0, (NAN, NAN, NAN), quantity="quality", measure="frechet")]
    table = of_trainings(tmp_path, quality, contrasts)
    told = table.loc[table["topic"] == "recipes", "sentence"].tolist()
    assert told == [
        "SiT + REPA beside SiT raises calibrated unbiased_cka at step 600: +0.031 [0.012, 0.050] over 3 pairs of "
        "trainings with one seed.",
        "SiT + SRA beside SiT lowers calibrated unbiased_cka at step 100: -0.200 [-0.300, -0.100] over 3 pairs of "
        "trainings with one seed.",
        "SiT + REPA beside SiT is not shown to change Fréchet distance at step 300: -2.000 [-4.500, 0.500] over 1 pair "
        "of trainings with one seed.",
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            correlation(0.62, 0.0139, 0.2, 0.9),
            "have the rank correlation +0.620 [0.200, 0.900] over 6 trainings, p = 0.014.",
        ),
        # three trainings have no interval
        (
            correlation(-0.5, 0.333, NAN, NAN, "no interval, since it is short"),
            "have the rank correlation -0.500 over 6 trainings, p = 0.33; no interval, since it is short.",
        ),
        (
            correlation(NAN, NAN, NAN, NAN, "one of them is the same"),
            "have no rank correlation over 6 trainings, because one of them is the same.",
        ),
    ],
    ids=("interval", "no-interval", "undefined"),
)
def test_alignment_and_quality_at_the_same_step(row: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    (told,) = of_trainings(tmp_path, correlations=[row])["sentence"]
    assert told == f"At the same step, calibrated unbiased_cka and share assigned to own class {said}"


def test_a_correlation_of_several_recipes_is_told_as_one_within_them(tmp_path: Path) -> None:
    rows = [correlation(0.62, NAN, NAN, NAN, "no p, since they are few", 2), correlation(0.5, 0.01, 0.1, 0.9, "", 2)]
    both = "At the same step and in the same recipe, calibrated unbiased_cka and share assigned to own class have the"
    assert of_trainings(tmp_path, correlations=rows)["sentence"].tolist() == [
        f"{both} rank correlation +0.620 over 6 trainings of 2 recipes; no p, since they are few.",
        f"{both} rank correlation +0.500 [0.100, 0.900] over 6 trainings of 2 recipes, p = 0.01.",
    ]


def test_a_recipe_that_is_trained_towards_the_reference_says_so(tmp_path: Path) -> None:
    rows = {
        "steps": ([step(0, 0.1, (0, 0, 0), recipe=REPA), step(600, 0.4, (0.3, 0.2, 0.4), recipe=REPA)], STEPS),
        "contrasts": (
            [contrast(600, 0.2, 0.1, 0.3), contrast(600, -1.0, -2.0, -0.5, quantity="quality", measure="frechet")],
            CONTRASTS,
        ),
        "correlations": ([], CORRELATIONS),
    }
    for name, (made, columns) in rows.items():
        tables.write_tsv(tables.frame(made, columns), tmp_path / f"{name}.tsv")
    outputs = tmp_path / "findings.tsv", tmp_path / "findings.parquet", tmp_path / "findings.txt"
    sources = Sources([], **{name: tmp_path / f"{name}.tsv" for name in rows})
    findings(sources, ["unbiased_cka"], "digits.vit_final", outputs, {REPA: "digits.vit"})
    gain, difference = outputs[2].read_text().splitlines()
    for sentence in (gain, difference):
        assert sentence.endswith("; SiT + REPA is trained towards digits.vit, the reference itself.")


def test_a_family_of_contrasts_tells_how_many_differ_and_the_clearest(tmp_path: Path) -> None:
    row = {"family": "levels", "metric": "cknna", "n": 200, "groups": 50}
    rows = [
        row | {"contrast": "a_vs_b_minus_c_vs_b", "difference": 0.2, "error": 0.1, "band_low": -0.1, "band_high": 0.5},
        row
        | {"contrast": "d_vs_b_minus_c_vs_b", "difference": -0.1, "error": 0.02, "band_low": -0.15, "band_high": -0.05},
        # equal, and undefined
        row | {"contrast": "c_vs_b_minus_b_vs_c", "difference": 0.0, "error": 0.0, "band_low": 0.0, "band_high": 0.0},
        row | {"contrast": "e_vs_b_minus_c_vs_b"},
    ]
    differs = [False, True, False, None]
    file = tmp_path / "levels.tsv"
    table = pd.DataFrame([each | {"differs": known} for each, known in zip(rows, differs, strict=True)])
    tables.write_tsv(table.astype({"differs": "boolean"}), file)
    (told,) = found(tmp_path, Sources([], families=[file]), ["cknna"]).to_dict("records")
    assert told["sentence"] == (
        "levels, cknna: 1 of 2 contrasts differ from 0 after correction over them; the clearest, d vs b minus c vs b, "
        "is -0.100, band [-0.150, -0.050] over 50 groups of 200 images."
    )
    assert (told["topic"], told["value"], told["high"]) == ("contrasts", -0.1, -0.05)


def test_an_atlas_tells_its_maximum_the_twin_the_floor_and_the_share(tmp_path: Path) -> None:
    table = of_atlas(tmp_path)
    assert table["topic"].tolist() == ["atlas", "floor", "controls"]
    assert table["sentence"].tolist() == [
        "digits.sit: unbiased_cka is highest at b3, t = 0.3, chosen on one half of the images; on the "
        "other it is 0.300 [0.280, 0.320] over 500 images, of the untrained twin there 0.040; it exceeds "
        "chance (q = 0.005 over 1 test).",
        "digits.sit: at t = 1, where it sees noise alone, the best layer lies at chance, as it must (unbiased_cka, "
        "p = 0.43, q = 0.43 over 1 test).",
        "digits.sit, b3, t = 0.3: of the shared covariance, 0.520 [0.450, 0.590] over 1000 images is left beyond "
        "labels + pixels_p8 + untrained.",
    ]
    assert table["value"].tolist() == [0.3, 0.43, 0.52]


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((0.01, -0.05, 0.07), "0.010 [-0.050, 0.070] over 1000 images is not shown to be left beyond labels."),
        ((-0.06, -0.09, -0.03), "-0.060 [-0.090, -0.030] over 1000 images is left, negative, beyond labels."),
        (
            (NAN, NAN, NAN),
            "no covariance is shown to be shared over 1000 images, so there is no share of it beyond labels.",
        ),
    ],
    ids=("none", "negative", "undefined"),
)
def test_what_is_left_beyond_controls(bounds: tuple[float, float, float], said: str, tmp_path: Path) -> None:
    told = of_atlas(tmp_path, shares=[share("labels", *bounds)])["sentence"].iloc[-1]
    assert told.startswith("digits.sit, b3, t = 0.3: ")
    assert told.endswith(said)
    assert "nan" not in told


def test_a_model_that_sees_something_in_pure_noise_is_told(tmp_path: Path) -> None:
    scores = [*SCORES[:2], score("trained", 1.0, "b3", 0.2, maximum_p=0.005), *SCORES[3:]]
    table = of_atlas(tmp_path, scores)
    told = table.loc[table["topic"] == "floor", "sentence"].item()
    assert told == (
        "digits.sit: at t = 1, where it sees noise alone, the best layer lies above chance: noise is shared, or the "
        "null is wrong (unbiased_cka, p = 0.005, q = 0.005 over 1 test)."
    )


def test_maxima_and_floors_are_corrected_over_atlases_and_metrics(tmp_path: Path) -> None:
    """One p of 0.03 is significant by itself and not among two."""
    changes = {"maximum_p": 0.03, "second_half_p": 0.03}
    first = [{**row, **changes} for row in SCORES]
    (maximum, floor, _) = of_atlas(tmp_path, first)["sentence"]
    assert maximum.endswith("; it exceeds chance (q = 0.03 over 1 test).")
    assert floor.endswith("noise is shared, or the null is wrong (unbiased_cka, p = 0.03, q = 0.03 over 1 test).")
    second = [{**row, "metric": "cknna", "maximum_p": 0.6, "second_half_p": 0.6} for row in SCORES]
    (maximum, floor, _, other, other_floor) = of_atlas(tmp_path, [*first, *second], metrics=["unbiased_cka", "cknna"])[
        "sentence"
    ]
    assert maximum.endswith("; it is not shown to exceed chance (q = 0.06 over 2 tests).")
    assert "the best layer lies above chance by itself, not among as many controls (" in floor
    assert other.endswith("; it is not shown to exceed chance (q = 0.6 over 2 tests).")
    assert "lies at chance, as it must (cknna, p = 0.6, q = 0.6 over 2 tests)" in other_floor


def test_a_metric_without_a_null_has_no_floor_and_one_without_an_error_no_interval(tmp_path: Path) -> None:
    unknown = dict.fromkeys(("maximum_p", "second_half_p", "second_half_low", "second_half_high"), NAN)
    scores = [{**row, "metric": "procrustes", **unknown} for row in SCORES]
    table = of_atlas(tmp_path, scores, metrics=["procrustes"])
    # a share is of linear covariance, so it is told at the maximum of any metric
    assert table["topic"].tolist() == ["atlas", "controls"]
    assert "on the other it is 0.300 (no interval) over 500 images" in table["sentence"][0]


def test_the_share_is_told_at_the_maximum_of_unbiased_cka_alone(tmp_path: Path) -> None:
    other = [{**row, "metric": "cknna", "chosen": row["layer"] != "b3"} for row in SCORES]
    table = of_atlas(tmp_path, [*SCORES, *other], metrics=["cknna", "unbiased_cka"])
    assert table["topic"].tolist() == ["atlas", "floor", "atlas", "floor", "controls"]
    assert "cknna is highest at b2, t = 0.3" in table["sentence"][0]
    assert table["sentence"][4].startswith("digits.sit, b3, t = 0.3: of the shared covariance, 0.520")


def test_an_interval_that_touches_zero_shows_nothing() -> None:
    words = ("up", "down", "nothing")
    assert [direction(*bounds, words) for bounds in ((0.1, 0.2), (-0.2, -0.1), (0, 0.2), (-0.1, 0), (NAN, NAN))] == [
        "up",
        "down",
        *["nothing"] * 3,
    ]


def order_row(model: str, **changes: Any) -> dict[str, Any]:
    known = {"model": model, "configuration": "heun", "domain": "images", "seeds": 3, "samples": 64}
    return {**known, **changes}


def order_table(path: Path, model: str, difference: float, low: float, high: float) -> Path:
    bands = {"family": "bands", "statistic": "emergence", "first": "energy_low", "second": "energy_high"}
    features = {"family": "features", "statistic": "stabilisation", "kendalls_w": 0.412, "p": 0.0005}
    rows = [
        order_row(model, **bands, difference=difference, low=low, high=high, p=0.01),
        order_row(model, **{**bands, "domain": "latents"}, difference=-9, low=-9, high=-9, p=0.01),
        order_row(model, **features, measures="color_a<shape_iou=ssim<psnr<saturation<edge_density"),
    ]
    tables.write_tsv(tables.frame(rows, ORDER), path)
    return path


@pytest.mark.parametrize(
    ("bounds", "said"),
    [((0.2, 0.4), "before"), ((-0.4, -0.2), "after"), ((-0.1, 0.4), "neither shown before nor after")],
)
def test_low_frequencies_emerge_before_high_ones_or_not(bounds: tuple[float, float], said: str, tmp_path: Path) -> None:
    orders = [
        order_table(tmp_path / "sit.tsv", "sit@600", 0.3, *bounds),
        order_table(tmp_path / "gaussian.tsv", "gaussian", 0.05, 0.04, 0.06),
    ]
    outputs = (tmp_path / "f.tsv", tmp_path / "f.parquet", tmp_path / "f.txt")
    sources = Sources([], orders=orders, references={"sit@600": "gaussian"})
    findings(sources, ["cknna"], None, outputs)
    bands, features = outputs[2].read_text().splitlines()
    low, high = bounds
    assert bands == (
        f"sit@600, heun: low frequencies of the estimated image emerge {said} high ones: t differs by +0.300 "
        f"[{low:.3f}, {high:.3f}] over 3 seeds of noise; for gaussian, which knows a spectrum alone, by +0.050 "
        "[0.040, 0.060]."
    )
    assert features == (
        "sit@600, heun: of 6 features, color a, shape iou, ssim settle first on average and psnr, saturation, edge "
        "density last; samples agree on the order by Kendall's W = 0.412 over 192 samples, p = 0.0005."
    )


def of_space(folder: Path, gains: Sequence[tuple[float, float, float]], groups: int = 12) -> str:
    """The sentence of a space in which cells of pairs of layers have these gains, with their intervals."""
    what = {"measure": "cell_same_image", "set_b": "sit_b1", "space": "eigenvectors", "images": 12, "groups": groups}
    rows = []
    for layer, (gain, low, high) in enumerate(gains):
        pair = {**what, "set_a": f"vit_b{layer}"}
        rows += [
            {**pair, "stage": "before", "score": 0.2, "p": 0.3},
            {**pair, "stage": "after", "score": 0.2 + gain, "p": 0.01},
            {**pair, "stage": "after_minus_before", "score": gain, "low": low, "high": high},
        ]
    tables.write_tsv(tables.frame(rows, CONSISTENCY), folder / "consistency.tsv")
    (row,) = found(folder, Sources([], spaces={"faces": folder / "consistency.tsv"}), ["cknna"]).to_dict("records")
    return str(row["sentence"])


def test_a_space_rises_where_its_interval_lies_above_0(tmp_path: Path) -> None:
    said = (
        "Space faces: the nearest token of another model in the same image lies in the same cell for 0.200 of tokens "
        "before alignment and 0.300 after it, +0.100 on average over 3 pairs of layers"
    )
    gains = [(0.2, 0.1, 0.3), (0.2, -0.1, 0.5), (-0.1, -0.2, -0.05)]
    assert of_space(tmp_path, gains) == f"{said}; its 95 % interval over 12 images lies above 0 in 1 of them."
    in_groups = f"{said}; its 95 % interval over 12 images in 6 groups lies above 0 in 1 of them."
    assert of_space(tmp_path, gains, groups=6) == in_groups
    some = [*gains[:2], (-0.1, NAN, NAN)]
    assert of_space(tmp_path, some) == f"{said}; its 95 % interval over 12 images lies above 0 in 1 of 2 that have one."
    assert of_space(tmp_path, [(gain, NAN, NAN) for gain, _, _ in gains]) == f"{said}."


@pytest.mark.parametrize(
    ("groups", "over", "chance"),
    [(50, "50 held-out images", "0.020"), (10, "50 held-out images in 10 groups", "0.070")],
)
def test_a_pair_says_over_what_and_what_chance_is(groups: int, over: str, chance: str, tmp_path: Path) -> None:
    known = {"a": "vit_b1", "b": "sit_b1", "metric": "own_index", "n": 50, "groups": groups}
    scores = [
        {**known, "method": method, "images": "held_out", "score": score, "null_mean": 0.07}
        for method, score in (("rbf", 0.3), ("cca", 0.5))
    ]
    gain = {**known, "method": "rbf", "reference": "best_linear", "against": "cca"}
    for rows, columns, name in (
        (scores, SHARED_SCORES, "scores"),
        ([{**gain, "difference": -0.2, "low": -0.3, "high": -0.1}], GAINS, "gains"),
    ):
        tables.write_tsv(tables.frame(rows, columns), tmp_path / f"{name}.tsv")
    sources = Sources([], pairs=[(tmp_path / "scores.tsv", tmp_path / "gains.tsv")])
    (row,) = found(tmp_path, sources, ["cknna"]).to_dict("records")
    assert row["sentence"] == (
        f"vit_b1 and sit_b1 in one space: with RBF affinities to landmarks, 0.300 of {over} are paired, fewer than "
        f"with cca, the best linear map, 0.500: -0.200 [-0.300, -0.100]; chance is {chance}."
    )
