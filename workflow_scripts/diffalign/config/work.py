"""The sections `transforms`, `latents`, `extraction` and `compute`: how images are changed and how the work is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from diffalign.config.fields import Count, Section, Seed
from diffalign.specs import Compute

Parts = Annotated[int, Field(ge=1, le=1000)]


class TransformsSection(Section):
    """How rotations, scales and noise are drawn."""

    seeding: Literal["name", "index"] = Field(
        "name",
        description=(
            "name: keyed by (seed, image name). index: the published rule of VFM-VAE, NumPy's RandomState(seed + i) "
            "for the i-th image in order of name, so that other images change all that follow; published with seed 42."
        ),
    )
    seed: Seed | None = Field(None, description="A seed of its own; null takes the study's.")


@dataclass(frozen=True)
class Transforms:
    """How rotations, scales and noise are drawn. seed: the study's, unless they have their own."""

    seeding: str
    seed: int


class LatentsSection(Section):
    """Files of latents."""

    shards: Parts = Field(1, description="Files that latents are split into.")


class ExtractionSection(Section):
    """Jobs of extractions."""

    parts: Parts = Field(
        1,
        description=(
            "Jobs that share the extraction of a bundle, each running the model on a range of its images. The features "
            "are the same; another number runs the model again."
        ),
    )


class ComputeSection(Section):
    """How the work is done; no result depends on it."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes a GPU if there is one; cuda without a GPU is an error."
    )
    batch_size: Count = Field(64, description="Images a forward pass.")
    workers: Annotated[int, Field(ge=0)] = Field(2, description="Processes that read images, two batches ahead each.")
    compile: bool = Field(
        False,
        description=(
            "Compile every layer with torch.compile before images are run. Worth minutes of waiting on long "
            "extractions; needs a C++ compiler. Features are the same but for the order of sums, as with another batch "
            "size."
        ),
    )
    memory_mb: Annotated[int, Field(ge=10)] = Field(
        2000,
        description=(
            "Megabytes that the search of neighbours may hold in blocks of similarities, on the host or on the GPU, "
            "beyond the features of one layer. It holds at least the similarities of one image."
        ),
    )

    verified: Annotated[int, Field(ge=0)] = Field(
        5, description="Jobs, drawn at random by the seed, whose numbers the target verify computes again."
    )

    def record(self) -> Compute:
        """What jobs receive."""
        return Compute(self.device, self.batch_size, self.workers, self.memory_mb, self.compile, self.verified)
