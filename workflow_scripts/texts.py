"""What a language model reads of every image of a data set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.dataset_specs import Texts
from diffalign.io import language_files
from diffalign.io.manifest import read_manifest
from diffalign.provenance import file_sha256
from diffalign.stimuli.captions import prompt_texts, read_texts, read_words

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def texts(conditioning: str, files: Texts, manifest: Path, dataset_json: Path, path: Path) -> None:
    """Write the text of every image. Raises CaptionError that names the first five without one."""
    images = read_manifest(manifest)
    source = files.class_names if conditioning == "label" else files.files.get(conditioning)
    given = None if source is None else (read_words if conditioning == "label" else read_texts)(Path(source))
    distinct, rows = prompt_texts(images, conditioning, given)
    facts = {"conditioning": conditioning, "texts": len(distinct), "first": distinct[0]}
    if source is not None:
        facts |= {"file": source, "sha256": file_sha256(Path(source))}
    text_of = {image.name: distinct[row] for image, row in zip(images, rows, strict=True)}
    of = json.loads(dataset_json.read_text(encoding="utf-8"))
    language_files.write_texts(path, language_files.Texts(text_of, facts, of))
    logs.log.info("%d distinct texts for %d images", len(distinct), len(images))


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "texts"):
        texts(
            snakemake.wildcards.conditioning,
            Texts(**snakemake.params.texts),
            Path(snakemake.input.manifest),
            Path(snakemake.input.dataset),
            Path(snakemake.output[0]),
        )
