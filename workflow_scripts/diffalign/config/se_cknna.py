"""The section `se_cknna`: the mean of CKNNA over transformed images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from diffalign.conditions import separate_transforms
from diffalign.config.fields import ConditionName, Distinct, Listed, NonEmpty, Section


class SemanticEquivarianceSection(Section):
    """SE-CKNNA, the mean of CKNNA over transformed images, with clean beside it; docs/se-cknna.md."""

    conditions: Annotated[NonEmpty[ConditionName], Distinct()] = Field(
        ("equivariance", "noise_0.050", "noise_0.100", "noise_0.150", "noise_0.200"),
        description="Conditions that the mean is over; clean is none of them.",
    )
    reference: Literal["same", "clean"] = Field(
        "same", description="Whether the second side of a pair sees the transformed images, too, or always clean ones."
    )
    mean_over: Literal["conditions", "transforms"] = Field(
        "conditions",
        description=(
            "conditions: equivariance counts once, as one set in which every image has a rotation and a scale of its "
            "own. transforms: each of its three rotations and three scales, of all images, counts in its place."
        ),
    )
    score: Literal["raw", "above_null"] = Field(
        "raw",
        description=(
            "What the score is: raw, the mean of CKNNA; above_null, the mean less that of its null. Recipes and tables "
            "have both."
        ),
    )
    pairs: Annotated[Listed[str], Distinct()] = Field(
        (), description="Pairs a_vs_b for the table and the figure, on every data set of study.datasets."
    )

    def resolved(self) -> SemanticEquivarianceSection:
        """The same with the conditions that the mean is really over."""
        if self.mean_over == "conditions":
            return self
        return self.model_copy(update={"conditions": separate_transforms(self.conditions)})
