"""Features of a bundle and their odd-one-out accuracy in the layout of the published code of diffusion models."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffalign import logs
from diffalign.dataset_specs import SourceFile
from diffalign.io.atomic import make_empty, write_json
from diffalign.io.feature_files import read_bundle
from diffalign.io.headers import check_same_names
from diffalign.io.layouts import diffusion_alignment as layout
from diffalign.io.tables import read_tsv
from diffalign.stimuli.kinds.things import read_concepts, verified

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def export_people(
    layers_json: Path, accuracies: Path, concepts: SourceFile, source: str, model: str, text: bool, folder: Path
) -> None:
    """Write ``features/…npy`` of every layer, all of them in one file, and ``alignment.pkl``, below a folder.

    accuracies: table of odd_one_out. source, model, text: as of `layout.published_name`. Raises StoreError where the
    features are of other objects than the list of concepts.
    """
    verified(Path(concepts.path), concepts.sha256)
    listed = [concept.name for concept in read_concepts(Path(concepts.path))]
    table = read_tsv(accuracies).set_index("layer")["published"]
    bundle = read_bundle(layers_json)
    make_empty(folder / "features")
    arrays, scores, recipe = {}, {}, {}
    for alias in bundle.digests:
        features = bundle.read(alias)
        check_same_names(sorted(listed), features.names, Path(concepts.path), bundle.path(alias))
        row_of = {name: row for row, name in enumerate(features.names)}
        module = layout.published_module(features.recipe["module"], text)
        arrays[module] = np.ascontiguousarray(features.values[[row_of[name] for name in listed]])
        # the published code rounds to four places
        scores[module] = round(float(table[alias]), 4)
        recipe = features.shared
        layout.write_pickled(folder / layout.feature_file(source, model, module), arrays[module])
    layout.write_pickled(folder / layout.ALL_FEATURES, {source: {model: arrays}})
    layout.write_pickled(folder / layout.ALIGNMENT, {source: {model: scores}})
    write_json(folder / "recipe.json", recipe)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "export_people"):
        source, model, text = snakemake.params.published
        export_people(
            Path(snakemake.input.layers),
            Path(snakemake.input.accuracies),
            SourceFile(**snakemake.params.concepts),
            source,
            model,
            text,
            Path(snakemake.output.alignment).parent,
        )
