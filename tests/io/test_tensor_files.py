import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

from diffalign.io import feature_files
from diffalign.io.tensor_files import read_tensors

VALUES = torch.arange(24, dtype=torch.float32).reshape(8, 3)


def rewritten(path: Path, member: str, old: bytes, new: bytes) -> None:
    """Replace bytes of one member of an archive; checksums fit again."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith(member))
    assert old in parts[name]
    parts[name] = parts[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "tensor",
    [VALUES, VALUES.T, VALUES[2:5], VALUES[:, 1:], VALUES[0, 0], VALUES[:0], torch.zeros(2, 3).requires_grad_()],
    ids=["whole", "transposed", "rows", "columns", "number", "empty", "grad"],
)
def test_tensors_are_what_torch_reads(tensor: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": tensor, "b": [tensor, "text", 1.5, None], "c": (True, {"d": -7})}, path)
    found = read_tensors(path)
    for read in (found["a"], found["b"][0]):
        assert read.dtype == np.float32
        assert np.array_equal(read, tensor.detach().numpy())
    assert (found["b"][1:], found["c"]) == (["text", 1.5, None], (True, {"d": -7}))


def test_a_tensor_of_many_pieces_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffalign.io.tensor_files._CHUNK", 7)
    torch.save(VALUES, tmp_path / "x.pt")
    assert np.array_equal(read_tensors(tmp_path / "x.pt"), VALUES.numpy())


@pytest.mark.parametrize("other", [VALUES.half(), VALUES.int(), torch.nn.Linear(1, 1), Path("x")])
def test_other_types_are_refused_by_name(other: object, tmp_path: Path) -> None:
    torch.save({"a": other}, tmp_path / "x.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"it holds \S+; only float32 tensors"):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the shape (8, 3), the strides (3, 1) and the length 24
        (b"K\x08K\x03", b"K\x09K\x03"),
        (b"K\x03K\x01", b"K\x04K\x01"),
        (b"K\x08K\x03", b"J\xff\xff\xff\xffK\x03"),
        (b"K\x18", b"K\x17"),
        (b"K\x18", b"K\x19"),
    ],
)
def test_a_tensor_stays_within_its_storage(old: bytes, new: bytes, tmp_path: Path) -> None:
    torch.save(VALUES, tmp_path / "x.pt")
    rewritten(tmp_path / "x.pt", "data.pkl", old, new)
    with pytest.raises(pickle.UnpicklingError, match=r"reaches beyond its|has not the"):
        read_tensors(tmp_path / "x.pt")


def test_a_tensor_is_no_storage_of_another(tmp_path: Path) -> None:
    count = 1000

    def name(module: str, word: str) -> bytes:
        return f"c{module}\n{word}\n".encode()

    def rebuilt(stored: bytes, offset: int, step: int) -> bytes:
        numbers = f"I{offset}\n(I{count}\nt(I{step}\ntt".encode()
        return name("torch._utils", "_rebuild_tensor_v2") + b"(" + stored + numbers + b"R"

    stored = b"(Vstorage\n" + name("torch", "FloatStorage") + f"V0\nVcpu\nI{count}\ntQ".encode()
    # the last number, repeated, has a length that reaches beyond the storage
    repeated = rebuilt(stored, count - 1, 0)
    for tensor, refusal in ((repeated, ""), (rebuilt(repeated, 0, 1), "a tensor of ndarray, which is no storage")):
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
            archive.writestr("x/data.pkl", b"\x80\x02" + tensor + b".")
            archive.writestr("x/data/0", np.arange(count, dtype="<f4").tobytes())
        if refusal:
            with pytest.raises(pickle.UnpicklingError, match=refusal):
                read_tensors(tmp_path / "x.pt")
        else:
            np.testing.assert_array_equal(read_tensors(tmp_path / "x.pt"), np.full(count, count - 1))


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(VALUES, path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(VALUES.numpy().tobytes(), VALUES.flip(0).numpy().tobytes()))
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_tensors(path)
    path.write_bytes(whole[:-40])
    with pytest.raises(zipfile.BadZipFile):
        read_tensors(path)


def test_features_are_read_without_torch(tmp_path: Path) -> None:
    feature_files.write_features(tmp_path / "x.pt", feature_files.Features(VALUES.numpy(), tuple("abcdefgh"), {}))
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'workflow_scripts')!r})\n"
        "from pathlib import Path\nfrom diffalign.io import feature_files\n"
        f"print(feature_files.read_features(Path({str(tmp_path / 'x.pt')!r})).values.sum(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["276.0", "False"]
