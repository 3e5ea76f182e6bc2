"""GPUs of several jobs on one machine, by a list of devices that no machine needs to have."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from diffalign import devices
from diffalign.devices import NoFreeDevice, choose_device, lease_folder, take_devices, visible_devices

# takes devices, says which, and holds them until its input ends
HOLDER = """
import sys
from pathlib import Path
from diffalign.devices import take_devices
lease = take_devices(int(sys.argv[1]), sys.argv[2].split(","), Path(sys.argv[3]))
print(",".join(lease.devices), flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(count: int, visible: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process that holds devices, and which."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(count), visible, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip().split(",")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_every_process_has_devices_of_its_own(tmp_path: Path) -> None:
    visible = ("0", "1", "2", "3")
    with holding(1, "0,1,2,3", tmp_path) as (_, first), holding(2, "0,1,2,3", tmp_path) as (_, second):
        mine = take_devices(1, visible, tmp_path)
        assert (first, second, mine.devices) == (["0"], ["1", "2"], ("3",))
        mine.give_back()
    # and what they held is free again when they have ended
    mine = take_devices(4, visible, tmp_path)
    assert mine.devices == visible
    mine.give_back()


def test_many_processes_at_once_share_no_device(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, "1", "0,1,2", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow_scripts")}
    started = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = []
    for process in started:
        assert process.stdout is not None
        said.append(process.stdout.readline().strip())
    errors = [process.communicate()[1] for process in started]
    assert sorted(said) == ["", "0", "1", "2"]
    (refused,) = [error for error in errors if error]
    assert "1 of 3 GPUs asked for, but 0 free" in refused


def test_a_killed_process_leaves_its_devices(tmp_path: Path) -> None:
    with holding(1, "7", tmp_path) as (process, held):
        assert held == ["7"]
        with pytest.raises(NoFreeDevice, match=rf"taken are 7 by process {process.pid}\. Let no more jobs"):
            take_devices(1, ["7"], tmp_path)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        lease = take_devices(1, ["7"], tmp_path)
        assert lease.devices == ("7",)
        lease.give_back()


def test_a_child_of_a_job_neither_keeps_nor_frees_its_devices(tmp_path: Path) -> None:
    lease = take_devices(1, ["0"], tmp_path)
    # a worker that outlives its job has the open file, and not the lock
    worker = os.fork()
    if not worker:
        signal.pause()
    try:
        with holding(1, "0", tmp_path) as (_, held):
            assert held == [""]
        lease.give_back()
        with holding(1, "0", tmp_path) as (_, held):
            assert held == ["0"]
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_too_few_devices_name_the_setting_and_none_is_kept(tmp_path: Path) -> None:
    with holding(1, "1", tmp_path):
        with pytest.raises(NoFreeDevice, match=r"resources: \[gpu=2\] in the profile, or --resources gpu=2"):
            take_devices(2, ["0", "1"], tmp_path)
        lease = take_devices(1, ["0", "1"], tmp_path)
        assert lease.devices == ("0",)
        lease.give_back()
    with pytest.raises(NoFreeDevice, match=r"3 GPUs are asked for, but 2 are visible here \(0, 1\); change gpus of"):
        take_devices(3, ["0", "1"], tmp_path)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("2,0", ("2", "0")),
        (" 1 , GPU-5ebe9f43-ac33420d4628", ("1", "GPU-5ebe9f43-ac33420d4628")),
        ("0,-1,2", ("0",)),
        ("", ()),
        ("NoDevFiles", ()),
    ],
)
def test_what_is_visible_is_what_the_environment_says(
    said: str, seen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_devices() == seen


def test_without_a_word_all_that_torch_counts_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert visible_devices() == ("0", "1", "2")


def test_jobs_of_slurm_share_no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for job in ("17", "18", None):
        if job is None:
            monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        else:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        folders.add(lease_folder())
    assert len(folders) == 3


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that sees four GPUs, as far as torch can be told."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    taken: list[devices.Lease] = []
    monkeypatch.setattr(devices, "_taken", taken)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    yield
    for lease in taken:
        lease.give_back()


@pytest.mark.usefixtures("four")
def test_a_job_sees_only_its_own_device(tmp_path: Path) -> None:
    with holding(1, "4,5", lease_folder()) as (_, held):
        assert held == ["4"]
        assert choose_device("auto") == torch.device("cuda")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
        # all of a job's work is on the same one
        assert choose_device("cuda") == torch.device("cuda")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert lease_folder().is_relative_to(tmp_path)


@pytest.mark.usefixtures("four")
def test_a_job_of_several_devices_sees_as_many() -> None:
    choose_device("auto", gpus=2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"


@pytest.mark.usefixtures("four")
def test_the_cpu_takes_no_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"
    assert not lease_folder().exists()


@pytest.mark.usefixtures("four")
def test_a_single_device_is_shared_by_whoever_is_told_to_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert choose_device("auto") == torch.device("cuda")
    assert not lease_folder().exists()
    with pytest.raises(NoFreeDevice, match=r"2 GPUs are asked for, but 1 are visible here \(4\)"):
        choose_device("auto", gpus=2)


@pytest.mark.usefixtures("four")
def test_a_library_that_used_the_gpus_before_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(RuntimeError, match="torch sees 4 GPUs after CUDA_VISIBLE_DEVICES was set to 4; set"):
        choose_device("auto")
