"""Figures of series where scores are undefined, or recipes have other layers: nothing is misnamed, nothing crashes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from test_figures import check_pictures, legible  # noqa: F401  (a fixture)
from test_unlisted_sides import NAMES, search, write_bundle, write_settings

from atlas import Control, Inputs, Level, atlas
from atlas_figure import atlas_figure
from diffalign.figures import style
from diffalign.io.manifest import Image, write_manifest
from diffalign.io.recipes import Where
from through_training_figure import through_training_figure
from through_training_table import through_training_table
from training_alignment import Checkpoint, training_alignment
from training_maps_figure import training_maps_figure

COUNT = len(NAMES)
METRICS = ("svcca", "cknna")
STEPS = (0, 9)
WHERE = Where("digits", "clean")
TABLES = ("points", "steps", "contrasts", "correlations")
WHY = "a layer spans fewer than 10 dimensions"
Widths = Mapping[str, int]


@pytest.fixture
def saved(legible: Any, monkeypatch: pytest.MonkeyPatch) -> list[Figure]:  # noqa: F811
    """The figures that a test saves."""
    figures: list[Figure] = []
    save = style.save

    def kept(figure: Figure, *given: Any) -> None:
        save(figure, *given)
        figures.append(figure)

    monkeypatch.setattr(style, "save", kept)
    return figures


def heading(figure: Figure) -> str:
    return " ".join(figure.get_suptitle().split())


def named(axes: Axes) -> list[str]:
    """Layers at the ticks of the vertical axis, from below."""
    return [text.get_text() for text in axes.get_yticklabels()]


def words(figure: Figure) -> str:
    """All that is written into panels."""
    return " | ".join(" ".join(text.get_text().split()) for axes in figure.axes for text in axes.texts)


class Study:
    """Bundles of made-up features; layers are named with their widths."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.random = folder, np.random.default_rng(0)
        self.target = self.random.standard_normal((COUNT, 12))
        self.reference = self.bundle("reference", {"final": 12}, 0.0)

    def bundle(self, name: str, widths: Widths, noise: float = 1.0) -> Path:
        """Layers with more of what the reference sees from the first to the last."""
        values = {}
        for i, (layer, width) in enumerate(widths.items()):
            seen = self.target[:, :width] * (1 + i)
            values[layer] = seen + noise * self.random.standard_normal(seen.shape)
        return write_bundle(self.folder / name, name, values)

    def settings(self) -> tuple[Path, Path]:
        return write_settings(self.folder)

    def trained(self, recipes: Mapping[str, Widths]) -> Path:
        """The table of recipes with two trainings each."""
        checkpoints = [
            Checkpoint(recipe, f"{recipe}.s{seed}", seed, step, self.bundle(f"{recipe}.s{seed}@{step}", widths))
            for recipe, widths in recipes.items()
            for seed in (0, 1)
            for step in STEPS
        ]
        outputs = {key: self.folder / f"alignment.{key}" for key in ("tsv", "parquet", "recipe")}
        where = (self.reference, "final")
        training_alignment(checkpoints, where, METRICS, self.settings(), WHERE, search(), outputs)
        return outputs["tsv"]

    def tables(self, alignment: Path, measured: bool = True) -> dict[str, Path]:
        """Those of `through_training_table`. measured: with a made-up quality of every checkpoint."""
        checkpoints = pd.read_csv(alignment, sep="\t")[["model", "step"]].drop_duplicates()
        quality = checkpoints.assign(measure="FID", value=np.linspace(9, 1, len(checkpoints)))
        quality.to_csv(self.folder / "quality.tsv", sep="\t", index=False)
        paths = {f"{name}_{kind}": self.folder / f"{name}.{kind}" for name in TABLES for kind in ("tsv", "parquet")}
        given = (self.folder / "quality.tsv", ["FID"]) if measured else (None, [])
        through_training_table(alignment, *given, 0, paths)
        return {name: paths[f"{name}_tsv"] for name in TABLES}

    def atlas(self, levels: Sequence[float], widths: Widths, pixels: int = 12) -> tuple[Path, Path]:
        """Tables of scores and of shares beyond controls. pixels: how many dimensions the control has."""
        images = [Image(name, f"c{i % 4}", i % 4, "", "", "", "") for i, name in enumerate(NAMES)]
        write_manifest(self.folder / "manifest.tsv", self.folder / "dataset.json", images, {})
        inputs = Inputs(
            "sit",
            [Level(t, self.bundle(f"sit-t{t:g}", widths, 1 + t), self.bundle(f"twin-t{t:g}", widths)) for t in levels],
            (self.reference, "final"),
            [Control("pixels_p8", self.bundle("pixels", {"p8": pixels}), ("p8",)), Control("untrained")],
            self.folder / "manifest.tsv",
        )
        keys = ("scores_tsv", "scores_parquet", "beyond_tsv", "beyond_parquet", "recipe")
        outputs = {key: self.folder / key.replace("_", ".") for key in keys}
        atlas(inputs, METRICS, 20, self.settings(), WHERE, search(), outputs)
        return outputs["scores_tsv"], outputs["beyond_tsv"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.fixture
def draw(saved: list[Figure], tmp_path: Path) -> Callable[..., Figure]:
    """Draw a figure as PNG and PDF, check the files, and give the figure."""

    def drawn(function: Callable[..., None], *given: Any) -> Figure:
        outputs = [tmp_path / f"figure.{suffix}" for suffix in ("png", "pdf")]
        function(*given, outputs)
        check_pictures(outputs)
        return saved[-1]

    return drawn


# --- maps of trainings ----------------------------------------------------------------------------------------------


def test_an_undefined_layer_keeps_its_row_and_is_not_the_best(study: Study, draw: Callable[..., Figure]) -> None:
    table = study.trained({"SiT": {"embed": 4, "b1": 12, "b2": 12}})
    figure = draw(training_maps_figure, table, "svcca")
    axes = figure.axes[0]
    assert named(axes) == ["embed", "b1", "b2"]
    values = axes.images[0].get_array()
    assert values.shape == (3, len(STEPS))
    assert np.ma.getmaskarray(values).tolist() == [[True] * 2, [False] * 2, [False] * 2]
    # b2 sees most of the reference
    assert axes.lines[0].get_ydata().tolist() == [2, 2]
    assert "at step 9 (b2)." in heading(figure)


def test_steps_without_a_score_have_no_dot(study: Study, draw: Callable[..., Figure]) -> None:
    path = study.trained({"SiT": {"b1": 12, "b2": 12}})
    table = pd.read_csv(path, sep="\t")
    table.loc[table["step"] == 0, ["score", "calibrated"]] = np.nan
    table.to_csv(path, sep="\t", index=False)
    figure = draw(training_maps_figure, path, "svcca")
    assert np.isnan(figure.axes[0].lines[0].get_ydata()).tolist() == [True, False]
    assert "SiT: undefined at step 0, " in heading(figure)


def test_recipes_with_other_layers_have_their_own_names_and_no_difference(
    study: Study, draw: Callable[..., Figure]
) -> None:
    same, other = {"embed": 12, "b1": 12}, {"b1": 12, "b7": 12}
    figure = draw(training_maps_figure, study.trained({"SiT": same, "REPA": other, "SRA": same}), "svcca")
    panels = [axes for axes in figure.axes if axes.images]
    titles = [" ".join(axes.get_title("left").split()) for axes in panels]
    assert titles == ["SiT", "REPA", "SRA", "SRA - SiT"]
    # where names are those of the panel before, they are not written again
    assert [named(axes) for axes in panels] == [["embed", "b1"], ["b1", "b7"], ["embed", "b1"], []]
    assert "(b7)" in heading(figure)


def test_maps_without_any_score_say_why(study: Study, draw: Callable[..., Figure]) -> None:
    table = study.trained({"SiT": {"b1": 12, "b2": 12}, "thin": {"b1": 4, "b2": 4}})
    figure = draw(training_maps_figure, table, "svcca")
    assert WHY in words(figure)
    assert "thin: undefined at all steps." in heading(figure)
    assert [axes.get_title("left") for axes in figure.axes if axes.images] == ["SiT"]
    rows = pd.read_csv(table, sep="\t")
    rows[rows["recipe"] == "thin"].to_csv(table, sep="\t", index=False)
    assert WHY in words(draw(training_maps_figure, table, "svcca"))


# --- alignment over steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["FID", None])
def test_a_recipe_without_a_score_is_named(study: Study, measure: str | None, draw: Callable[..., Figure]) -> None:
    table = study.trained({"SiT": {"b1": 12, "b2": 12}, "thin": {"b1": 4, "b2": 4}})
    figure = draw(through_training_figure, table, study.tables(table), "svcca", measure)
    assert "SiT gains " in heading(figure)
    assert f"thin: undefined ({WHY})." in heading(figure)


@pytest.mark.parametrize("measure", ["FID", None])
def test_steps_without_any_score_say_why(study: Study, measure: str | None, draw: Callable[..., Figure]) -> None:
    table = study.trained({"thin": {"b1": 4, "b2": 4}})
    figure = draw(through_training_figure, table, study.tables(table, measure is not None), "svcca", measure)
    assert WHY in words(figure)
    if measure is None:
        return
    assert "no checkpoint has both" in words(figure)
    # that of the panel of quality
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["thin"]


# --- atlas ----------------------------------------------------------------------------------------------------------


def test_an_undefined_control_is_no_line(study: Study, draw: Callable[..., Figure]) -> None:
    figure = draw(atlas_figure, *study.atlas((0.1, 0.5, 1.0), {"embed": 4, "b1": 12}, pixels=4), "svcca")
    assert "pixels_p8 alone: undefined" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "nan" not in heading(figure)
    assert "at b1 and t = " in heading(figure)


def test_an_atlas_without_any_score_says_why(study: Study, draw: Callable[..., Figure]) -> None:
    figure = draw(atlas_figure, *study.atlas((0.1, 0.5, 1.0), {"embed": 4, "b1": 6}, pixels=6), "svcca")
    # two maps and the profile
    assert words(figure).count(WHY) == 3
    assert f"Nothing is chosen: {WHY}." in heading(figure)


def test_an_atlas_of_pure_noise_alone_has_nothing_to_choose(study: Study, draw: Callable[..., Figure]) -> None:
    figure = draw(atlas_figure, *study.atlas((1.0,), {"b1": 12, "b2": 12}), "cknna")
    assert "Nothing is chosen: pure noise is the only level." in heading(figure)
    assert "no layer is chosen" in words(figure)


def test_levels_and_a_twin_without_a_score_are_left_out(study: Study, draw: Callable[..., Figure]) -> None:
    scores, beyond = study.atlas((0.1, 0.5, 1.0), {"b1": 12, "b2": 12})
    table = pd.read_csv(scores, sep="\t", keep_default_na=False, na_values=[""])
    gone = (table["level"] == 0.5) | (table["source"] == "untrained")
    columns = ["score", "calibrated", "first_half", "maximum_p", *table.filter(like="second_half").filter(regex="^s")]
    table.loc[gone, columns] = np.nan
    table.loc[gone, "chosen"] = False
    table.to_csv(scores, sep="\t", index=False)
    figure = draw(atlas_figure, scores, beyond, "svcca")
    assert "untrained undefined" in heading(figure)
    assert words(figure).count(WHY) == 1
    assert "untrained twin: undefined" in [text.get_text() for text in figure.legends[0].get_texts()]
    profile = figure.axes[3]
    trained = next(line for line in profile.lines if line.get_label() == "trained")
    assert np.isnan(trained.get_ydata()).tolist() == [False, True, False]
