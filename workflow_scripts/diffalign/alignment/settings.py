"""Settings of alignments that a study chooses. They have a module of their own, so that features do not depend on the
alignment code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CLAMP_RULES = ("exact", "per_image")
CLAMP_OVER = ("layer", "model")
NORMALIZE = ("l2", None)


@dataclass(frozen=True)
class Preparation:
    """Preparation of features, applied in the order of the fields.

    clamp: quantile of |x| at which features are clamped, or None. clamp_rule: ``exact``, the value at index
    int(q · numel) of all sorted |x| (platonic-rep's ``--precise``, VFM-VAE); ``per_image``, the mean over images of the
    quantile of each (platonic-rep's command line). clamp_over: ``layer``, the quantile is of one layer; ``model``, of
    all layers together, as for one N x L x D tensor. center: subtract the mean of each dimension. whiten: PCA
    whitening, which includes centring. normalize: ``l2``, every row is divided by its L2 norm; None, all rows by the
    root mean square of their norms, so that norms count in kernels (CKA, SVCCA, Procrustes, ridge R²). Neighbour lists
    and the metrics on them are by cosine either way. Raises ValueError for unknown options and for a quantile outside
    (0, 1].
    """

    clamp: float | None = None
    clamp_rule: str = "exact"
    clamp_over: str = "layer"
    center: bool = False
    whiten: bool = False
    normalize: str | None = "l2"

    def __post_init__(self) -> None:
        for key, allowed in (("clamp_rule", CLAMP_RULES), ("clamp_over", CLAMP_OVER)):
            if getattr(self, key) not in allowed:
                raise ValueError(f"unknown {key} '{getattr(self, key)}'; allowed: {', '.join(allowed)}")
        if self.normalize not in NORMALIZE:
            raise ValueError(f"unknown normalize '{self.normalize}'; allowed: {', '.join(map(str, NORMALIZE))}")
        if self.clamp is not None and not 0 < self.clamp <= 1:
            raise ValueError(f"clamp {self.clamp}: a quantile is above 0 and at most 1")


# preparations of the published scripts
PARITY = {
    # measure_alignment.py without --precise: layers of equal width form one tensor with pooled quantiles
    "platonic": Preparation(clamp=0.95, clamp_rule="per_image", clamp_over="model"),
    "vfm-vae": Preparation(clamp=0.95, clamp_rule="exact", clamp_over="layer"),
}
# both add this to denominators
PARITY_EPS = 1e-6
_QUANTILE = PARITY["platonic"].clamp
# what else could be done to features
ALTERNATIVES = {
    "none": Preparation(),
    "clamp, exact": Preparation(clamp=_QUANTILE),
    "clamp, per image": Preparation(clamp=_QUANTILE, clamp_rule="per_image"),
    "centred": Preparation(center=True),
    "clamp, centred": Preparation(clamp=_QUANTILE, center=True),
    "whitened": Preparation(whiten=True),
    "norms kept": Preparation(normalize=None),
}


def check_draws(draws: int, alpha: float) -> None:
    """Raise ValueError for fewer permutations than a rejection at level alpha needs."""
    needed = math.ceil(1 / alpha - 1 - 1e-9)
    if draws < needed:
        raise ValueError(
            f"{draws} permutations cannot reject anything at alpha = {alpha}: at least {needed} are needed"
        )
