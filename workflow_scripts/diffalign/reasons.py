"""What a library says of a file that it cannot read, as one line of a message."""

from __future__ import annotations

# words of advice of numpy, torch and transformers to read a file in a way that may run what it holds
_ADVICE = ("allow_pickle", "weights_only", "max_header_size", "safe_globals", "trust_remote_code", "arbitrary code")
_LONGEST = 300


def reason(error: BaseException) -> str:
    """The first line of what went wrong, without advice to load a file unsafely; the kind of error where it says
    nothing.
    """
    said = str(error).strip()
    if any(word in said for word in _ADVICE):
        return "it is damaged, or holds pickled objects and not only arrays and text; nothing of it was executed"
    if isinstance(error, MemoryError) or "not enough memory" in said or "can't allocate memory" in said:
        return "it does not fit into memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    line = said.splitlines()[0] if said else type(error).__name__
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
    return f"it lacks {line}" if isinstance(error, KeyError) else line
