"""Features of texts or given embeddings alone: no image is seen, so there is one layer, text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from diffalign import logs
from diffalign.io import bundles
from diffalign.io.atomic import read_settings_file
from diffalign.io.checkpoints import RECORD, read_record
from diffalign.io.headers import check_same_names
from diffalign.io.manifest import read_manifest
from diffalign.io.prompt_files import read_prompts
from diffalign.specs import Model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def text_features(
    recipe: Path,
    record: Path | None,
    dataset_json: Path,
    manifest: Path,
    prompts: Path,
    listed: Path,
) -> None:
    """Write the row of each image. record: of the text encoder, None for embeddings that were given. Raises StoreError
    where the prompts are of other images than the manifest.
    """
    content = read_settings_file(recipe)
    (layer,) = Model.from_recipe(content["model"]).layers
    names = [row.name for row in read_manifest(manifest)]
    embedded = read_prompts(prompts)
    check_same_names(names, list(embedded.row_of), manifest, prompts)
    values = embedded.text[[embedded.row_of[name] for name in names]].float().numpy()
    made = {
        **content,
        **_tokens(embedded.facts),
        "weights": read_record(record) if record else given_record(embedded.facts),
        "autoencoder_weights": None,
        "prompts": embedded.facts,
        "images": json.loads(dataset_json.read_text(encoding="utf-8")),
        "torch": torch.__version__,
    }
    bundles.write(listed, names, lambda _: values, made, {layer: layer})


def _tokens(facts: Mapping[str, Any]) -> dict[str, str]:
    """How the tokens of a text or a given embedding became one vector."""
    if "embeddings" not in facts:
        return {"tokens": "last", "pooling": "none"}
    if facts.get("alone") == "concatenated":
        return {"tokens": "the given tokens, concatenated", "pooling": "none"}
    return {"tokens": "mean of the given tokens", "pooling": "mean"}


def given_record(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the place of a checkpoint's record for embeddings that were given."""
    return RECORD.header(source="given", sha256={facts["embeddings"]: facts["sha256"]})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "text_features"):
        given = snakemake.input
        text_features(
            Path(given.recipe),
            Path(given.record) if "record" in dict(given.items()) else None,
            Path(given.dataset),
            Path(given.manifest),
            Path(given.prompts),
            Path(snakemake.output.manifest),
        )
