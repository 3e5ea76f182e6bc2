"""One row a pair: SE-CKNNA beside CKNNA of clean images, the change, every condition, and each model's robustness."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io import tables
from diffalign.io.score_recipes import is_miniature, read_recipe

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

_ESTIMATES = ("clean", "se_cknna", "change", "relative_change")
_BOUNDS = ("low", "high")
_ABOVE = {
    "above_null": "mean",
    "clean_above_null": "clean",
    "change_above_null": "change",
    "relative_change_above_null": "relative",
}
_NULLS = ("clean_null", "null_mean", "null_sd")
_ROBUST = ("robustness_a", "robustness_b")
_OF_FILES = {"sigma_file": "sigma", "shift": "mean_shift", "clipped": "clipped"}


def se_cknna_table(recipes: Sequence[Path], tsv: Path, parquet: Path) -> None:
    """Write the table, as TSV and Parquet with the same rows; what is not known is empty.

    Columns: dataset, a, b (bundles), kind_a, kind_b (encoder, autoencoder, diffusion or precomputed), layer_a, layer_b;
    clean, se_cknna, change (se_cknna - clean) and relative_change (change / clean), each with {…}_low and {…}_high;
    clean_null, null_mean, null_sd: of the nulls of clean and se_cknna; above_null, clean_above_null, change_above_null,
    relative_change_above_null: the four estimates less these, with bounds; z, p, q of se_cknna (q: Benjamini-Hochberg
    over the table); score: which of both the score file holds; one column a condition, and of each with noise
    {…}_sigma_a and {…}_sigma_b (what the resizing of each model leaves of it), {…}_sigma_file, {…}_shift and
    {…}_clipped (of the files); robustness_a and robustness_b (mean CKNNA of a model on clean with itself on transformed
    images); reference, mean_over, leak (what one side was given of the other), n, k, miniature.
    """
    read = [read_recipe(path) for path in recipes]
    conditions = list(dict.fromkeys(name for recipe in read for name in recipe["conditions"]))
    estimates = (*_ESTIMATES, *_ABOVE)
    numbers = [key + end for key in estimates for end in ("", *(f"_{bound}" for bound in _BOUNDS))]
    noisy = list(dict.fromkeys(name for recipe in read for name in recipe["noise"]))
    of_noise = [f"{name}_{what}" for name in noisy for what in ("sigma_a", "sigma_b", *_OF_FILES)]
    columns = {
        **dict.fromkeys(("metric", "dataset", "a", "b", "kind_a", "kind_b", "layer_a", "layer_b"), "string"),
        **dict.fromkeys([*numbers, *_NULLS, "z", "p", "q", *conditions, *of_noise, *_ROBUST], "float64"),
        **dict.fromkeys(("reference", "mean_over", "score", "leak"), "string"),
        **dict.fromkeys(("n", "k"), "int64"),
        "miniature": "bool",
    }
    table = tables.frame([row(recipe) for recipe in read], columns)
    tables.add_q(table, "p", "q")
    tables.write(table.drop(columns="metric"), tsv, parquet)


def row(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of one pair, without q."""
    estimates = {key: recipe[key] for key in _ESTIMATES if key != "se_cknna"}
    estimates["se_cknna"] = recipe["mean"]
    estimates |= {key: recipe["above_null"][name] for key, name in _ABOVE.items()}
    named = ("metric", "dataset", "reference", "mean_over", "score", "leak", "n", "k")
    cells: dict[str, Any] = {key: recipe[key] for key in named}
    for side in "ab":
        cells |= {
            side: recipe[side]["bundle"],
            f"kind_{side}": kind(recipe[side]),
            f"layer_{side}": recipe[side]["layers"][0]["layer"],
            f"robustness_{side}": recipe["robustness"].get(side, {}).get("mean", {}).get("value"),
        }
    for key, estimate in estimates.items():
        cells |= {key: estimate["value"], **{f"{key}_{bound}": estimate[bound] for bound in _BOUNDS}}
    cells |= {key: (recipe["null"] or {}).get(key) for key in ("z", "p")}
    cells |= {"clean_null": recipe["clean"]["null_mean"]}
    cells |= {f"null_{key}": (recipe["null"] or {}).get(key) for key in ("mean", "sd")}
    cells |= {name: estimate["value"] for name, estimate in recipe["conditions"].items()}
    for name, noise in recipe["noise"].items():
        cells |= {f"{name}_sigma_{side}": noise[side]["sigma"] for side in "ab"}
        cells |= {f"{name}_{column}": (noise["files"] or {}).get(key) for column, key in _OF_FILES.items()}
    return {**cells, "miniature": is_miniature(recipe)}


def kind(side: Mapping[str, Any]) -> str:
    """What a model is: an autoencoder has a layer ``latent``, a diffusion model reads the latents of another."""
    if side["model"].get("features"):
        return "precomputed"
    if side["autoencoder"] is not None:
        return "diffusion"
    return "autoencoder" if "latent" in side["model"]["layers"] else "encoder"


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "se_cknna_table"):
        se_cknna_table(
            [Path(path) for path in snakemake.input.recipes],
            Path(snakemake.output.tsv),
            Path(snakemake.output.parquet),
        )
