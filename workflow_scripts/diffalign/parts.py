"""Parts of the images of a job."""

from __future__ import annotations


def part_rows(count: int, part: int, parts: int) -> range:
    """Rows of one part, numbered from 0, of `count` rows. Lengths of parts differ by at most 1."""
    return range(count * part // parts, count * (part + 1) // parts)
