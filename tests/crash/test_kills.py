"""Ten kills at random times: all numbers are those of an undisturbed run. `make soak` has fifty."""

import random
from pathlib import Path

from kills import Kills


def test_ten_kills_at_random_times_change_no_number(tmp_path: Path) -> None:
    disturbed = Kills(tmp_path, seed=random.SystemRandom().randrange(10**6))
    disturbed.survive(10)
    assert len(disturbed.killed) == 10
    assert "Snakemake" in disturbed.killed or not disturbed.said_unlock
