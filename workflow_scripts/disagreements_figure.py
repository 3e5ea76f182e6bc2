"""Triplets on which people agree with each other, and a layer is as sure of something else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from diffalign import logs
from diffalign.figures import grids, style
from diffalign.human.ceilings import votes
from diffalign.human.odd_one_out import pair_similarities
from diffalign.human.triplets import Triplets, odd_last
from diffalign.io import human_files
from diffalign.io.feature_files import read_bundle

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_SHOWN = 12
# inches of a picture
_WIDTH = 0.65


def disagreements_figure(
    layers_json: Path,
    layer: str,
    people_path: Path,
    distance: str,
    images: Path | None,
    outputs: Sequence[Path],
    miniature: bool,
) -> None:
    """Draw the triplets with the largest product of people's agreement and the layer's margin for another choice.

    images: the folder of PNG files; without it, words stand in their place. Each triplet is shown once.
    """
    people = human_files.read_people(people_path)
    features = human_files.layer_of(read_bundle(layers_json), layer, people)
    objects, share = _agreed(people.triplets)
    triplets = Triplets(objects, len(people.names))
    similarities, _ = pair_similarities(features.values, triplets, distance)
    # pairs (0, 1), (0, 2), (1, 2) leave objects 2, 1, 0; the odd one of people is the last
    margin = similarities[:, 1:].max(axis=1) - similarities[:, 0]
    score = np.where(share > 1 / 3, share, 0) * margin
    shown = [t for t in np.argsort(-score, kind="stable")[:_SHOWN] if score[t] > 0]
    style.styled()
    rows, columns = grids.grid_of_panels(max(1, len(shown)), 3)
    figure = plt.figure(figsize=(style.PAGE, 1.05 * rows + 0.3), layout="constrained")
    # an empty column sets triplets apart
    widths = [1.0, 1.0, 1.0, 0.15] * columns
    places = figure.add_gridspec(rows, len(widths) - 1, width_ratios=widths[:-1])
    grid = np.array(
        [[figure.add_subplot(places[row, 4 * (i // 3) + i % 3]) for i in range(3 * columns)] for row in range(rows)]
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    if not shown:
        grids.in_place(grid[0, 1], "the layer names the same odd one as most people, everywhere")
    for panel, t in enumerate(shown):
        own = 1 if similarities[t, 1] >= similarities[t, 2] else 0
        for position in range(3):
            axes = grid.ravel()[3 * panel + position]
            name = people.names[objects[t, position]]
            _picture(axes, images, name, people.words[objects[t, position]])
            if position == 2:
                _frame(axes, style.BEST, f"people: {100 * share[t]:.0f} %")
            elif position == own:
                _frame(axes, style.DEFAULT, "the model")
    style.heading(
        figure,
        f"{features.recipe['bundle']}, {layer}, {distance}: the odd one of people (orange) and of the model (blue)",
    )
    style.save(figure, outputs, miniature, _table(people.names, objects[shown], share[shown], similarities[shown]))


def _table(names: Sequence[str], objects: np.ndarray, share: np.ndarray, similarities: np.ndarray) -> pd.DataFrame:
    """One row a triplet that is shown: its objects, the odd one of people with its share, and that of the model."""
    own = np.where(similarities[:, 1] >= similarities[:, 2], 1, 0)
    columns = {f"object_{i + 1}": [names[each] for each in objects[:, i]] for i in range(3)}
    odd = {"odd_of_people": columns["object_3"], "share_of_people": share}
    return pd.DataFrame(columns | odd | {"odd_of_model": [names[objects[i, at]] for i, at in enumerate(own)]})


def _agreed(triplets: Triplets) -> tuple[np.ndarray, np.ndarray]:
    """Every distinct triplet (G, 3), the most frequent choice last, and the share of the choices that it has (G,)."""
    ordered, counts = votes(triplets)
    odd = counts.argmax(axis=1)
    return odd_last(ordered, odd), counts.max(axis=1) / counts.sum(axis=1)


def _picture(axes: Axes, images: Path | None, name: str, word: str) -> None:
    if images is None:
        grids.in_place(axes, style.wrapped(word, _WIDTH))
        return
    axes.imshow(Image.open(images / f"{name}.png"))
    axes.set_title(style.wrapped(word, _WIDTH, style.SMALL), loc="center", fontsize=style.SMALL)


def _frame(axes: Axes, color: str, text: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(color)
        spine.set_linewidth(style.THICK)
    axes.set_xlabel(text, color=color, fontsize=style.SMALL)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "disagreements_figure"):
        given = dict(snakemake.input.items())
        disagreements_figure(
            Path(given["layers"]),
            snakemake.params.layer,
            Path(given["people"]),
            snakemake.params.distance,
            Path(given["images"]) if "images" in given else None,
            [Path(path) for path in snakemake.output],
            snakemake.params.miniature,
        )
