"""Findings: what the tables over trainings, atlases, contrasts, trajectories and spaces say, in sentences."""

from __future__ import annotations

from typing import Any

from diffalign import names
from diffalign.plan import paths
from diffalign.plan.stage import Stage


class Findings(Stage):
    """Rule of rules/findings.smk."""

    def inputs(self) -> dict[str, Any]:
        """Tables over trainings, of atlases, contrasts and spaces, and orders of emergence, where a study has them."""
        study, plan = self.study, self.plan
        files: dict[str, Any] = {}
        if study.through_training.recipes:
            wanted = ("steps", "contrasts", "correlations")
            files |= {table: plan.through_training.tables[f"{table}_tsv"] for table in wanted}
        if study.atlas.models:
            files |= {table: plan.atlas.tables(table) for table in ("scores", "beyond")}
        # random weights show nothing
        if families := plan.contrasts.tables("tsv", miniatures=False):
            files["families"] = families
        if orders := plan.dynamics.of_all("order", "tsv", miniatures=False):
            files["orders"] = orders
        spaces = plan.shared_space
        if of_spaces := spaces.of_all(paths.SPACE, "consistency.tsv", miniatures=False):
            files["spaces"] = of_spaces
        if of_pairs := spaces.of_all(paths.ALIGNED_PAIR, "scores.tsv", miniatures=False):
            files["pair_scores"] = of_pairs
            files["pair_contrasts"] = spaces.of_all(paths.ALIGNED_PAIR, "contrasts.tsv", miniatures=False)
        return files

    def towards(self) -> dict[str, str]:
        """Recipe -> the model of the reference, where a training of the recipe has it as its teacher."""
        section = self.study.through_training
        aims = {}
        for recipe, typed in section.recipes.items():
            trainings = [self.study.model_of(name).training for name in typed]
            teachers = {names.model_word(each.teacher) for each in trainings if each is not None and each.teacher}
            if section.reference is not None and names.model_word(section.reference) in teachers:
                aims[recipe] = names.model_word(section.reference)
        return aims

    @property
    def outputs(self) -> dict[str, str]:
        """Table, Parquet and text."""
        stem = paths.fill(paths.TABLE, table="findings")
        return {"tsv": f"{stem}.tsv", "parquet": f"{stem}.parquet", "text": paths.FINDINGS}

    def targets(self) -> list[str]:
        """The text, where the study has anything that sentences are made of."""
        return [paths.FINDINGS] if self.inputs() else []
