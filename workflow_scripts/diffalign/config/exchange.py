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


class PeopleFileEntry(Section):
    """A file of odd-one-out accuracies as the code of Linhardt et al. 2024 (diffusion-alignment) writes it."""

    path: Text = Field(
        description=(
            "The file: alignment.pkl, results_pca_20.npy, probing_results.pkl; relative to the working directory, or "
            "absolute. It is a pickle, of which only numbers, text, arrays, dictionaries and data frames of these are "
            "read. Checked when the job runs."
        )
    )
    of: Literal["odd_one_out", "reduction", "probe"] = Field(
        "odd_one_out",
        description=(
            "What it holds. odd_one_out: alignment.pkl. reduction: results_{reduction}_{components}.npy. probe: "
            "probing_results.pkl, which says its own settings."
        ),
    )
    distance: Literal["cosine", "euclidean", "dot"] = Field(
        "cosine", description="The distance that choices were predicted by; of odd_one_out and reduction."
    )
    pca: Count | None = Field(
        None, description="Principal components that choices were predicted from, or a probe was trained on."
    )
    pooling: Literal["mean", "max", "none"] | None = Field(
        None, description="How maps were pooled, of reduction: avg and max are mean and max, none and pca are none."
    )


class ExchangeSection(Section):
    """Scores that others published, and files of the study in layouts of others; docs/layouts.md."""

    scores: dict[Word, ScoreFileEntry] = Field(
        {},
        description=(
            "Files of scores by names of your own, for results/tables/published_scores.tsv, in which the score of the "
            "study stands beside each that it has, too."
        ),
    )
    people: dict[Word, PeopleFileEntry] = Field(
        {},
        description=(
            "Files of odd-one-out accuracies by names of your own, for results/tables/published_people.tsv, in which "
            "the accuracy of the study stands beside each that it has, too; needs human.datasets."
        ),
    )
    exports: Annotated[Listed[Literal["platonic"]], Distinct()] = Field(
        (),
        description=(
            "What is written with the study, and not only on request. platonic: of every metric, data set and "
            "condition the best scores of the whole set, in one file; needs study.against."
        ),
    )


def check(
    section: ExchangeSection, study: StudySection | None, metrics: Collection[str], people: Collection[str] | None
) -> Iterator[str]:
    """Metrics that do not exist, settings that a file does not have, whole sets of scores of a study without two sides.

    people: data sets on which the study compares models with people; None where that is not known.
    """
    if section.people and people is not None and not people:
        yield "exchange.people: no accuracy of the study stands beside them: human.datasets names no data set"
    for name, file in section.people.items():
        if (file.pooling is None) == (file.of == "reduction"):
            needs = "is missing" if file.pooling is None else f"is of reduction, not of {file.of}"
            yield f"exchange.people.{name}.pooling: {needs}"
        if file.of == "probe" and file.distance != "cosine":
            yield f"exchange.people.{name}.distance: is of odd_one_out and reduction, not of probe"
    for name, entry in section.scores.items():
        if entry.metric not in metrics:
            yield f"exchange.scores.{name}.metric: {names.unknown('metric', entry.metric, metrics)}"
    if "platonic" in section.exports and study is not None and not (study.against and study.pairs == "all"):
        yield (
            "exchange.exports: a file of scores X x Y has every model of one side with every one of the other: set "
            "study.against, and study.pairs to all"
        )
