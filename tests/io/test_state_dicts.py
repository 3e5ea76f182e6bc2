"""Checkpoints as they are published: nestings, prefixes, what is refused."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.state_dicts import checkpoint_file, read_state_dict

PLAIN = {"0.weight": torch.ones(3, 2), "0.bias": torch.zeros(3)}
OTHER = {key: tensor + 5 for key, tensor in PLAIN.items()}


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    ("content", "nesting"),
    [
        (PLAIN, ""),
        ({"model": PLAIN}, "model"),
        ({"state_dict": PLAIN, "epoch": 3}, "state_dict"),
        ({"model": OTHER, "ema": PLAIN, "opt": {"state": {0: {"step": torch.ones(())}}}}, "ema"),
        ({"G": OTHER, "G_ema": PLAIN}, "G_ema"),
        ({"model": {"state_dict": PLAIN}}, "model.state_dict"),
        ({"ema": {f"module.{key}": tensor for key, tensor in PLAIN.items()}, "args": Namespace(lr=1e-4)}, "ema"),
        ({"ema": None, "model": PLAIN}, "model"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt"])
def test_nested_state_dicts_are_found(content: Any, nesting: str, suffix: str, tmp_path: Path) -> None:
    state = read_state_dict(saved(content, tmp_path / f"x.{suffix}"))
    net = nn.Sequential(nn.Linear(2, 3))
    state.load_into(net)
    assert state.nesting == nesting
    assert all(torch.equal(tensor, PLAIN[key]) for key, tensor in net.state_dict().items())


def test_files_of_old_torch_and_safetensors_are_read(tmp_path: Path) -> None:
    old = saved({"ema": PLAIN}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(PLAIN, tmp_path / "x.safetensors")
    for path in (old, tmp_path / "x.safetensors"):
        assert set(read_state_dict(path).tensors) == set(PLAIN)


class Command:
    """An object whose unpickling runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Child(Namespace):
    """Not argparse.Namespace itself."""


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = saved({"ema": PLAIN, "x": Command(marker)}, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"x\.pt: holds a posix\.system.*may run code"):
        read_state_dict(path)
    assert not marker.exists()


@pytest.mark.parametrize("extra", [Path("/"), Child(a=1), Namespace(where=Path("/"))])
def test_other_types_are_refused_by_name(extra: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds a (pathlib|test_state_dicts)"):
        read_state_dict(saved({"ema": PLAIN, "x": extra}, tmp_path / "x.pt"))


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
@pytest.mark.parametrize("kept", [0, 20, 600])
def test_a_cut_off_file_is_named(name: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("pt"):
        torch.save({"ema": PLAIN}, path)
    else:
        save_file({"w": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"weights": PLAIN, "epoch": 1}, "no state dict, nor nested .*there is weights, epoch"),
        ({"ema": {"shadow": PLAIN}}, "no state dict under 'ema'.*there is shadow"),
        ([1, 2], "there is list"),
        ({"a.w": torch.ones(1), "module.a.w": torch.ones(1)}, "both with and without 'module.'"),
    ],
)
def test_what_holds_no_state_dict_says_what_it_holds(content: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"x\.pt: .*{said}"):
        read_state_dict(saved(content, tmp_path / "x.pt"))


def test_keys_and_shapes_must_fit(tmp_path: Path) -> None:
    extra = {f"loss.{i}": torch.ones(1) for i in range(7)}
    state = read_state_dict(saved({"state_dict": PLAIN | extra}, tmp_path / "x.ckpt"))
    fits = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"x\.ckpt.*7 unexpected \(loss\.0, loss\.1, loss\.2, loss\.3, loss\.4 …"):
        state.load_into(fits)
    state.without(["loss."]).load_into(fits)
    with pytest.raises(CheckpointError, match=r"1 missing \(0\.bias\)"):
        state.without(["loss.", "0.b"]).load_into(fits)
    with pytest.raises(CheckpointError, match=r"2 shapes \(0\.weight is \(3, 2\), not \(4, 2\)"):
        state.without(["loss."]).load_into(nn.Sequential(nn.Linear(2, 4)))


def test_the_widths_of_numbered_tensors_are_counted(tmp_path: Path) -> None:
    content = {f"p.{i}.4.weight": torch.ones(width, 2) for i, width in enumerate([768, 1024])}
    assert read_state_dict(saved(content, tmp_path / "x.pt")).widths("p.{}.4.weight") == [768, 1024]


def test_a_folder_must_hold_one_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found none"):
        checkpoint_file(tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "a.pt").touch()
    assert checkpoint_file(tmp_path) == tmp_path / "a.pt"
    (tmp_path / "b.ckpt").touch()
    with pytest.raises(CheckpointError, match=r"found a\.pt, b\.ckpt"):
        checkpoint_file(tmp_path)
