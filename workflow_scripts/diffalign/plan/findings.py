"""Findings: what the tables over trainings and the atlases of the study say, in sentences."""

from __future__ import annotations

from typing import Any

from diffalign.plan import paths
from diffalign.plan.stage import Stage


class Findings(Stage):
    """Rule of rules/findings.smk."""

    def inputs(self) -> dict[str, Any]:
        """The tables over trainings, and both tables of every atlas, where the study has them."""
        study, plan = self.study, self.plan
        files: dict[str, Any] = {}
        if study.through_training.recipes:
            wanted = ("steps", "contrasts", "correlations")
            files |= {table: plan.through_training.tables[f"{table}_tsv"] for table in wanted}
        if study.atlas.models:
            files |= {table: plan.atlas.tables(table) for table in ("scores", "beyond")}
        return files

    @property
    def outputs(self) -> dict[str, str]:
        """Table, Parquet and text."""
        stem = paths.fill(paths.TABLE, table="findings")
        return {"tsv": f"{stem}.tsv", "parquet": f"{stem}.parquet", "text": paths.FINDINGS}

    def targets(self) -> list[str]:
        """The text, where the study has anything that sentences are made of."""
        return [paths.FINDINGS] if self.inputs() else []
