"""Figures and tables from small matrices that are written by hand."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

from alignment_table import COLUMNS as CELL_COLUMNS
from alignment_table import alignment_table
from diffalign.alignment import model_similarity
from diffalign.alignment.calibration import Calibration, calibrate_by_moments, calibrate_by_permutations, without_p
from diffalign.alignment.metrics import METRICS, NoNull, Permutations
from diffalign.alignment.nulls import NullMoments
from diffalign.figures import depth_curves, layer_maps, maps, null_histograms, style
from diffalign.figures.cells import not_significant
from diffalign.figures.depth_curves import curves, selected
from diffalign.figures.null_histograms import drawable, not_drawn
from diffalign.io import tables
from diffalign.io.calibration_files import Selection, StoredCalibration, read_calibrations, write_calibrations
from diffalign.io.matrices import CalibratedMatrix, LayerMatrix, read_layer_matrices, read_matrices, write_matrices
from diffalign.io.score_recipes import KIND
from model_maps_figure import model_maps, model_maps_figure, number, reason
from model_maps_figure import table as table_of_pairs
from pair_figures import pair_figures
from pairs_table import COLUMNS as PAIR_COLUMNS
from pairs_table import pairs_table

DEFAULTS = {"one": "b1", "two": "b0", "three": "b0"}
ALPHA = 0.05


class Pair(NamedTuple):
    """The files of one pair and the metric that they hold."""

    matrices: Path
    calibrations: Path
    metric: str

    def read(self) -> StoredCalibration:
        """Its calibration."""
        return read_calibrations(self.calibrations, [self.metric])[0]

    def write(self, calibration: StoredCalibration) -> None:
        """Put another calibration in the place of its own."""
        write_calibrations(self.calibrations, {self.metric: calibration})


def null_of(metric: str, values: NDArray[np.float64], rng: np.random.Generator) -> Calibration | None:
    kind = METRICS[metric].null
    if isinstance(kind, NoNull):
        return None
    if isinstance(kind, Permutations):
        null = rng.uniform(0, 0.3, (39, *values.shape))
        return calibrate_by_permutations(values, null, METRICS[metric].highest(5), ALPHA)
    skewness = np.full_like(values, 0.5) if metric in ("cka", "unbiased_cka") else None
    moments = NullMoments(np.full_like(values, 0.1), np.full_like(values, 0.05), skewness)
    return calibrate_by_moments(values, moments, METRICS[metric].highest(5), ALPHA)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Pair]:
    """Write a matrix, its recipe and its calibration."""

    def written(
        metric: str,
        a: str,
        b: str,
        values: NDArray[np.float64],
        selection: Selection | None = None,
        source: str = "hub",
    ) -> Pair:
        folder = tmp_path / metric
        folder.mkdir(exist_ok=True)
        pair = Pair(folder / f"{a}_vs_{b}.npz", folder / f"calibration_{a}_vs_{b}.npz", metric)

        def side(name: str, count: int) -> dict[str, Any]:
            return {
                "bundle": name,
                "model": {"name": name},
                "layers": [{"layer": f"b{i}", "module": str(i)} for i in range(count)],
                "weights": {"source": source},
                "autoencoder_weights": None,
            }

        recipe = {
            "format": KIND.format,
            "metric": metric,
            "dataset": "images",
            "condition": "clean",
            "n": 40,
            "groups": 40,
            "k": 5,
            "chance": 5 / 39 if metric == "mutual_knn" else None,
            "shape": list(values.shape),
            "shared_noise": "common" if b == "two" else None,
            "leak": "two reads one" if b == "two" else None,
            "a": side(a, values.shape[0]),
            "b": side(b, values.shape[1]),
        }
        write_matrices(pair.matrices, {metric: LayerMatrix(values, recipe)})
        error = np.full_like(values, 0.1)
        settings = {"permutations": 39, "alpha": ALPHA, "seed": 0, "level": 0.95}
        null = null_of(metric, values, np.random.default_rng(len(a + b + metric)))
        pair.write(StoredCalibration(null, error, values - 0.2, values + 0.2, selection, settings))
        return pair

    return written


def grid(rows: int = 3, columns: int = 4, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.2, 0.9, (rows, columns))


def read_pairs(pairs: Sequence[Pair]) -> list[CalibratedMatrix]:
    """The matrices of pairs of one metric each."""
    return [matrix for each in pairs for matrix in read_matrices([each.matrices], [each.calibrations], [each.metric])]


@pytest.fixture(autouse=True)
def legible(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Bbox]]:
    """Check every figure that a test saves: no text on another, none smaller than can be read. Gives what was saved."""
    page_box = style.page_box
    boxes: list[Bbox] = []

    def checked(figure: Figure) -> Bbox:
        box = page_box(figure)
        texts = drawn_texts(figure)
        small = [text for text, size, _ in texts if size < style.SMALL]
        assert not small, f"too small to be read: {small}"
        for i, (text, _, place) in enumerate(texts):
            across = [other for other, _, there in texts[:i] if overlap(place, there, figure.dpi)]
            assert not across, f"{text!r} lies on {across}"
        boxes.append(box)
        return box

    monkeypatch.setattr(style, "page_box", checked)
    yield boxes
    plt.close("all")


def drawn_texts(figure: Figure) -> list[tuple[str, float, Bbox]]:
    """Text, size in points and place of all that is written in a figure; the place of a label without its line."""
    ticks, shown = set(), set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                ticks |= {id(tick.label1), id(tick.label2)}
                if axes.get_visible() and axes.axison and low <= tick.get_loc() <= high:
                    shown |= {id(label) for label in (tick.label1, tick.label2) if label.get_visible()}
    hidden = {id(part) for axes in figure.axes if not axes.get_visible() for part in axes.findobj(Text)} | ticks - shown
    return [
        (text.get_text(), float(text.get_fontsize()), Text.get_window_extent(text))
        for text in figure.findobj(Text)
        if id(text) not in hidden and text.get_visible() and text.get_text().strip()
    ]


def overlap(a: Bbox, b: Bbox, dpi: float) -> bool:
    """Whether two texts share more than a hair: extents have some room around letters."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return min(width, height) > 0.012 * dpi


def check_pictures(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF")
        else:
            with Image.open(path) as image:
                assert min(image.size) > 200
                assert np.asarray(image.convert("L")).std() > 3
    assert not plt.get_fignums()


# --- matrices and their calibrations --------------------------------------------------------------------------------


def test_a_matrix_is_read_with_its_calibration(write: Callable[..., Pair]) -> None:
    values = grid()
    (matrix,) = read_pairs([write("cknna", "one", "two", values)])
    assert matrix.calibration.null is not None
    assert len(matrix.calibration.null.maxima) == 39
    assert matrix.best == np.unravel_index(values.argmax(), values.shape)
    assert matrix.default(DEFAULTS) == (1, 0)
    assert matrix.missing_null == ""


def test_a_calibration_of_another_matrix_is_refused(write: Callable[..., Pair]) -> None:
    first, second = write("cknna", "one", "two", grid()), write("cknna", "one", "three", grid(2, 2))
    with pytest.raises(ValueError, match=r"cknna has the shape \(2, 2\), but \(3, 4\) in .*two\.npz; rerun"):
        read_matrices([first.matrices], [second.calibrations], ["cknna"])


@pytest.mark.parametrize(
    ("metric", "why"),
    [("procrustes", "no null"), ("rsa_pearson", "no null: only its mean and sd are known"), ("cka", "")],
)
def test_why_there_are_no_calibrated_scores(metric: str, why: str, write: Callable[..., Pair]) -> None:
    (matrix,) = read_pairs([write(metric, "one", "two", grid())])
    assert matrix.missing_null == why
    assert drawable(matrix) == (why == "")


def test_the_skewness_is_stored_where_it_is_known(write: Callable[..., Pair]) -> None:
    stored = write("cka", "one", "two", grid()).read()
    assert stored.null is not None
    assert np.array_equal(np.asarray(stored.null.skewness), np.full((3, 4), 0.5))
    other = write("cknna", "one", "two", grid()).read()
    assert other.null is not None
    assert other.null.skewness is None


# --- tables ---------------------------------------------------------------------------------------------------------


def test_q_is_benjamini_and_hochberg_over_all_rows() -> None:
    table = pd.DataFrame(
        {"metric": ["a", "b", "a", "a", "a"], "p": [0.01, 0.04, 0.04, np.nan, 0.03], "q": [np.nan] * 5}
    )
    tables.add_q(table, "p", "q")
    assert table["q"].tolist() == pytest.approx([0.04, 0.04, 0.04, math.nan, 0.04], nan_ok=True)


def test_the_table_of_cells(write: Callable[..., Pair], tmp_path: Path) -> None:
    values = grid()
    values[2, 3] = np.nan
    pairs = [write("cknna", "one", "two", values), write("cknna", "one", "three", grid(3, 2, 1))]
    pairs.append(write("procrustes", "one", "two", grid(seed=2)))
    tsv, parquet = tmp_path / "cells.tsv", tmp_path / "cells.parquet"
    alignment_table(read_pairs(pairs), DEFAULTS, tsv, parquet)
    table, same = pd.read_csv(tsv, sep="\t"), pd.read_parquet(parquet)
    assert list(table.columns) == list(same.columns) == list(CELL_COLUMNS)
    assert len(table) == len(same) == 12 + 6 + 12
    assert dict(same.dtypes.astype(str)) == CELL_COLUMNS
    first = read_pairs(pairs[:1])[0].calibration
    assert first.null is not None
    cell = table[(table.b == "two") & (table.metric == "cknna") & table.is_default]
    for column, wanted in (
        ("null_mean", first.null.mean),
        ("z", first.null.z),
        ("p", first.null.p),
        ("low", first.low),
    ):
        assert cell[column].item() == pytest.approx(wanted[1, 0])
    undefined = table[table.score.isna()]
    assert len(undefined) == 1
    assert undefined[["z", "p", "q", "calibrated"]].isna().all().all()
    bare = table[table.metric == "procrustes"]
    assert bare[["null_mean", "null_sd", "z", "p", "q", "calibrated"]].isna().all().all()
    assert table.loc[table.b == "two", "shared_noise"].unique().tolist() == ["common"]
    assert table.loc[table.b == "three", "shared_noise"].isna().all()
    assert bare.error.notna().all()
    # both grids pass, so cells are tested at the whole level within them
    tested = table[table.metric == "cknna"].dropna(subset="p")
    assert tested.q.to_numpy() == pytest.approx(np.maximum(tested.p_adjusted.to_numpy(), 1 / 40))
    assert np.array_equal(table.significant, table.q <= ALPHA)
    assert (tested.calibrated[~tested.significant] == 0).all()
    assert (tested.calibrated[tested.significant] > 0).all()


def test_cells_of_a_pair_that_did_not_pass_are_not_claimed(write: Callable[..., Pair], tmp_path: Path) -> None:
    """One metric of one pair is aligned in a third of its cells; of the others no grid passes, but single cells have
    small p-values.
    """
    random = np.random.default_rng(0)
    aligned = random.uniform(0, 0.25, (6, 6))
    aligned[:2] = random.uniform(0.5, 0.9, (2, 6))
    pairs = [write("cknna", "one", "two", aligned)]
    # above what one cell in twenty has by chance, below the largest of the null
    names = [("mutual_knn", "one", "two"), ("cknna", "one", "three"), ("cknna", "three", "two")]
    pairs += [write(*name, np.where(random.uniform(size=(6, 6)) < 0.2, 0.29, 0.15)) for name in names]
    outputs = [tmp_path / name for name in ("c.tsv", "c.parquet", "p.tsv", "p.parquet")]
    alignment_table(read_pairs(pairs), DEFAULTS, *outputs[:2])
    pairs_table(read_pairs(pairs), DEFAULTS, *outputs[2:])
    cells, grids = (pd.read_parquet(path) for path in outputs[1::2])
    claimed = (cells.metric == "cknna") & (cells.b == "two") & (cells.a == "one") & cells.layer_a.isin(["b0", "b1"])
    others = (cells.metric != "cknna") | (cells.b != "two") | (cells.a != "one")
    assert (cells.p[others] <= ALPHA).sum() > 0
    # four grids, of which one passes: 1 / 40 is above the level 0.05 / 4
    assert not cells.significant.any()
    assert (cells.calibrated == 0).all()
    assert (grids.maximum_calibrated == 0).all()
    assert grids.grid_q.min() == pytest.approx(4 / 40)
    # by itself it is claimed, where it is and nowhere else
    alignment_table(read_pairs(pairs[:1]), DEFAULTS, *outputs[:2])
    alone = pd.read_parquet(outputs[1])
    assert np.array_equal(alone.significant, claimed[: len(alone)])
    (matrix,) = read_pairs(pairs[:1])
    assert np.array_equal(matrix.significant.ravel(), alone.significant)
    assert np.array_equal(matrix.calibrated > 0, matrix.significant)


def test_the_table_of_pairs(write: Callable[..., Pair], tmp_path: Path) -> None:
    chosen = Selection(("b2", "b1"), 0.6, 0.5, 0.7, 20)
    values = grid()
    pairs = [
        write("cknna", "one", "two", values, chosen, "miniature"),
        write("cknna", "one", "three", np.full((3, 2), np.nan)),
        write("cka", "one", "two", grid(seed=4)),
        write("procrustes", "one", "two", grid(seed=2)),
    ]
    tsv, parquet = tmp_path / "pairs.tsv", tmp_path / "pairs.parquet"
    pairs_table(read_pairs(pairs), DEFAULTS, tsv, parquet)
    table, same = pd.read_csv(tsv, sep="\t"), pd.read_parquet(parquet)
    assert list(table.columns) == list(same.columns) == list(PAIR_COLUMNS)
    assert dict(same.dtypes.astype(str)) == PAIR_COLUMNS
    full, undefined, moments, bare = (table.iloc[i] for i in range(4))
    assert full.maximum == pytest.approx(values.max())
    assert (full.default_layer_a, full.default_layer_b) == ("b1", "b0")
    assert full.default_score == pytest.approx(values[1, 0])
    assert full.maximum_p == full.grid_p == 1 / 40
    assert full.maximum_q == full.grid_q == pytest.approx(max(1 / 40, moments.grid_q))
    assert full.significant
    assert full.default_q >= full.default_p
    assert (full.selected_layer_a, full.selected_layer_b, full.selected_count) == ("b2", "b1", 20)
    assert (full.selected_chosen, full.selected_reported, full.selected_uncorrected) == (0.6, 0.5, 0.7)
    assert (full.null, full.permutations, full.miniature) == ("permutations", 39, True)
    assert (
        undefined[["layer_a", "maximum", "maximum_p", "maximum_q", "grid_p", "default_score", "selected_count"]]
        .isna()
        .all()
    )
    assert (moments.null, moments.miniature) == ("moments", False)
    assert (full.shared_noise, math.isnan(undefined.shared_noise)) == ("common", True)
    assert math.isnan(moments.permutations)
    assert bare[["null", "permutations", "maximum_p", "maximum_q", "grid_q", "default_p"]].isna().all()
    assert not bare.significant
    assert bare.default_high == pytest.approx(bare.default_score + 0.2)


def test_a_refused_p_is_no_claim_and_the_tables_say_so(
    write: Callable[..., Pair], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [write("cknna", "one", "two", grid()), write("cknna", "one", "three", grid(seed=1))]
    stored = pairs[1].read()
    assert stored.null is not None
    pairs[1].write(replace(stored, null=without_p(stored.null, "groups have 6 arrangements")))
    refused = read_pairs(pairs)[1]
    assert not refused.significant.any()
    assert not refused.has_p
    outputs = [tmp_path / name for name in ("c.tsv", "c.parquet", "p.tsv", "p.parquet", "a.tsv", "a.parquet")]
    for make, paths in ((alignment_table, outputs[:2]), (pairs_table, outputs[2:4])):
        caplog.clear()
        make(read_pairs(pairs), DEFAULTS, *paths)
        assert "1 of 2 matrices have no p and are not tested: groups have 6 arrangements" in caplog.text
    cells, grids = (pd.read_parquet(path) for path in outputs[1:4:2])
    assert not cells.significant[cells.b == "three"].any()
    assert cells.loc[cells.b == "three", ["p", "p_adjusted", "q", "calibrated"]].isna().all().all()
    assert grids.significant.tolist() == [True, False]
    assert grids.reason.fillna("").tolist() == ["", "groups have 6 arrangements"]
    # it does not count among the tests of the others
    alignment_table(read_pairs(pairs[:1]), DEFAULTS, *outputs[4:])
    assert cells.q[cells.b == "two"].tolist() == pd.read_parquet(outputs[5]).q.tolist()


def test_tables_without_rows_keep_their_columns(tmp_path: Path) -> None:
    for make, columns in ((alignment_table, CELL_COLUMNS), (pairs_table, PAIR_COLUMNS)):
        make([], {}, tmp_path / "t.tsv", tmp_path / "t.parquet")
        assert list(pd.read_parquet(tmp_path / "t.parquet").columns) == list(columns)


# --- figures --------------------------------------------------------------------------------------------------------


SEVERAL = ["cknna", "rsa_pearson", "cka", "procrustes", "mutual_knn"]


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        (["cknna"], "defined"),
        (["procrustes"], "defined"),
        (SEVERAL, "one cell undefined"),
        (SEVERAL[:3], "nothing defined"),
        (SEVERAL[:3], "one layer each"),
    ],
    ids=str,
)
def test_figures_of_a_pair(metrics: list[str], kind: str, write: Callable[..., Pair], tmp_path: Path) -> None:
    values = grid(1, 1) if kind == "one layer each" else grid()
    if kind == "one cell undefined":
        values[0, 1] = np.nan
    if kind == "nothing defined":
        values[:] = np.nan
    pairs = read_pairs([write(metric, "one", "two", values, source="miniature") for metric in metrics])
    names = ("layer_maps", "depth_curves", "null_histograms")
    suffixes = (".png", *([".pdf"] if len(metrics) == 1 else []), ".tsv", ".parquet")
    outputs = {name: [tmp_path / f"{name}{suffix}" for suffix in suffixes] for name in names}
    pair_figures(pairs, {"one": "b0", "two": "b0"}, outputs)
    rows = {}
    for name in names:
        *pictures, tsv, parquet = outputs[name]
        check_pictures(pictures)
        rows[name] = len(pd.read_csv(tsv, sep="\t"))
        assert rows[name] == len(pd.read_parquet(parquet))
    assert rows["layer_maps"] == len(metrics) * values.size
    assert rows["depth_curves"] == len(metrics) * 2 * sum(values.shape)
    # nothing of a figure stays behind for the next one
    layer_maps.draw(pairs, [tmp_path / "again.png"])
    assert (tmp_path / "again.png").read_bytes() == outputs["layer_maps"][0].read_bytes()


@pytest.mark.parametrize(("metrics", "width"), [(SEVERAL[:1], style.COLUMN), (SEVERAL, style.PAGE)])
def test_figures_are_as_wide_as_a_column_or_a_page(
    metrics: list[str], width: float, write: Callable[..., Pair], tmp_path: Path
) -> None:
    pairs = read_pairs([write(metric, "one", "two", grid(14, 30)) for metric in metrics])
    layer_maps.draw(pairs, [tmp_path / "maps.png", tmp_path / "maps.pdf"])
    with Image.open(tmp_path / "maps.png") as image:
        assert image.width == pytest.approx(width * style.DPI, abs=2)
        assert image.info["dpi"] == pytest.approx((style.DPI, style.DPI), abs=0.1)
    pdf = (tmp_path / "maps.pdf").read_bytes()
    # letters are of an embedded TrueType font
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_figures_have_no_other_width_and_no_table_that_is_not_there(tmp_path: Path) -> None:
    style.styled()
    with pytest.raises(ValueError, match=r"4\.45 in wide; allowed: 3\.25 \(a column\) and 6\.75"):
        style.save(plt.figure(figsize=(style.COLUMN + 1.2, 2)), [tmp_path / "wide.png"], False)
    with pytest.raises(ValueError, match="comes without a table"):
        style.save(plt.figure(figsize=(style.COLUMN, 2)), [tmp_path / "figure.tsv"], False)


def test_cells_are_significant_after_correction_over_the_grid_and_not_by_themselves(write: Callable[..., Pair]) -> None:
    pair = write("cknna", "one", "two", grid())
    stored = pair.read()
    assert stored.null is not None
    for p, wanted in ((0.22, False), (0.05, True), (math.nan, False)):
        p_adjusted = np.full((3, 4), 0.3)
        p_adjusted[0, 1] = p
        calibrated = np.full((3, 4), 0.4)
        # by themselves all would be
        null = replace(stored.null, calibrated=calibrated, p=np.full((3, 4), 0.01), p_adjusted=p_adjusted)
        pair.write(replace(stored, null=null))
        (read,) = read_pairs([pair])
        assert read.significant.sum() == wanted
        assert read.significant[0, 1] == wanted
        assert read.calibrated[0].tolist() == [0, 0.4 if wanted else 0, 0, 0]
        # a cell without a p is not tested
        assert not_significant(read).sum() == 12 - wanted - math.isnan(p)
    (bare,) = read_pairs([write("procrustes", "one", "two", grid())])
    assert not bare.significant.any()
    assert not not_significant(bare).any()


def drawn_maps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What is given to `maps.layer_map` after this: matrix, limits, colours, frame."""
    given: list[tuple[Any, ...]] = []
    layer_map = maps.layer_map
    monkeypatch.setattr(maps, "layer_map", lambda axes, *what: given.append(what) or layer_map(axes, *what))
    return given


def test_a_scale_makes_no_contrast_of_nothing(
    write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = drawn_maps(monkeypatch)
    assert [maps.scale_end(value) for value in (0.0, 0.0025, 0.1, 0.11, 0.2, 0.4, 0.6, 1.3)] == [
        *(0.1, 0.1, 0.1, 0.2, 0.2, 0.5, 1.0, 1.3)
    ]
    pair = write("cknna", "one", "two", grid() / 30)
    stored = pair.read()
    assert stored.null is not None
    faint = np.zeros((3, 4))
    faint[0, 0] = 0.0025
    pair.write(replace(stored, null=replace(stored.null, calibrated=faint, maximum_p=0.01)))
    layer_maps.draw(read_pairs([pair]), [tmp_path / "maps.png"])
    assert [limits for _, limits, _, _ in drawn] == [(0.0, 0.1), (0.0, 0.1)]
    # lists run up to k; the sign of a correlation says something, and its scale has a middle
    layer_maps.draw(read_pairs([write("lcs_knn", "one", "two", 2 * grid())]), [tmp_path / "maps.png"])
    layer_maps.draw(read_pairs([write("rsa", "one", "two", grid() - 0.5)]), [tmp_path / "maps.png"])
    assert [limits for _, limits, _, _ in drawn[2:]] == [(0.0, 2.5), (0.0, 0.5), (-0.5, 0.5)]
    assert drawn[4][2] == style.SIGNED


def test_cells_that_are_not_significant_are_hatched_and_rows_are_labelled_everywhere(
    write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hatched, figures = [], []
    hatched_cells, save = maps.hatched_cells, style.save
    monkeypatch.setattr(maps, "hatched_cells", lambda *of, **look: hatched.append(of[1]) or hatched_cells(*of, **look))
    monkeypatch.setattr(style, "save", lambda *of: figures.append(of[0]) or save(*of))
    pairs = [write(metric, "one", "two", grid()) for metric in ("cknna", "mutual_knn")]
    for pair in pairs:
        stored = pair.read()
        assert stored.null is not None
        p = np.where(grid() > 0.5, 0.01, 0.2) if pair.metric != "mutual_knn" else np.full((3, 4), 0.3)
        # one cell was not tested
        p[1, 2] = np.nan
        calibrated = np.where(np.isnan(p), np.nan, stored.null.calibrated)
        null = replace(stored.null, p_adjusted=p, calibrated=calibrated, maximum_p=float(np.nanmin(p)))
        pair.write(replace(stored, null=null))
    read = read_pairs(pairs)
    assert 0 < read[0].significant.sum() < 11
    assert np.array_equal(read[0].significant, (grid() > 0.5) & ~np.isnan(read[0].calibrated))
    layer_maps.draw(read, [tmp_path / "maps.png"])
    assert [each.sum() for each in hatched] == [11 - read[0].significant.sum()] * 2 + [11, 11]
    words = [text.get_text() for axes in figures[0].axes for text in axes.texts]
    assert words == ["no score exceeds the null of the grid"]
    titles = [axes.get_title(loc="left") for axes in figures[0].axes]
    assert any("0 of 11 cells significant" in title for title in titles)
    for axes in figures[0].axes[:4]:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["b0", "b1", "b2"]


def test_texts_are_broken_at_their_width() -> None:
    style.styled()
    text = "Bands: 95 % intervals over images, where they have a closed form."
    lines = style.wrapped(text, style.COLUMN).split("\n")
    assert len(lines) == 2
    assert " ".join(lines) == text
    assert max(style.text_width(line) for line in lines) <= style.COLUMN
    assert style.wrapped("a-word-that-is-too-long b", 0.1).split("\n") == ["a-word-that-is-too-long", "b"]
    assert style.wrapped("one\ntwo", 3) == "one\ntwo"


def test_a_legend_takes_as_many_columns_as_fit() -> None:
    style.styled()
    figure, axes = plt.subplots(figsize=(style.COLUMN, 1), layout="constrained")
    (line,) = axes.plot([0, 1])
    style.legend_below(figure, dict.fromkeys([f"a label of some length {i}" for i in range(4)], line), 4)
    (legend,) = figure.legends
    assert legend.get_window_extent().width / figure.dpi <= style.COLUMN
    assert legend._ncols == 2  # type: ignore[attr-defined]
    plt.close(figure)


def test_series_are_told_apart_by_colour_and_marker() -> None:
    looks = [tuple(style.look(i).values()) for i in range(20)]
    assert len(set(looks)) == 20


def test_curves_carry_intervals_and_thresholds_of_the_cells_they_show(write: Callable[..., Pair]) -> None:
    values = grid()
    (matrix,) = read_pairs([write("cknna", "one", "two", values)])
    null = matrix.calibration.null
    assert null is not None
    best, default = curves(matrix, "b", "b1")
    assert np.array_equal(best.values, values.max(axis=0))
    assert best.low == pytest.approx(values.max(axis=0) - 0.2)
    assert (best.threshold == null.maximum_threshold).all()
    closed = replace(null, grid_threshold=np.arange(12.0).reshape(values.shape))
    of_cells = replace(matrix, calibration=replace(matrix.calibration, null=closed))
    columns = np.arange(values.shape[1])
    assert np.array_equal(curves(of_cells, "b", "b1")[0].threshold, closed.grid_threshold[values.argmax(0), columns])
    assert best.null_mean == pytest.approx(np.full(4, null.maxima.mean()))
    assert "without the choice of the layer" in best.interval_label
    assert (best.outlined, default.outlined) == (True, False)
    assert np.array_equal(default.null_mean, null.mean[1])
    assert np.array_equal(default.values, values[1])
    assert np.array_equal(default.threshold, null.threshold[1])


def lines_of(monkeypatch: pytest.MonkeyPatch, make: Callable[[], None]) -> list[Axes]:
    """The panels of a figure that is made."""
    figures: list[Figure] = []
    save = style.save
    monkeypatch.setattr(style, "save", lambda *of: figures.append(of[0]) or save(*of))
    make()
    return [axes for axes in figures[0].axes if axes.get_visible()]


@pytest.mark.parametrize("relative", [False, True])
def test_layers_that_are_no_depth_are_not_joined(
    relative: bool, write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = write("cknna", "one", "two", grid(), Selection(("b1", "b2"), 0.6, 0.512, 0.534, 20))
    (matrix,) = read_layer_matrices(pair.matrices, ["cknna"])
    recipe = {**matrix.recipe}
    # a histogram of colours, as image_statistics has them
    recipe["a"]["weights"] = {"source": "none"}
    write_matrices(pair.matrices, {"cknna": replace(matrix, recipe=recipe)})
    outputs = [tmp_path / f"curves{suffix}" for suffix in (".png", ".tsv", ".parquet")]
    read = read_pairs([pair])
    left, right = lines_of(monkeypatch, lambda: depth_curves.draw(read, {"one": "b1", "two": "b0"}, outputs, relative))
    assert {line.get_linestyle() for line in left.lines} == {"None"}
    assert {"-", "--", ":"} <= {line.get_linestyle() for line in right.lines}
    assert left.get_xlabel() == "layer of one (in no order)"
    assert right.get_xlabel() == ("relative depth in two" if relative else "layer of two")
    (scores,) = (line for line in right.lines if line.get_label() == "best layer of the other model")
    assert np.asarray(scores.get_xdata()) == pytest.approx(np.arange(4) / 3 if relative else np.arange(4))
    # the axis is not cut off, and the table has what is drawn
    assert right.get_ylim()[0] <= 0
    table = pd.read_parquet(outputs[2])
    assert len(table) == len(pd.read_csv(outputs[1], sep="\t")) == 2 * (3 + 4)
    best = table[(table["over"] == "two") & (table["curve"] == "best")]
    assert best["score"].tolist() == pytest.approx(grid().max(axis=0))
    assert best["other_layer"].tolist() == [f"b{i}" for i in grid().argmax(axis=0)]
    assert best["depth"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert selected(read[0]) == "0.512 at b1, b2 (largest there 0.534)"


def test_metrics_that_are_not_drawn_are_named_with_the_reason(write: Callable[..., Pair]) -> None:
    names = ("procrustes", "rsa", "rsa_pearson")
    found = read_pairs([write(name, "one", "two", grid()) for name in names])
    assert not_drawn(found) == [
        "Not drawn (no null): Procrustes, RSA (Spearman)",
        "Not drawn (no null: only its mean and sd are known): RSA (Pearson)",
    ]


def test_a_null_far_from_the_score_is_numbers_and_not_a_picture(
    write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = write("cknna", "one", "two", grid())
    stored = pair.read()
    assert stored.null is not None
    outputs = [tmp_path / f"null{suffix}" for suffix in (".png", ".tsv", ".parquet")]
    for spread, near in ((0.2, True), (0.01, False)):
        maxima = 0.3 + spread * np.linspace(-1, 1, 39)
        pair.write(replace(stored, null=replace(stored.null, maxima=maxima)))
        read = read_pairs([pair])
        with monkeypatch.context() as patch:
            (panel,) = lines_of(patch, partial(null_histograms.draw, read, outputs))
        assert bool(panel.patches) == near
        words = " ".join(text.get_text().replace("\n", " ") for text in panel.texts)
        assert (f"largest score {grid().max():.3f}" in words) == (not near)
        assert ("sd above" in words) == (not near)
    table = pd.read_parquet(outputs[2])
    assert table.loc[table["quantity"] == "null", "value"].tolist() == pytest.approx(maxima.tolist())
    assert table.loc[table["quantity"] == "observed", "value"].item() == pytest.approx(grid().max())


# --- maps of models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 9])
@pytest.mark.parametrize("name", ["m{}", "model-t0.50-caption{}"])
def test_maps_of_many_models_and_of_long_names(
    count: int, name: str, write: Callable[..., Pair], tmp_path: Path, legible: list[Bbox]
) -> None:
    names = [name.format(i) for i in range(count)]
    pairs = [
        write("cknna", a, b, grid(2, 2, seed=9 * i + j)) for i, a in enumerate(names) for j, b in enumerate(names[:i])
    ]
    model_maps(read_pairs(pairs), dict.fromkeys(names, "b1"), [tmp_path / "map.png"])
    assert legible[0].width == pytest.approx(style.PAGE, abs=0.02)


@pytest.mark.parametrize("metric", ["cknna", "procrustes", "unbiased_cka_rbf"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_maps_of_two_models_of_missing_pairs_and_of_three(
    metric: str, count: int, write: Callable[..., Pair], tmp_path: Path
) -> None:
    places = [("one", "two"), ("one", "three"), ("two", "three")][:count]
    pairs = read_pairs([write(metric, a, b, grid(seed=i)) for i, (a, b) in enumerate(places)])
    outputs = [tmp_path / "map.png"]
    model_maps(pairs, DEFAULTS, outputs)
    check_pictures(outputs)


def test_miniatures_say_so_in_the_picture(write: Callable[..., Pair], tmp_path: Path) -> None:
    for source in ("hub", "miniature"):
        output = tmp_path / f"{source}.png"
        layer_maps.draw(read_pairs([write("cknna", "one", "two", grid(), source=source)]), [output])
        with Image.open(output) as image:
            colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
        red = (colors == (0xB9, 0x1C, 0x1C)).all(axis=1).sum()
        assert (red > 100) == (source == "miniature")


@pytest.mark.parametrize("metric", ["cknna", "procrustes"])
def test_models_of_one_side_are_rows_and_those_of_the_other_columns(
    metric: str, write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    model_matrix = maps.model_matrix
    monkeypatch.setattr(maps, "model_matrix", lambda axes, *given: drawn.append(given) or model_matrix(axes, *given))
    places = [("one", "two"), ("one", "three"), ("one", "four"), ("five", "two"), ("five", "four")]
    scores = [grid(seed=i) for i in range(len(places))]
    pairs = read_pairs([write(metric, *place, values) for place, values in zip(places, scores, strict=True)])
    defaults = {"one": "b1", "two": "b0", "three": "b2", "four": "b0", "five": "b0"}
    model_maps(pairs, defaults, [tmp_path / "map.png"])
    check_pictures([tmp_path / "map.png"])
    values, rows, columns, *_ = drawn[0]
    assert (rows, columns) == (["one", "five"], ["two", "three", "four"])
    # of layers that were named before, and not the largest of grids of different sizes
    fixed = [scores[0][1, 0], scores[1][1, 2], scores[2][1, 0], scores[3][0, 0], scores[4][0, 0]]
    assert np.array_equal(values, [fixed[:3], [fixed[3], np.nan, fixed[4]]], equal_nan=True)
    assert table_of_pairs(pairs, defaults)["default_score"].tolist() == fixed


def test_a_pair_that_is_tested_and_null_is_not_a_small_number(
    write: Callable[..., Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [number(value) for value in (0.0, 0.004, 0.006, 0.314, -0.001)] == ["0.00", "<0.01", "0.01", "0.31", "0.00"]
    drawn = []
    model_matrix = maps.model_matrix
    monkeypatch.setattr(maps, "model_matrix", lambda axes, *given: drawn.append(given) or model_matrix(axes, *given))
    pairs = [write("cknna", "one", "two", grid()), write("cknna", "one", "three", grid(seed=1))]
    stored = pairs[1].read()
    assert stored.null is not None
    grids = {"p": np.full((3, 4), 0.3), "p_adjusted": np.full((3, 4), 0.4)}
    null = replace(stored.null, maximum_p=0.4, maximum_calibrated=0.1, **grids)
    pairs[1].write(replace(stored, null=null))
    outputs = [tmp_path / "map.png", tmp_path / "map.tsv"]
    model_maps(read_pairs(pairs), DEFAULTS, outputs)
    *_, words, hatched = drawn[1]
    assert words.tolist() == [["n.s." if right else number(drawn[1][0][0, 0]) for right in (False, True)]]
    assert hatched.tolist() == [[False, True]]
    *_, end, words, hatched = drawn[0]
    assert words[0, 0] == f"{grid()[1, 0]:.2f}\n±0.20"
    assert hatched.tolist() == [[False, True]]
    assert end == drawn[1][-3]
    table = pd.read_csv(outputs[1], sep="\t")
    assert table["maximum_p"].tolist() == [1 / 40, 0.4]
    # corrected over both pairs; 0 where not significant
    assert table["maximum_q"].tolist() == pytest.approx([2 / 40, 0.4])
    assert table["default_q"].tolist() == pytest.approx([2 / 40, 0.3])
    assert (table["maximum_calibrated"] > 0).tolist() == [True, False]
    # a pair without a p is not tested: neither hatched nor a number, and the others are not corrected for it
    pairs[1].write(replace(stored, null=without_p(null, "groups have 6 arrangements")))
    figures = lines_of(monkeypatch, lambda: model_maps(read_pairs(pairs), DEFAULTS, outputs))
    assert not any(each[-1].any() for each in drawn[-2:])
    assert np.isnan(drawn[-1][0]).tolist() == [[False, True]]
    assert "1 of 2 matrices have no p and are not tested" in " ".join(figures[0].figure.get_suptitle().split())
    table = pd.read_csv(outputs[1], sep="\t")
    assert table["maximum_q"].tolist() == pytest.approx([1 / 40, np.nan], nan_ok=True)
    assert table["maximum"].tolist() == pytest.approx([grid().max(), grid(seed=1).max()])


def test_sides_are_told_apart_only_where_no_model_is_on_both() -> None:
    assert model_similarity.two_sides([("a", "b"), ("a", "c")]) == (["a"], ["b", "c"])
    assert model_similarity.two_sides([("a", "b"), ("b", "c")]) is None
    assert model_similarity.two_sides([("a", "b"), ("a", "c"), ("b", "c")]) is None
    # one pair: two models have one distance
    assert model_similarity.two_sides([("a", "b")]) is None
    assert model_similarity.two_sides([]) is None


def test_a_map_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"study\.pairs names no pair"):
        model_maps_figure([], [], {}, {"cknna": [tmp_path / "map.png"]})


def test_both_directions_of_a_pair_are_averaged_and_missing_pairs_are_nan() -> None:
    models, found = model_similarity.between([("a", "b", 0.2), ("b", "a", 0.4), ("c", "a", 0.5)])
    assert models == ["a", "b", "c"]
    assert found[0, 1] == found[1, 0] == pytest.approx(0.3)
    assert found[0, 2] == found[2, 0] == 0.5
    assert np.isnan(found[1, 2])
    assert np.isnan(np.diag(found)).all()
    assert reason(found, True) == "pairs of models are missing or undefined"
    assert reason(np.zeros((3, 3)), True) == "no pair of models exceeds its null"
    assert reason(np.zeros((2, 2)), True) == "two models have one distance"
    assert reason(np.full((3, 3), 0.5), True) == ""


def test_points_in_a_plane_are_found_again_and_the_same_every_time() -> None:
    points = np.random.default_rng(0).normal(size=(7, 2))
    wanted = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found, stress = model_similarity.planar_map(wanted)
    assert stress < 0.01
    assert np.linalg.norm(found[:, None] - found[None], axis=-1) == pytest.approx(wanted, abs=0.05)
    assert np.array_equal(found, model_similarity.planar_map(wanted)[0])


def test_clustering_puts_near_models_beside_each_other() -> None:
    near = np.array([[0, 0.9, 0.1, 0.9], [0.9, 0, 0.9, 0.2], [0.1, 0.9, 0, 0.9], [0.9, 0.2, 0.9, 0]])
    order = model_similarity.leaves(model_similarity.clustering(near))
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1
    assert model_similarity.distances(1 - near, math.inf) == pytest.approx(near)


@pytest.mark.parametrize("crowd", [1.0, 0.001])
def test_labels_of_points_do_not_overlap(crowd: float) -> None:
    style.styled()
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    points = np.random.default_rng(1).normal(size=(6, 2)) * crowd
    points[-1] = (3, 3)
    maps.labelled_points(axes, points, [f"a-long-name-{i}" for i in range(6)])
    figure.draw_without_rendering()
    texts = [each for each in axes.texts if isinstance(each, Annotation)]
    boxes = [super(Annotation, each).get_window_extent() for each in texts]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    plt.close(figure)
