"""The rules of the workflow, as Snakemake reads them."""

from functools import cache
from pathlib import Path

from conftest import ROOT
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings


@cache
def outputs(*configfiles: Path) -> dict[str, tuple[str, ...]]:
    """Rule -> the patterns of its outputs, under config.yaml and the miniatures of the demo, or files given here."""
    files = configfiles or (ROOT / "config.yaml", ROOT / "profiles" / "demo" / "study.yaml")
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=files),
            snakefile=ROOT / "Snakefile",
        )._workflow
        return {rule.name: tuple(map(str, rule.output)) for rule in workflow.rules}
