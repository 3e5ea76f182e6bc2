"""Prompt embeddings of a model under a conditioning: every distinct text once, and which image has which."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from diffalign import checkpoints, logs
from diffalign.atomic import replacing
from diffalign.devices import choose_device
from diffalign.latents import encode_names
from diffalign.models import family
from diffalign.stimuli.captions import prompt_texts
from diffalign.stimuli.manifest import read_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def prompts(
    family_name: str, conditioning: str, weights: Path, record: Path, manifest: Path, path: Path, device: str
) -> None:
    """Embed the distinct texts and write them with ``names`` and ``row``: which image has which text.

    Raises CheckpointError where the checkpoint is not the recorded one.
    """
    images = read_manifest(manifest)
    texts, rows = prompt_texts(images, conditioning)
    checkpoints.verify(record, weights)
    embedded = family(family_name).embed_prompts(weights, texts, choose_device(device))
    logs.log.info("%d distinct texts for %d images", len(texts), len(rows))
    tensors = {key: value.contiguous() for key, value in embedded.items()}
    tensors |= {"row": torch.tensor(rows), "names": encode_names([image.name for image in images])}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"conditioning": conditioning})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "prompts"):
        torch.set_num_threads(snakemake.threads)
        prompts(
            snakemake.params.family,
            snakemake.wildcards.conditioning,
            Path(snakemake.input.weights),
            Path(snakemake.input.record),
            Path(snakemake.input.manifest),
            Path(snakemake.output[0]),
            snakemake.resources.device,
        )
