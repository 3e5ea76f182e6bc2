import pytest

from diffalign.reasons import reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("first line\nsecond"), "first line"),
        (ValueError(), "ValueError"),
        (MemoryError(), "it does not fit into memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "it does not fit into memory"),
        (RecursionError("maximum recursion depth exceeded"), "it is nested too deeply"),
        (KeyError("names"), "it lacks 'names'"),
    ],
)
def test_what_went_wrong_is_one_line(error: Exception, said: str) -> None:
    assert reason(error) == said


@pytest.mark.parametrize(
    "advice",
    [
        "Weights only load failed. … set `weights_only` to `False` will likely succeed, but it can result in arbitrary",
        "Object arrays cannot be loaded when allow_pickle=False",
        "Header info length (20000) is large and may not be safe to load securely. … max_header_size",
        "Please pass the argument `trust_remote_code=True` to allow custom code to be run",
    ],
)
def test_no_message_advises_to_load_a_file_unsafely(advice: str) -> None:
    said = reason(RuntimeError(advice))
    assert said.endswith("nothing of it was executed")
    assert not any(word in said for word in ("weights_only", "allow_pickle", "max_header_size", "trust_remote_code"))
