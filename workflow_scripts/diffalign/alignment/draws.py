"""How many permutations a level needs. Apart from the rest, so that reading a configuration imports no metric."""

from __future__ import annotations

import math


def check_draws(draws: int, alpha: float) -> None:
    """Raise ValueError where so few permutations can reject nothing at level alpha."""
    needed = math.ceil(1 / alpha - 1 - 1e-9)
    if draws < needed:
        raise ValueError(
            f"{draws} permutations cannot reject anything at alpha = {alpha}: at least {needed} are needed"
        )
