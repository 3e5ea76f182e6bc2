"""What to do about jobs that failed for a reason that Snakemake does not say."""

from __future__ import annotations

_KILLED = ("Signals.SIGKILL", "returned non-zero exit status 137", "out-of-memory", "oom-kill")


def advice(output: str) -> str:
    """What a user may try, by what Snakemake has printed; empty for nothing."""
    if any(word in output for word in _KILLED):
        return (
            "A job was killed, most often because the machine ran out of memory: run fewer jobs at once (--cores 1, or "
            "--resources mem_mb=…), set a smaller batch_size of the model or compute.batch_size, or give more memory."
        )
    return ""
