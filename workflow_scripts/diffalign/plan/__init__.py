"""The plan: which files a study is, and what each job reads, writes and depends on; one module a stage.

Rules ask a `Plan` for inputs, outputs and parameters. Its patterns of paths stand in `paths`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import models
from diffalign.code_digests import code_digest
from diffalign.plan.alignment import Alignment
from diffalign.plan.atlas import Atlas
from diffalign.plan.cluster import Cluster
from diffalign.plan.contrasts import Contrasts
from diffalign.plan.cost import Costs
from diffalign.plan.dynamics import Dynamics
from diffalign.plan.exchange import Exchange
from diffalign.plan.features import Features
from diffalign.plan.figures import Figures
from diffalign.plan.findings import Findings
from diffalign.plan.human import Human
from diffalign.plan.ladder import Ladder
from diffalign.plan.language import Language
from diffalign.plan.latents import Latents
from diffalign.plan.layouts import Layouts
from diffalign.plan.samples import Samples
from diffalign.plan.se_cknna import SemanticEquivariance
from diffalign.plan.shared_space import SharedSpace
from diffalign.plan.stage import Wildcards
from diffalign.plan.stimuli import Stimuli
from diffalign.plan.through_training import ThroughTraining
from diffalign.plan.training import Trainings
from diffalign.plan.variance import Variance
from diffalign.plan.weights import Weights

if TYPE_CHECKING:
    from diffalign.config.study import Study

_SCRIPTS = Path(__file__).resolve().parents[2]


class Plan:
    """A study as files. families: what every family of models declares."""

    def __init__(self, study: Study, families: Mapping[str, models.Family]) -> None:
        self.study = study
        self.families = families
        self.cluster = Cluster(self)
        self.stimuli = Stimuli(self)
        self.weights = Weights(self)
        self.training = Trainings(self)
        self.latents = Latents(self)
        self.features = Features(self)
        self.samples = Samples(self)
        self.language = Language(self)
        self.alignment = Alignment(self)
        self.dynamics = Dynamics(self)
        self.shared_space = SharedSpace(self)
        self.findings = Findings(self)
        self.figures = Figures(self)
        self.se_cknna = SemanticEquivariance(self)
        self.through_training = ThroughTraining(self)
        self.atlas = Atlas(self)
        self.contrasts = Contrasts(self)
        self.ladder = Ladder(self)
        self.human = Human(self)
        self.layouts = Layouts(self)
        self.exchange = Exchange(self)
        self.variance = Variance(self)
        self.cost = Costs(self)

    def everything(self) -> list[str]:
        """The tables, figures and scores of the study."""
        trained = (self.training, self.samples, self.through_training, self.atlas, self.dynamics, self.findings)
        pairs = (self.shared_space, self.figures, self.language, self.se_cknna, self.contrasts, self.ladder)
        stages = (*trained, *pairs, self.human, self.exchange)
        return [path for stage in stages for path in stage.targets()]

    def everything_made(self, wildcards: Wildcards) -> list[str]:  # noqa: ARG002 - as Snakemake calls it
        """The same, as a function of inputs, which is called only where they are asked for."""
        return self.everything()

    def digest(self, *scripts: str, family: str | None = None) -> str:
        """Digest of the code of scripts, and of the family that they load by name."""
        return _digest(tuple(scripts), family)

    def code(self, script: str) -> Callable[[Wildcards], str]:
        """The digest of the code of a script, as a parameter."""
        return lambda wildcards: self.digest(script)

    def code_with_family(self, script: str) -> Callable[[Wildcards], str]:
        """The same with the family of the model of a target."""
        return lambda wildcards: self.digest(script, family=self.study.checkpoint(wildcards.model).family)


@cache
def _digest(scripts: tuple[str, ...], family: str | None) -> str:
    files = [_SCRIPTS / script for script in scripts]
    return code_digest([*files, *([] if family is None else [models.module_path(family)])])
