"""Agreement of two representations on the neighbours of each image, one row per image."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from diffalign import logs
from diffalign.alignment import per_image as images
from diffalign.alignment.groups import Groups
from diffalign.alignment.metrics import Score
from diffalign.io import recipes, sides
from diffalign.io.atomic import replacing, write_json
from diffalign.io.manifest import groups_of, labels_of

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def per_image(
    files: tuple[sides.Files, sides.Files],
    layers: tuple[str, str],
    settings: Path,
    manifest: Path | None,
    where: recipes.Where,
    table: Path,
    recipe: Path,
) -> None:
    """Write a table with one row per image, and the recipe of mutual kNN, which is the mean of its column `overlap`.

    Columns: name, label ('' without one), group (its name without one); shared, overlap, reciprocal, is_nearest_shared,
    in_degree_a, in_degree_b, similarity_a, similarity_b as in `alignment.per_image`; same_label_a, same_label_b,
    same_label_shared: share of the neighbours under A, under B and of the shared ones with the label of the image.
    manifest: of the images; None for data sets without one. Raises StoreError where the two sides have different
    images, or the manifest lacks some.
    """
    setting = recipes.read_settings(settings)
    # the seed of folds, which are not used
    a, b = sides.read_sides(*files, seed=0)
    compared = images.per_image(a.lists.layer(layers[0]), b.lists.layer(layers[1]), setting.k)
    labels = [""] * len(a.names) if manifest is None else labels_of(manifest, a.names)
    groups = Groups.of(a.names if manifest is None else groups_of(manifest, a.names))
    columns = ("shared", "overlap", "reciprocal", "is_nearest_shared")
    sided = ("in_degree_a", "in_degree_b", "similarity_a", "similarity_b")
    frame = pd.DataFrame(
        {
            "name": list(a.names),
            "label": labels,
            "group": [groups.members[code] for code in groups.codes],
            **{column: getattr(compared, column) for column in (*columns, *sided)},
            "same_label_a": images.same_label(compared.neighbors_a, labels),
            "same_label_b": images.same_label(compared.neighbors_b, labels),
            "same_label_shared": images.same_label(compared.neighbors_a, labels, compared.is_shared_a),
        }
    )
    with replacing(table) as temporary:
        frame.to_parquet(temporary, index=False)
    mean = Score(compared.shared.sum() / compared.is_shared_a.size)
    write_json(recipe, recipes.score_recipe("mutual_knn", a.lists, b.lists, layers, setting, where, groups, mean))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "per_image"):
        given = dict(snakemake.input.items())
        per_image(
            (sides.files_of(snakemake.input, "a"), sides.files_of(snakemake.input, "b")),
            (snakemake.params.layer_a, snakemake.params.layer_b),
            Path(snakemake.input.settings),
            Path(given["manifest"]) if "manifest" in given else None,
            recipes.Where(snakemake.wildcards.dataset, snakemake.wildcards.condition),
            Path(snakemake.output.table),
            Path(snakemake.output.recipe),
        )
