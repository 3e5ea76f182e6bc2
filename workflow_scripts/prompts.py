"""Prompt embeddings of a model under a conditioning: every distinct text once, and which image has which."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diffalign import logs
from diffalign.dataset_specs import Texts
from diffalign.devices import choose_device
from diffalign.io import checkpoints
from diffalign.io.manifest import read_manifest
from diffalign.io.prompt_files import write_prompts
from diffalign.models import find_family
from diffalign.provenance import file_sha256
from diffalign.specs import Model
from diffalign.stimuli.captions import prompt_texts, read_texts, read_words

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def prompts(
    model: Model,
    conditioning: str,
    files: Texts,
    weights: Path,
    record: Path,
    manifest: Path,
    path: Path,
    device: str,
) -> None:
    """Embed the distinct texts and write them with which image has which.

    Raises CheckpointError where the checkpoint is not the recorded one, CaptionError for images without such a text.
    """
    images = read_manifest(manifest)
    source = files.class_names if conditioning == "label" else files.files.get(conditioning)
    given = None if source is None else (read_words if conditioning == "label" else read_texts)(Path(source))
    texts, rows = prompt_texts(images, conditioning, given)
    checkpoints.verify(record, weights)
    embedded = find_family(model.family).embed_prompts(model, weights, texts, choose_device(device))
    logs.log.info("%d distinct texts for %d images", len(texts), len(rows))
    facts = {"conditioning": conditioning, "texts": len(texts), "first": texts[0]}
    if source is not None:
        facts |= {"file": source, "sha256": file_sha256(Path(source))}
    write_prompts(path, embedded, rows, [image.name for image in images], facts)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], snakemake.rule):
        torch.set_num_threads(snakemake.threads)
        prompts(
            Model.from_recipe(snakemake.params.model),
            snakemake.wildcards.conditioning,
            Texts(**snakemake.params.texts),
            Path(snakemake.input.weights),
            Path(snakemake.input.record),
            Path(snakemake.input.manifest),
            Path(snakemake.output[0]),
            snakemake.resources.device,
        )
