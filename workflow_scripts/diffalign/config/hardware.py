"""The section `hardware`: what jobs run on, for what they ask for and for what a study costs."""

from __future__ import annotations

from pydantic import Field

from diffalign.config.fields import Count, Positive, Section


class HardwareSection(Section):
    """What jobs run on; no result depends on it. docs/scale.md says where the rates are from."""

    gpu_tflops: Positive | None = Field(
        None,
        description=(
            "10^12 operations a second that one GPU of yours sustains in forward passes (benchmarks/extraction.py "
            "throughput measures it). Extractions then ask for the time that they take, twice and half an hour, and "
            "the table of costs has GPU hours. null: not known, and neither is guessed."
        ),
    )
    gpu_memory_mb: Count | None = Field(
        None,
        description=(
            "Megabytes of memory of one GPU. A model with device_map whose weights and a fifth do not fit asks for as "
            "many GPUs as hold them; gpus of its entry stands. null: one GPU."
        ),
    )
    cpu_gflops: Positive = Field(
        40.0, description="10^9 operations a second of one core in forward passes, of the table of costs."
    )
