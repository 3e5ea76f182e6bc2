"""Arrays of pickles: those of every NumPy are read, and none whose bytes would be taken for addresses."""

import codecs
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT

from diffalign.io.layouts.content import read_torch
from diffalign.io.pickled_arrays import unpickled

multiarray: Any = np._core.multiarray  # type: ignore[attr-defined]
numeric: Any = np._core.numeric  # type: ignore[attr-defined]
numeric: Any = np._core.numeric  # type: ignore[attr-defined]
ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(4, dtype=">i4"),
    np.arange(3, dtype=np.float16),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array(["a", "späte", ""]),
    np.array([b"a", b"bc"]),
    np.array([{"a": 1}, None, np.ones(2)], object),
    np.zeros((0, 3), np.float32),
    np.array(2.5),
    np.arange(10)[::2],
    np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(0, 2, 1),
    np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
]


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str} {array.shape}")
def test_arrays_are_what_pickle_reads(array: np.ndarray[Any, Any], protocol: int) -> None:
    content = pickle.dumps({"x": [array, array[:1] if array.ndim else array]}, protocol)
    for found, expected in zip(unpickled(content)["x"], pickle.loads(content)["x"], strict=True):
        assert isinstance(found, np.ndarray)
        # pickle swaps bytes of some protocols
        assert (found.dtype, found.shape, found.strides) == (expected.dtype, expected.shape, expected.strides)
        assert str(found.tolist()).replace("_Array", "array") == str(
            array[: len(found)].tolist() if array.ndim else 2.5
        )
    # it goes on as a plain array
    assert type(pickle.loads(pickle.dumps(found))) is np.ndarray


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_scalars_are_what_pickle_reads(protocol: int) -> None:
    scalars = [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("späte"), np.bytes_(b"ab"), np.float64("nan")]
    scalars += [np.str_(""), np.bytes_(b"")]
    found = unpickled(pickle.dumps(scalars, protocol))
    assert [type(each) for each in found] == [type(each) for each in scalars]
    assert repr(found) == repr(scalars)


class Called:
    """Pickled, it calls a function and gives what is made a state."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], *state: Any) -> None:
        self.call = function, arguments, *state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def array_of(kind: Any, shape: Any, content: Any) -> Called:
    return Called(multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, kind, False, content))


def kind_of(code: str, *state: Any) -> Called:
    return Called(np.dtype, (code, False, True), (3, *state))


PLAIN = ("|", None, None, None, -1, -1, 0)
ADDRESS = struct.pack("<Q", 0x4141414141414141)
RECORD = ("|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
FIELD = ("|", None, ("a",), {"a": (np.dtype("<i8"), 1 << 40)}, 8, 1, 0)
HOSTILE = {
    "bytes for objects": array_of(kind_of("O8", *PLAIN), (1,), ADDRESS),
    "a record of objects": array_of(kind_of("V8", *RECORD), (1,), ADDRESS),
    "a field far away": array_of(kind_of("V8", *FIELD), (1,), ADDRESS),
    "fields of numbers": array_of(kind_of("i8", *FIELD), (1,), ADDRESS),
    "a subarray": array_of(kind_of("V8", "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0), (1,), ADDRESS),
    "a time": array_of(kind_of("M8", *PLAIN), (1,), ADDRESS),
    "too few bytes": array_of(kind_of("f8", *PLAIN), (2,), ADDRESS),
    "too many bytes": array_of(kind_of("f4", *PLAIN), (1,), ADDRESS),
    "too few objects": array_of(kind_of("O8", *PLAIN), (2,), [1]),
    "a negative side": array_of(kind_of("f8", *PLAIN), (-1, -1), ADDRESS),
    "a type of Python": array_of(float, (1,), ADDRESS),
    "no type": array_of("f8", (1,), ADDRESS),
    "texts of no characters": array_of(kind_of("U0", *PLAIN), (10**9,), b""),
    "no values of a large side": array_of(kind_of("f8", *PLAIN), (10**9, 0), b""),
    "a codec": array_of(kind_of("f8", *PLAIN), (1,), Called(codecs.encode, (ADDRESS, "hex"))),
    "another order": Called(numeric._frombuffer, (ADDRESS, kind_of("f8", *PLAIN), (1,), "K", (1,))),
    "bytes of a size": Called(bytes, (10**12,)),
    "memory": Called(np.ndarray, ((10**6,), "f8")),
    "a scalar of bytes": Called(multiarray.scalar, (kind_of("f8", *PLAIN), b"1")),
    "a state of a function": Called(multiarray.scalar, (), {"__defaults__": (1,)}),
    "a text of a million million characters": array_of(kind_of("U999999999", *PLAIN), (1000,), b""),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_are_never_taken_for_addresses(hostile: Called) -> None:
    # in a process of its own, which a broken reader would end
    code = (
        "import sys, pickle\n"
        "from diffalign.io.pickled_arrays import unpickled\n"
        "try:\n    print(unpickled(sys.stdin.buffer.read()).tolist())\n"
        "except (pickle.UnpicklingError, TypeError) as error:\n    print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=_dumped(hostile),
        cwd=ROOT / "workflow_scripts",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"refused:"), done.stdout


@pytest.mark.parametrize("array", [each for each in ARRAYS if each.size and each.dtype != object], ids=repr)
def test_arrays_in_files_of_torch_are_what_torch_reads(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    torch.save({"x": array, "y": [array]}, tmp_path / "x.pt")
    expected = torch.load(tmp_path / "x.pt", weights_only=False)["x"]
    found = read_torch(tmp_path / "x.pt")
    for each in (found["x"], found["y"][0]):
        assert (each.dtype, each.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(each, expected)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_in_files_of_torch_are_never_taken_for_addresses(hostile: Called, tmp_path: Path) -> None:
    torch.save(hostile, tmp_path / "x.pt")
    code = (
        "import sys, pickle\n"
        "from pathlib import Path\n"
        "from diffalign.io.layouts.content import read_torch\n"
        "try:\n    print(repr(read_torch(Path(sys.argv[1]))))\n"
        "except (pickle.UnpicklingError, TypeError, RuntimeError) as error:\n    print('refused:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.pt")],
        cwd=ROOT / "workflow_scripts",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # memory that is asked for without content is empty
    assert done.stdout.startswith((b"refused:", b"_Array([], dtype=uint8)")), done.stdout


def test_an_array_is_filled_once() -> None:
    twice = _dumped(array_of(kind_of("f8", *PLAIN), (1,), ADDRESS))[:-1]
    # the array, a state of it again, BUILD and STOP
    state = pickle.dumps((1, (1,), kind_of("f8", *PLAIN), False, ADDRESS), 2)[2:-1]
    with pytest.raises(pickle.UnpicklingError, match="in a form that no NumPy writes"):
        unpickled(twice + state + b"b.")


def _dumped(value: Any) -> bytes:
    return pickle.dumps(value, 2)
