"""How fuzzers run: a few deterministic examples in the tests, or for FUZZ_SECONDS each (make fuzz)."""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# what a file may make a reader hold beyond what the process holds
MEMORY = 2 * 2**30
_HEALTH = list(HealthCheck)


def fuzz(check: Callable[..., None], *drawn: st.SearchStrategy[Any], examples: int) -> None:
    """Call `check` with drawn values.

    examples: in the tests, the same ones every time. With FUZZ_SECONDS, others until the time is over.
    """
    budget = float(os.environ.get("FUZZ_SECONDS", "0"))
    common: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": _HEALTH}
    if not budget:
        # no shrinking: an example is small, and a failure is shown as it is
        settings(max_examples=examples, derandomize=True, phases=[Phase.generate], **common)(given(*drawn)(check))()
        return
    end, count = time.monotonic() + budget, 0
    while time.monotonic() < end:
        settings(max_examples=200, derandomize=False, **common)(given(*drawn)(check))()
        count += 200
    sys.stdout.write(f"{count} examples in {budget:.0f} s\n")


@contextmanager
def bounded_memory() -> Iterator[None]:
    """No more than `MEMORY` beyond what this process holds now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# what happens to the bytes of a file: (kind, place as a share, count, value)
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "drop", "repeat", "insert", "zero", "number"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1)


def damaged(content: bytes, what: list[tuple[str, float, int, int]]) -> bytes:
    """The bytes of a file after these changes."""
    made = bytearray(content)
    for kind, share, count, value in what:
        at = int(share * len(made))
        if kind == "flip" and made:
            made[at] ^= value or 1
        elif kind == "cut":
            del made[at:]
        elif kind == "drop":
            del made[at : at + count]
        elif kind == "repeat":
            made[at:at] = made[at : at + count]
        elif kind == "insert":
            made[at:at] = bytes([value]) * count
        elif kind == "zero":
            made[at : at + count] = bytes(min(count, len(made) - at))
        elif kind == "number":
            number = _NUMBERS[value % len(_NUMBERS)].to_bytes(8, "little")
            made[at : at + 8] = number
    return bytes(made)
