"""The section `exchange`: scores that others published, and files of the study in layouts of others."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Literal

from pydantic import Field

from diffalign import names
from diffalign.config.fields import Count, Distinct, Listed, NonEmpty, Section, Text, Word
from diffalign.config.pairs import StudySection


class ScoreFileEntry(Section):
    """A file of best scores as platonic-rep's measure_alignment.py writes it."""

    path: Text = Field(
        description=(
            "The .npy file; relative to the working directory, or absolute. It is a pickle, of which only arrays of "
            "numbers and a dictionary are read. Checked when the job runs."
        )
    )
    metric: Text = Field(description="The metric it is of; docs/metrics.md.")
    k: Count = Field(10, description="Neighbours an image that it was measured with, of metrics on neighbours.")
    x: Annotated[NonEmpty[Text], Distinct()] = Field(
        description="What its rows are, in order: names of the study, as far as their scores are to stand beside them."
    )
    y: Annotated[NonEmpty[Text], Distinct()] = Field(description="What its columns are, likewise.")


class ExchangeSection(Section):
    """Scores that others published, and files of the study in layouts of others; docs/layouts.md."""

    scores: dict[Word, ScoreFileEntry] = Field(
        {},
        description=(
            "Files of scores by names of your own, for results/tables/published_scores.tsv, in which the score of the "
            "study stands beside each that it has, too."
        ),
    )
    exports: Annotated[Listed[Literal["platonic"]], Distinct()] = Field(
        (),
        description=(
            "What is written with the study, and not only on request. platonic: of every metric, data set and "
            "condition the best scores of the whole set, in one file; needs study.against."
        ),
    )


def check(section: ExchangeSection, study: StudySection | None, metrics: Collection[str]) -> Iterator[str]:
    """Metrics that do not exist, and exports of whole sets of a study without two sides."""
    for name, entry in section.scores.items():
        if entry.metric not in metrics:
            yield f"exchange.scores.{name}.metric: {names.unknown('metric', entry.metric, metrics)}"
    if "platonic" in section.exports and study is not None and not (study.against and study.pairs == "all"):
        yield (
            "exchange.exports: a file of scores X x Y has every model of one side with every one of the other: set "
            "study.against, and study.pairs to all"
        )
