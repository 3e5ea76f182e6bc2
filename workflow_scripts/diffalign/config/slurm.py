"""The section `slurm`: how a cluster is asked for GPUs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diffalign.config.fields import Matching, Section

GpuModel = Annotated[str, Matching(r"[A-Za-z0-9_.]+", "is not the name of a GPU; expected letters, digits, _ and .")]


class SlurmSection(Section):
    """How a SLURM cluster is asked for GPUs. Calls without a cluster leave `gres` out: it hides GPUs from `resources`,
    which limits how many jobs use them at once.
    """

    gpus_by: Literal["gpus", "gres"] = Field(
        "gpus", description="gpus: --gpus=1. gres: --gres=gpu:1, for clusters that take no --gpus."
    )
    gpu_model: GpuModel | None = Field(
        None, description="The kind of GPU, as the cluster calls it: a100 asks for --gpus=a100:1 or --gres=gpu:a100:1."
    )
