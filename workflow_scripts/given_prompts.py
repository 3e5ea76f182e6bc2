"""Embeddings that were given for a model, one an image, joined on names: a file of prompts like the others."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.manifest import read_manifest
from diffalign.io.prompt_files import embedding_facts, read_embeddings, write_prompts

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def given_prompts(word: str, source: Path, alone: str, manifest: Path, path: Path) -> None:
    """Write the embeddings of the images of the manifest. alone: as of `read_embeddings`. Raises StoreError that names
    the file and the images.
    """
    names = [image.name for image in read_manifest(manifest)]
    facts = {"conditioning": word, **embedding_facts(source, alone)}
    write_prompts(path, read_embeddings(source, names, alone), range(len(names)), names, facts)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "given_prompts"):
        given_prompts(
            snakemake.wildcards.word,
            Path(snakemake.params.source),
            snakemake.params.alone,
            Path(snakemake.input.manifest),
            Path(snakemake.output[0]),
        )
