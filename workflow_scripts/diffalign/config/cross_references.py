"""What no section shows by itself: names of entries of other sections, and values that contradict each other."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffalign import names
from diffalign.conditions import CLEAN
from diffalign.config import (
    alignment,
    atlas,
    contrasts,
    datasets,
    dynamics,
    exchange,
    held_out,
    human,
    ladder,
    model_checks,
    pairs,
    samples,
    shared_space,
    through_training,
    training,
)

if TYPE_CHECKING:
    from diffalign.config.catalogue import Entry
    from diffalign.config.study import Sections
    from diffalign.models import Family
    from diffalign.names import Vocabulary


def check(
    sections: Sections,
    plain: Mapping[str, Any],
    catalogue: Mapping[str, Entry],
    families: Mapping[str, Family],
    metrics: Collection[str],
) -> Iterator[str]:
    """What one section does not show: names of other entries, and values that contradict each other."""
    sets = _names_of(plain.get("datasets"))
    yield from _word_mistakes(sections, sets, metrics)
    yield from _alignment_mistakes(sections, _names_of(plain.get("alignment")))
    for name, dataset in sections.datasets.items():
        yield from datasets.check(name, dataset)
    vocabularies: dict[str, Vocabulary] = {}
    for name, model in sections.models.items():
        broken = list(model_checks.check(name, model, sections.models, families, sets, sections.refused[name]))
        broken += training.check(f"models.{name}", model, families, sets)
        yield from broken
        if not broken:
            vocabularies[name] = model.record(name, 0).vocabulary
    for name, vocabulary in vocabularies.items():
        layers, entries = vocabulary.layers, sections.models
        yield from training.check_teacher(
            f"models.{name}", entries[name].training, layers, entries, families, vocabularies
        )
    declared = list(dict.fromkeys([*catalogue, *_names_of(plain.get("models"))]))
    # without any model left, every name would be reported in vain
    if vocabularies:
        if sections.study is not None:
            yield from pairs.check(sections.study, sections.defaults, vocabularies, declared, _measures_else(sections))
        if sections.se_cknna is not None:
            listed = sections.se_cknna.pairs
            yield from pairs.pair_mistakes("se_cknna.pairs", "pair", listed, vocabularies, declared)
        if sections.through_training is not None:
            yield from through_training.check(sections.through_training, sections.models, vocabularies, declared)
        if sections.atlas is not None:
            yield from atlas.check(sections.atlas, vocabularies, declared)
        if sections.contrasts is not None:
            yield from contrasts.check(sections.contrasts, vocabularies, declared)
        if sections.ladder is not None:
            yield from ladder.check(sections.ladder, vocabularies, declared)
        if sections.human is not None:
            yield from human.check(sections.human, sections.datasets, vocabularies, declared)
        if sections.samples is not None:
            yield from samples.check(sections.samples, sets, sections.models, families, vocabularies)
        if sections.dynamics is not None:
            yield from dynamics.check(sections.dynamics, sets, sections.models, families, vocabularies)
        space = sections.shared_space
        if space is not None:
            yield from shared_space.check(space, sets, sections.models, families, vocabularies, declared)
        yield from held_out.check(sections)
    if sections.se_cknna is not None and CLEAN in sections.se_cknna.conditions:
        yield "se_cknna.conditions: 'clean' stands beside the mean and is no part of it; leave it out"


def _measures_else(sections: Sections) -> bool:
    """Whether a section other than `study` names what is measured, or was refused."""
    named = (
        ("human", "datasets"),
        ("through_training", "recipes"),
        ("atlas", "models"),
        ("contrasts", "families"),
        ("contrasts", "layers"),
        ("ladder", "pairs"),
        ("samples", "models"),
        ("dynamics", "configurations"),
        ("shared_space", "spaces"),
        ("se_cknna", "pairs"),
    )
    found = [(getattr(sections, section), key) for section, key in named]
    return any(section is None or getattr(section, key) for section, key in found)


def _names_of(section: Any) -> list[str]:
    return list(map(str, section)) if isinstance(section, dict) else []


def _alignment_mistakes(sections: Sections, given: Sequence[str]) -> Iterator[str]:
    if sections.alignment is not None:
        yield from alignment.check(sections.alignment, set(given) - sections.alignment.model_fields_set)


def _word_mistakes(sections: Sections, declared: Sequence[str], metrics: Collection[str]) -> Iterator[str]:
    """Words that are no data set, condition or metric; where a section is refused, nothing is held against it."""
    known = [CLEAN, *(sections.se_cknna.conditions if sections.se_cknna else ())]
    conditions = [*sections.top.conditions, *known] if sections.top else []
    defaults, study = sections.defaults, sections.study
    measured = sections.alignment.metrics if sections.alignment else ()
    groups: list[tuple[str, str, Sequence[str], Collection[str]]] = [
        ("defaults.dataset", "dataset", [defaults.dataset] if defaults else [], declared),
        ("defaults.condition", "condition", [defaults.condition] if defaults else [], conditions),
        ("study.datasets[{}]", "dataset", study.datasets if study else [], declared),
        *(
            (f"{key}.dataset", "dataset", [section.dataset], declared)
            for key in ("through_training", "atlas", "contrasts", "ladder")
            if (section := getattr(sections, key)) is not None and section.dataset is not None
        ),
        ("study.conditions[{}]", "condition", study.conditions if study else [], conditions),
        ("alignment.metrics[{}]", "metric", measured, metrics),
    ]
    for place, what, words, allowed in groups:
        for i, word in enumerate(words):
            if allowed and word not in allowed:
                yield f"{place.format(i)}: {names.unknown(what, word, allowed)}"
    if sections.exchange is not None:
        people = None if sections.human is None else sections.human.datasets
        yield from exchange.check(sections.exchange, study, metrics, people)
