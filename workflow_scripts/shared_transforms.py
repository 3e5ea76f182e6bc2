"""Transforms of two layers into one space, by every method, fitted to some images of a data set."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from diffalign import logs
from diffalign.io.feature_files import layer_path
from diffalign.io.shared_transform_files import RECIPE, read_layers, write_shared_transform
from diffalign.shared_space.transforms import LINEAR, Settings, fit, is_held_out, run_name, select

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def shared_transforms(
    features: tuple[Path, Path],
    manifest: Path | None,
    settings: Settings,
    transforms: Mapping[str, Path],
    recipe: Path,
) -> None:
    """Fit every method of the settings to the images that are not held out, and write a file for each.

    features: of the first and second layer, of the same images. manifest: of these images, for their groups, of which
    each is fitted or held out as a whole, and labels that half-shared encoders may be trained on; None for none.
    transforms: ``rbf`` or ``half_shared_0`` with the seed -> file. recipe: what was chosen, and by which images, for
    `shared_scores`.

    Raises StoreError for features of other images and manifests without some of them, ValueError for too few images
    or groups, fewer to fit than landmarks, and constant features.
    """
    runs = {run_name(method, seed): (method, seed) for method, seed in settings.runs}
    if runs.keys() != transforms.keys():
        raise ValueError(f"transforms are {', '.join(runs)}; files are given for {', '.join(transforms) or 'none'}")
    layers = read_layers(features, manifest)
    held_out = is_held_out(layers.groups, settings.held_out, settings.seed)
    fitted = layers.part(np.flatnonzero(~held_out))
    names, labels, groups, (x, y) = fitted.names, fitted.labels, fitted.groups, fitted.values
    selection = select(x, y, names, settings, groups) if set(LINEAR) & set(settings.methods) else None
    chosen = {}
    for run, (method, seed) in logs.progress(runs.items(), len(runs), "methods"):
        pair = fit(method, x, y, names, labels, settings, settings.seed if seed is None else seed, selection, groups)
        write_shared_transform(transforms[run], method, seed, names, pair)
        chosen[run] = dict(pair.chosen)
    RECIPE.write_json(
        recipe,
        settings=asdict(settings),
        images={"fit": len(names), "held_out": int(held_out.sum())},
        groups={"fit": len(set(groups)), "held_out": len(set(layers.groups)) - len(set(groups))},
        chosen=chosen,
        selection=None if selection is None else asdict(selection),
        a=layers.facts[0],
        b=layers.facts[1],
    )


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "shared_transforms"), threadpool_limits(snakemake.threads):
        given, output, layers = snakemake.input, dict(snakemake.output.items()), snakemake.params.layers
        shared_transforms(
            (layer_path(Path(given.a), layers[0]), layer_path(Path(given.b), layers[1])),
            Path(manifest) if (manifest := given.get("manifest")) else None,
            Settings.of(snakemake.params.settings),
            {name: Path(path) for name, path in output.items() if name != "recipe"},
            Path(output["recipe"]),
        )
