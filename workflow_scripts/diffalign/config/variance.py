"""The sections `alignment.variance` and `alignment.power`: what a score would be with other draws, and other N."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from diffalign.config.fields import Positive, Section


class VarianceSection(Section):
    """Where the spread of a score comes from; docs/uncertainty.md."""

    redraws: Annotated[int, Field(ge=1, le=99)] = Field(
        4, description="Further draws of noise beside the first, each an extraction of its own: -redraw1, -redraw2 …"
    )


class PowerSection(Section):
    """What a study of this size can show; docs/uncertainty.md."""

    power: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.8, description="The probability with which a score or a difference that is there is found."
    )
    difference: Positive = Field(
        0.05, description="A difference of two scores, for which tables say how many images would show it."
    )
    correlation: Annotated[float, Field(gt=-1, lt=1)] = Field(
        0.0,
        description=(
            "Correlation, over images, of the errors of two scores that are compared. 0 is cautious: scores of the "
            "same images mostly have a positive one."
        ),
    )
