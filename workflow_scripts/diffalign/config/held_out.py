"""Models that a section measures, or measures by, on images of their own training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from diffalign.config import ladder, training

if TYPE_CHECKING:
    from diffalign.config.study import Sections


def check(sections: Sections) -> Iterator[str]:
    """A line for every such model."""
    default = sections.defaults.dataset if sections.defaults else None
    trainings, atlases, drawn = sections.through_training, sections.atlas, sections.samples
    measured: list[tuple[str, Any, Sequence[str], Sequence[str | None]]] = []
    if trainings is not None:
        typed = [name for listed in trainings.recipes.values() for name in listed]
        measured.append(("through_training", trainings, typed, [trainings.reference]))
    if atlases is not None:
        measured.append(("atlas", atlases, atlases.models, [atlases.reference]))
    if (compared := sections.contrasts) is not None:
        measured.append(("contrasts", compared, compared.typed, []))
    if sections.ladder is not None:
        measured.append(("ladder", sections.ladder, ladder.typed(sections.ladder), []))
    if drawn is not None:
        measured.append(("samples", drawn, drawn.models, [drawn.classifier, drawn.features]))
    for name, made in sections.dynamics.configurations.items() if sections.dynamics is not None else ():
        # what begins with images measures them
        if made.start != "noise":
            measured.append((f"dynamics.configurations.{name}", made, made.models, []))
    for place, section, models, readers in measured:
        dataset = section.dataset or default
        if models and dataset is not None:
            used = [*models, *(name for name in readers if name is not None)]
            yield from training.check_held_out(place, used, dataset, sections.models, sections.datasets)
