"""Features of the study in the layout of another project, with their recipe beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io import feature_files, language_files
from diffalign.io.atomic import write_json
from diffalign.io.layouts import platonic, thingsvision, vfmvae
from diffalign.io.manifest import read_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

EXPORTS = ("vfmvae", "vfmvae_files", "platonic", "thingsvision")


def export_features(
    layout: str,
    condition: str,
    features: Sequence[Path],
    manifest: Path | None,
    path: Path,
    names: Path | None,
    recipe: Path,
    prefix: str = "",
    losses: Path | None = None,
    tokens: Path | None = None,
) -> None:
    """Write feature files of this workflow as one file of another layout, or as a folder of several.

    layout: one of EXPORTS. features: one file, or for ``platonic`` and ``vfmvae_files`` one a layer in order of depth.
    manifest: of the images, for their rotations and scales; None where there are none. path: the file, of
    ``vfmvae_files`` the folder, whose files are named by prefix, layer and noise level or condition. names: the names
    file of a layout whose files have no names. losses, tokens: of a language model, how well it predicts its texts, and
    the table of each of them; of a model that was not run here there is no table. Raises StoreError for files that
    cannot be trusted, and ValueError for an unknown layout.
    """
    layers = [feature_files.read_features(source) for source in features]
    if layout in ("vfmvae", "vfmvae_files"):
        rows = [] if manifest is None else read_manifest(manifest)
        transforms = {row.name: {"rotation": row.rotation, "scale": row.scale} for row in rows}
        for layer in layers:
            file = path if layout == "vfmvae" else path / vfmvae.file_name(prefix, layer, condition)
            vfmvae.write_features(file, layer, condition, transforms or None)
    elif layout == "thingsvision" and names is not None:
        thingsvision.write_features(path, names, layers[0])
    elif layout == "platonic" and names is not None:
        platonic.write_features(path, names, layers, None if losses is None else predictions(losses, tokens))
    else:
        raise ValueError(f"features are not exported as '{layout}'; known: {', '.join(EXPORTS)}")
    write_json(recipe, made_from(layers))


def predictions(losses: Path, tokens: Path | None) -> platonic.Predictions:
    """What files of losses say of a language model."""
    told = language_files.read_quality(losses)
    read = None if tokens is None else language_files.read_tokens(tokens)
    return platonic.Predictions(int(told["parameters"]), told["loss"], told["bits_per_byte"], read)


def made_from(layers: Sequence[feature_files.Features]) -> dict[str, Any]:
    """The recipe that the layers share, and alias and module path of each."""
    order = [{"layer": each.recipe["layer"], "module": each.recipe["module"]} for each in layers]
    return {**layers[0].shared, "layers": order}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        made, given = dict(snakemake.output.items()), dict(snakemake.input.items())
        export_features(
            snakemake.params.layout,
            snakemake.wildcards.condition,
            [feature_files.layer_path(Path(given["features"]), layer) for layer in snakemake.params.layers],
            Path(given["manifest"]) if "manifest" in given else None,
            Path(made["features"]),
            Path(made["names"]) if "names" in made else None,
            Path(made["recipe"]),
            snakemake.wildcards.a,
            Path(given["losses"]) if "losses" in given else None,
            Path(given["tokens"]) if "tokens" in given else None,
        )
