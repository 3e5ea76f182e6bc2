"""What a study may choose of an alignment. Apart from the code that does it, so that features do not depend on that."""

from __future__ import annotations

import math
from dataclasses import dataclass

CLAMP_RULES = ("exact", "per_image")
CLAMP_OVER = ("layer", "model")


@dataclass(frozen=True)
class Preparation:
    """Named options, applied in this order; rows are divided by their L2 norm in the end.

    clamp: quantile of |x| to clamp features at, or None. clamp_rule: ``exact``, the value at index int(q · numel) of
    all sorted |x| (platonic-rep's ``--precise``, VFM-VAE); ``per_image``, the mean over images of the quantile of each
    (platonic-rep's command line). clamp_over: whether |x| is of one ``layer`` or of all layers of the ``model``, as
    where layers are one N x L x D tensor. center: subtract the mean of every dimension. whiten: PCA whitening, which
    centres too.
    """

    clamp: float | None = None
    clamp_rule: str = "exact"
    clamp_over: str = "layer"
    center: bool = False
    whiten: bool = False

    def __post_init__(self) -> None:
        for key, allowed in (("clamp_rule", CLAMP_RULES), ("clamp_over", CLAMP_OVER)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"unknown {key} '{getattr(self, key)}'; allowed: {', '.join(allowed)}")
        if self.clamp is not None and not 0 < self.clamp <= 1:
            raise ValueError(f"clamp {self.clamp}: a quantile is above 0 and at most 1")


# what the published scripts do to features, beside dividing rows by their norm
PARITY = {
    # measure_alignment.py without --precise: layers of one width are one tensor, whose quantiles are pooled
    "platonic": Preparation(clamp=0.95, clamp_rule="per_image", clamp_over="model"),
    "vfm-vae": Preparation(clamp=0.95, clamp_rule="exact", clamp_over="layer"),
}
# added to denominators by both
PARITY_EPS = 1e-6


def check_draws(draws: int, alpha: float) -> None:
    """Raise ValueError where so few permutations can reject nothing at level alpha."""
    needed = math.ceil(1 / alpha - 1 - 1e-9)
    if draws < needed:
        raise ValueError(
            f"{draws} permutations cannot reject anything at alpha = {alpha}: at least {needed} are needed"
        )
