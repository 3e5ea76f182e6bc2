"""What a study costs before it is started: jobs, hours and bytes of every rule and model, from its plan."""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

import diffalign
from diffalign import logs
from diffalign.io import tables
from diffalign.job_records import gpus_of
from diffalign.plan.cost import Costs, Job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

COLUMNS = {
    **dict.fromkeys(("rule", "model"), "string"),
    **dict.fromkeys(("jobs", "cores", "gpus"), "int64"),
    **dict.fromkeys(("core_hours", "gpu_hours", "limit_hours", "gigabytes", "download_gigabytes"), "float64"),
    "basis": "string",
}
TOTAL = "total"
# so many that no job is planned with fewer than it asks for
_CORES = 1024
_SNAKEFILE = Path(diffalign.__file__).resolve().parents[2] / "Snakefile"


def cost(config: Mapping[str, Any], tsv: Path, parquet: Path) -> None:
    """Plan all jobs of a study, whether or not they are done, and write what they cost.

    config: as Snakemake holds it. Columns: rule, model, jobs, cores and gpus (of one job), core_hours, gpu_hours,
    limit_hours (the sum of what jobs ask for), gigabytes (on disk, of features and lists), download_gigabytes
    (checkpoints in float32), basis (what hours are reckoned by). A sum leaves out what is not known, and where nothing
    is known it is empty. The last row is the total.
    """
    found, costs = planned(config)
    table = tables.frame(rows(found, costs), COLUMNS)
    unknown = int(table.loc[table["basis"] == "not known", "jobs"].sum())
    logs.log.info("%d jobs, of %d of which no rate is known", len(found), unknown)
    tables.write(table, tsv, parquet)


def planned(config: Mapping[str, Any]) -> tuple[list[Job], Costs]:
    """All jobs of a study, from a dry run of Snakemake in the working directory, and what reckons their costs."""
    # what the Snakefile adds for the first page of the report, and what profiles/slurm has read of its site.yaml
    study = {key: value for key, value in config.items() if key not in ("report", "partitions", "site")}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.json"
        file.write_text(json.dumps(study), encoding="utf-8")
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=_CORES),
                config_settings=ConfigSettings(configfiles=[file]),
                snakefile=_SNAKEFILE,
            )
            asked = DAGSettings(targets=frozenset(["all"]), forceall=True, force_incomplete=True)
            workflow.dag(asked).execute_workflow(executor="dryrun")
            dag = workflow._workflow.dag
            return [_job(job) for job in dag.jobs if job.output], workflow._workflow.globals["PLAN"].cost


def _job(job: Any) -> Job:
    minutes = job.resources.get("runtime")
    return Job(
        job.rule.name,
        dict(job.wildcards_dict),
        int(job.threads),
        gpus_of(job.resources),
        minutes / 60 if isinstance(minutes, int | float) else None,
    )


def rows(jobs: Iterable[Job], costs: Costs) -> Iterator[dict[str, Any]]:
    """A row a rule and model, in the order of names, and the total."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in jobs:
        found = costs.of(job)
        row = {"jobs": 1, "cores": job.cores, "gpus": job.gpus, "limit_hours": job.hours, **vars(found)}
        grouped.setdefault((job.rule, found.model), []).append(row)
    listed = [_together(rule, model, entries) for (rule, model), entries in sorted(grouped.items())]
    yield from listed
    yield {**_together(TOTAL, "", listed), "cores": 0, "gpus": 0, "basis": ""}


def _together(rule: str, model: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    sums = ("core_hours", "gpu_hours", "limit_hours", "gigabytes", "download_gigabytes")
    return {
        "rule": rule,
        "model": model,
        "jobs": sum(entry["jobs"] for entry in entries),
        "cores": max((entry["cores"] for entry in entries), default=0),
        "gpus": max((entry["gpus"] for entry in entries), default=0),
        **{key: _sum(entry[key] for entry in entries) for key in sums},
        "basis": "; ".join(dict.fromkeys(entry["basis"] for entry in entries)),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) if known else None


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "cost"):
        cost(snakemake.config, Path(snakemake.output.tsv), Path(snakemake.output.parquet))
