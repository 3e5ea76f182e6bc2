"""Prompt embeddings of a model under a conditioning: every distinct text once, and which image has which."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from diffalign import logs
from diffalign.atomic import replacing
from diffalign.extraction.passes import choose_device
from diffalign.models import family
from diffalign.stimuli.captions import prompt_texts
from diffalign.stimuli.manifest import read_manifest

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def prompts(family_name: str, conditioning: str, weights: Path, manifest: Path, path: Path, device: str) -> None:
    """Embed the distinct texts and write them with ``row``, the text of each image in order of name."""
    texts, rows = prompt_texts(read_manifest(manifest), conditioning)
    embedded = family(family_name).embed_prompts(weights, texts, choose_device(device))
    logs.log.info("%d distinct texts for %d images", len(texts), len(rows))
    tensors = {**{key: value.contiguous() for key, value in embedded.items()}, "row": torch.tensor(rows)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"conditioning": conditioning})


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "prompts"):
        torch.set_num_threads(snakemake.threads)
        prompts(
            snakemake.params.family,
            snakemake.wildcards.conditioning,
            Path(snakemake.input.weights),
            Path(snakemake.input.manifest),
            Path(snakemake.output[0]),
            snakemake.resources.device,
        )
