"""The sections `partitions` and `site`: what a SLURM cluster has, and what it wants of every call.

They stand in profiles/slurm/site.yaml beside the sections of the study that a site decides. The profile reads that file
as options of Snakemake, and the study as one of its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from diffalign.config.catalogue import read_yaml
from diffalign.config.fields import Count, Listed, Matching, NonNegative, Positive, Section, Text
from diffalign.config.hardware import HardwareSection
from diffalign.config.mistakes import ConfigError, checked_values, read
from diffalign.config.slurm import SlurmSection
from diffalign.config.work import ComputeSection

SlurmName = Annotated[str, Matching(r"[A-Za-z0-9_.:-]+", "is no name of SLURM; expected letters, digits, _ . : and -")]
# a100|a6000, nodes with one of two features
Features = Annotated[str, Matching(r"[A-Za-z0-9_.:&|()\[\]*,-]+", "is no list of features; write one, or a100|a6000")]
# the default of limits, which may not be written: the plugin reads null as a number
_NO_LIMIT: Any = None
_TOO_LATE = "is read by profiles/slurm from its site.yaml before this is; write it there"


class PartitionSection(Section):
    """Limits of a partition; a job goes to one that has what it asks for. A key that is left out is no limit."""

    max_runtime: Count | Text = Field(_NO_LIMIT, description="Minutes, or a time as SLURM writes it: '2-00:00:00'.")
    max_mem_mb: Positive = Field(_NO_LIMIT, description="Megabytes of memory of a job.")
    max_mem_mb_per_cpu: Positive = Field(_NO_LIMIT, description="Megabytes of memory for each of its cores.")
    max_threads: Count = Field(_NO_LIMIT, description="Cores of a job.")
    max_cpus_per_task: Count = Field(_NO_LIMIT, description="Cores of a task.")
    max_nodes: Count = Field(_NO_LIMIT, description="Nodes of a job.")
    max_tasks: Count = Field(_NO_LIMIT, description="Tasks of a job.")
    max_tasks_per_node: Count = Field(_NO_LIMIT, description="Tasks on one node.")
    max_gpu: Annotated[int, Field(ge=0)] = Field(0, description="GPUs of a job; 0 for a partition without.")
    available_gpu_models: Listed[Text] = Field(_NO_LIMIT, description="Kinds of GPUs, as slurm.gpu_model names them.")
    max_cpus_per_gpu: Positive = Field(_NO_LIMIT, description="Cores for each GPU.")
    supports_mpi: bool = Field(True, description="Whether jobs of MPI run there; there are none.")
    max_mpi_tasks: NonNegative = Field(_NO_LIMIT, description="Tasks of MPI.")
    available_constraints: Listed[Text] = Field(_NO_LIMIT, description="Features of its nodes, for site.constraint.")
    cluster: Text = Field(_NO_LIMIT, description="The cluster that it is of, where a site has several.")


class SiteSection(Section):
    """What a SLURM cluster wants of every call; read by profiles/slurm, from its site.yaml alone."""

    account: SlurmName | None = Field(None, description="The account of jobs. null: Snakemake guesses it.")
    qos: SlurmName | None = Field(None, description="The quality of service of jobs.")
    reservation: SlurmName | None = Field(None, description="The reservation that jobs use.")
    constraint: Features | None = Field(None, description="Features that the nodes of every job must have.")
    status_command: Literal["sacct", "squeue"] | None = Field(
        None, description="How the end of jobs is seen; squeue where there is no accounting database. null: sacct."
    )
    jobs: Count = Field(100, description="Jobs in the queue or running at once.")
    largest_node_mb: Count = Field(
        250_000, description="Megabytes of memory of the largest node: no job asks for more, also when tried again."
    )

    def resources_of_jobs(self) -> list[str]:
        """What every job asks for, as values of --default-resources; in quotes, so that no word is an expression."""
        named = {"slurm_account": self.account, "constraint": self.constraint}
        return [f"{name}='{value}'" for name, value in named.items() if value is not None]


class SiteFile(Section):
    """profiles/slurm/site.yaml."""

    partitions: Annotated[dict[Text, PartitionSection], Field(min_length=1)]
    site: SiteSection = SiteSection()
    slurm: SlurmSection = SlurmSection()
    compute: ComputeSection = ComputeSection()
    hardware: HardwareSection = HardwareSection()


def read_site(path: Path) -> SiteFile:
    """The file of a site. Raises ConfigError with every mistake, each with the name of the file."""
    mistakes: list[str] = []
    try:
        content = read_yaml(path)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    if not isinstance(content, dict):
        raise ConfigError([f"{path}: expected {', '.join(SiteFile.written())}"])
    file = read(SiteFile, checked_values(content), "", mistakes)
    if file is None or mistakes:
        raise ConfigError([f"{path}: {each}" for each in mistakes])
    return file


def check_unchanged(config: Mapping[str, Any], files: Iterable[Path], of_profile: Path) -> None:
    """Raise ConfigError where `partitions` or `site` of a configuration is not what the file of the profile says, which
    is all that the profile has read.

    config: all files and --config together. files: of the configuration. of_profile: profiles/slurm/site.yaml.
    """
    asked = {key: config[key] for key in ("partitions", "site") if key in config}
    if not asked:
        return
    elsewhere = {path: read_yaml(path) or {} for path in files if path.resolve() != of_profile.resolve()}
    mistakes = [f"{path}: {key}: {_TOO_LATE}" for path, content in elsewhere.items() for key in asked if key in content]
    if not mistakes:
        written = read_yaml(of_profile) or {}
        mistakes = [f"--config: {key}: {_TOO_LATE}" for key, value in asked.items() if value != written.get(key)]
    if mistakes:
        raise ConfigError(mistakes)


def site_of_profile(path: Path) -> SiteSection:
    """The section `site` of this file. Raises SystemExit with its mistakes alone, not all of Snakemake's options."""
    try:
        return read_site(path).site
    except ValueError as error:
        raise SystemExit(str(error)) from None
