"""The figure of losses: which parts are drawn, and how trainings are told apart."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffalign.figures import style
from losses_figure import curve, drawn, losses_figure


def table(model: str, *columns: str, steps: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(len(model))
    falling = np.exp(-np.arange(steps) / 50)
    named = {column: falling + 0.05 * rng.standard_normal(steps) for column in ("loss", *columns)}
    return pd.DataFrame({"model": model, "step": np.arange(1, steps + 1), "learning_rate": 1e-3, **named})


def test_a_loss_is_drawn_in_its_parts() -> None:
    assert drawn(table("a", "accuracy")) == ["loss", "accuracy"]
    assert drawn(table("a", "error", "divergence")) == ["error", "divergence"]
    assert drawn(table("a", "velocity")) == ["velocity"]
    assert drawn(table("a")) == ["loss"]


def test_the_strong_line_is_a_moving_average(tmp_path: Path) -> None:
    figure, axes = plt.subplots()
    values = table("a", steps=300)
    curve(axes, values, "loss", "black", "a")
    faint, strong = axes.lines
    assert np.array_equal(np.asarray(faint.get_ydata()), values["loss"])
    kept, weight, mean = 0.5 ** (1 / 3), 0.0, 0.0
    for value in values["loss"]:
        mean, weight = kept * mean + value, kept * weight + 1
    assert np.asarray(strong.get_ydata())[-1] == pytest.approx(mean / weight)
    plt.close(figure)


def test_seeds_of_a_recipe_share_a_colour_and_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    save = style.save
    monkeypatch.setattr(
        style, "save", lambda figure, *given, **named: (kept.append(figure), save(figure, *given, **named))
    )
    made = {
        "digits.vit": ("accuracy",),
        "digits.sit": ("velocity",),
        "digits.sit.s1": ("velocity",),
        "digits.repa": ("velocity", "cosine"),
    }
    tables = []
    for model, columns in made.items():
        tables.append(tmp_path / f"{model}.tsv")
        table(model, *columns).to_csv(tables[-1], sep="\t", index=False)
    recipes = {"digits.vit": "digits.vit", "digits.sit": "digits.sit", "digits.sit.s1": "digits.sit"}
    outputs = [tmp_path / "losses.png", tmp_path / "losses.pdf"]
    losses_figure(tables, {**recipes, "digits.repa": "digits.repa"}, outputs)
    (figure,) = kept
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["digits.vit", "digits.sit (2 seeds)", "digits.repa"]
    loss, accuracy, velocity, cosine = figure.axes
    assert [len(axes.lines) for axes in (loss, accuracy, velocity, cosine)] == [2, 2, 6, 2]
    colors = [line.get_color() for line in velocity.lines]
    assert colors[0] == colors[2] != colors[4] == cosine.lines[0].get_color()
    with Image.open(outputs[0]) as picture:
        assert picture.width == pytest.approx(style.COLUMN * style.DPI, abs=2)
    assert outputs[1].stat().st_size > 1000
