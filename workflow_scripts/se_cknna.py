"""SE-CKNNA of one pair of representations: the mean of CKNNA over conditions, and its recipe."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.alignment import semantic_equivariance as semantic
from diffalign.conditions import CLEAN, parse_condition
from diffalign.extraction.inputs import noise_gain
from diffalign.io import recipes, sides
from diffalign.io.atomic import replacing, write_json
from diffalign.specs import ImageInput

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def se_cknna(
    files: Mapping[str, tuple[Path, Path]],
    layers: tuple[str, str],
    settings: Path,
    calibration_settings: Path,
    manifest: Path | None,
    dataset: str,
    asked: Mapping[str, str],
    score_path: Path,
    recipe_path: Path,
) -> None:
    """Write the mean over conditions (a 0-d float64 array) and its recipe with the scores of all conditions.

    files: condition -> neighbour lists of A and of B, clean first. asked: ``reference``, ``mean_over`` and ``score``,
    which says what the array holds: the ``raw`` mean, or the mean ``above_null``. With reference ``clean``, B has clean
    images under all conditions and no robustness. Raises StoreError, which names the first five images, where two files
    have different images.
    """
    setting, drawing = recipes.read_settings(settings), recipes.read_drawing(calibration_settings)
    read = {
        condition: sides.read_sides(sides.Files(a), sides.Files(b), drawing.seed, manifest)
        for condition, (a, b) in files.items()
    }
    for a, _ in files.values():
        # raises unless all conditions have the same images and preparation
        sides.read_sides(sides.Files(files[CLEAN][0]), sides.Files(a), drawing.seed)
    pairs = {condition: (a.layer(layers[0]).held(), b.layer(layers[1]).held()) for condition, (a, b) in read.items()}
    clean, groups = pairs.pop(CLEAN), read[CLEAN][0].groups
    result = semantic.semantic_equivariance(
        clean,
        pairs,
        setting,
        drawing.permutations,
        drawing.alpha,
        drawing.seed,
        lambda orders, count: logs.progress(orders, count, "permutations"),
        groups,
    )
    robust = {
        word: semantic.under_conditions({name: (clean[i], pair[i]) for name, pair in pairs.items()}, setting, groups)
        for i, word in enumerate("ab" if asked["reference"] == "same" else "a")
    }
    lists = {condition: (a.lists, b.lists) for condition, (a, b) in read.items()}
    noise = noise_at_inputs({name: (a.recipe, b.recipe) for name, (a, b) in lists.items()})
    recipe = recipes.semantic_equivariance_recipe(
        lists, layers, setting, dataset, asked, result, robust, drawing, noise, groups
    )
    mean = result.transformed.mean if asked["score"] == "raw" else result.above.mean
    if math.isnan(mean.value):
        logs.log.warning("undefined: %s", recipe["undefined"])
    with replacing(score_path) as temporary:
        np.save(temporary, np.float64(mean.value), allow_pickle=False)
    write_json(recipe_path, recipe)


def noise_at_inputs(recipes: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Condition with noise -> its nominal sigma, what is known of its files (``files``: share of clipped values, sigma
    and mean shift; None where an earlier version made them), and for each side what its own resizing leaves of sigma.

    recipes: condition -> recipes of both sides. A side's sigma is None where its images were read elsewhere, or clean.
    """
    found: dict[str, dict[str, Any]] = {}
    for condition, pair in recipes.items():
        sigma = parse_condition(condition).sigma
        if not sigma:
            continue
        found[condition] = {"sigma": sigma, "files": pair[0]["images"].get("noise")}
        for side, recipe in zip("ab", pair, strict=True):
            reads = (recipe["autoencoder"] or recipe["model"]).get("input")
            noisy = recipe["images"].get("condition") == condition
            gain = None
            if reads and noisy:
                gain = noise_gain(recipe["images"]["size"], ImageInput(**reads))
            found[condition][side] = {"gain": gain, "sigma": None if gain is None else sigma * gain}
    return found


def by_condition(conditions: Sequence[str], a: Sequence[str], b: Sequence[str]) -> dict[str, tuple[Path, Path]]:
    """Condition -> neighbour lists of both sides."""
    return {name: (Path(x), Path(y)) for name, x, y in zip(conditions, a, b, strict=True)}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "se_cknna"), threadpool_limits(snakemake.threads):
        asked_for = snakemake.params
        se_cknna(
            by_condition(asked_for.conditions, snakemake.input.a, snakemake.input.b),
            (asked_for.layer_a, asked_for.layer_b),
            Path(snakemake.input.settings),
            Path(snakemake.input.calibration),
            sides.manifest_of(snakemake.input),
            asked_for.dataset,
            {key: getattr(asked_for, key) for key in ("reference", "mean_over", "score")},
            Path(snakemake.output.score),
            Path(snakemake.output.recipe),
        )
