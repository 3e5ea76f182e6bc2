"""The section `alignment`: metrics, and the settings that every score depends on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Annotated, Literal

from pydantic import Field

from diffalign.alignment.settings import PARITY, PARITY_EPS, Preparation, check_draws
from diffalign.config.fields import Distinct, FromExponent, NonEmpty, NonNegative, Positive, Section
from diffalign.config.variance import PowerSection, VarianceSection


class AlignmentSection(Section):
    """How representations are compared; docs/metrics.md."""

    metrics: Annotated[NonEmpty[str], Distinct()] = Field(description="Names of metrics.")
    k: Annotated[int, Field(ge=2)] = Field(10, description="Neighbours that a score looks at.")
    k_max: Annotated[int, Field(ge=2)] = Field(
        100,
        description=("Neighbours that a list holds; every k up to it needs no new list. Cut to N - 1 on small sets."),
    )
    eps: NonNegative = Field(
        0.0,
        description=(
            "Added to the denominators of CKNNA and CKA. 0 keeps a score free of scale; 1.0e-6 reproduces "
            "platonic-rep, where the score then depends on N."
        ),
    )
    rbf_sigma: Positive = Field(
        1.0, description="Bandwidth of the RBF kernel of cka_rbf and unbiased_cka_rbf, in distances between unit rows."
    )
    parity: Literal["platonic", "vfm-vae"] | None = Field(
        None,
        description=(
            "Prepare features and add eps exactly as a published script does: platonic (measure_alignment.py without "
            "--precise) or vfm-vae. It sets clamp, clamp_rule, clamp_over, center, whiten, normalize and eps."
        ),
    )
    clamp: Annotated[float, Field(gt=0, le=1), FromExponent] | None = Field(
        None,
        description=(
            "Clamp features at this quantile of their absolute values (0.95 in platonic-rep); null leaves them."
        ),
    )
    clamp_rule: Literal["exact", "per_image"] = Field(
        "exact", description="The quantile of all values of the layer, or the mean over images of the quantile of each."
    )
    clamp_over: Literal["layer", "model"] = Field(
        "layer", description="Whether the quantile is that of one layer or of all layers of the model together."
    )
    center: bool = Field(False, description="Subtract the mean of every dimension before normalising rows.")
    whiten: bool = Field(
        False, description="PCA whitening before rows are normalised; needs more images than dimensions."
    )
    normalize: Literal["l2"] | None = Field(
        "l2",
        description=(
            "Divide every row by its L2 norm, so that CKA is that of unit rows. With null norms count in CKA, SVCCA, "
            "Procrustes, ridge and RBF kernels, as in Kornblith et al. 2019; neighbour lists are by cosine either way."
        ),
    )
    permutations: Annotated[int, Field(ge=1)] = Field(
        200,
        description="Relabellings of the images that the null of a score is made of, the same for all pairs of layers.",
    )
    alpha: Annotated[float, Field(gt=0, lt=1), FromExponent] = Field(
        0.05,
        description=(
            "The level of all tests: of single scores, of cells corrected over their matrix, and of q-values over the "
            "study. At least 1/alpha - 1 permutations are needed."
        ),
    )
    split_selection: bool = Field(
        False,
        description=(
            "Also choose the best pair of layers on one half of the images and report it on the other, beside the "
            "uncorrected maximum."
        ),
    )
    parts: Annotated[int, Field(ge=1, le=1000)] = Field(
        1,
        description=(
            "Jobs that share the neighbour lists of a bundle, each searching for a range of its images. The lists are "
            "the same; another number computes them again. docs/scale.md"
        ),
    )
    power: PowerSection = Field(PowerSection(), description="What a study of this size can show; docs/uncertainty.md.")
    variance: VarianceSection = Field(
        VarianceSection(), description="Where the spread of a score comes from; docs/uncertainty.md."
    )

    @property
    def preparation(self) -> Preparation:
        """What is done to features: the named options, or those of a published script."""
        if self.parity is not None:
            return PARITY[self.parity]
        return Preparation(**{key: getattr(self, key) for key in _PREPARATION})

    def resolved(self) -> AlignmentSection:
        """The same with the eps of a published script where parity asks for it."""
        return self if self.parity is None else self.model_copy(update={"eps": PARITY_EPS})


_PREPARATION = tuple(each.name for each in fields(Preparation))


def check(section: AlignmentSection, refused: Collection[str]) -> Iterator[str]:
    """Numbers that contradict each other, and options that a parity sets. refused: keys whose values were no such
    numbers, for which the defaults stand here.
    """
    defaults = AlignmentSection.model_fields
    if section.k > section.k_max and not {"k", "k_max"} & set(refused):
        yield f"alignment.k: {section.k} is more than the lists hold (alignment.k_max = {section.k_max})"
    if section.parity:
        for key in (*_PREPARATION, "eps"):
            # a default that is spelled out asks for nothing
            if getattr(section, key) != defaults[key].default:
                yield f"alignment.{key}: is set by parity '{section.parity}'; give one of the two"
    elif section.clamp is None:
        for key in ("clamp_rule", "clamp_over"):
            if getattr(section, key) != defaults[key].default:
                yield f"alignment.{key}: means nothing without alignment.clamp"
    try:
        check_draws(section.permutations, section.alpha)
    except ValueError as error:
        yield f"alignment.permutations: {error}"
