"""Where the work is done: what compute.device means on this machine, and which GPUs of several a job has for itself."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from diffalign import job_records

if TYPE_CHECKING:
    import torch

# what CUDA and jobs are told which GPUs they may see by
VISIBLE = "CUDA_VISIBLE_DEVICES"


class NoFreeDevice(ValueError):
    """Fewer GPUs are free than a job asks for."""


@dataclass(frozen=True)
class Lease:
    """GPUs that this process has for itself, until it ends or gives them back. devices: as CUDA_VISIBLE_DEVICES names
    them.
    """

    devices: tuple[str, ...]
    files: tuple[IO[str], ...]

    def give_back(self) -> None:
        """Let other processes have them."""
        for file in self.files:
            file.close()


# of this process: all of its work is done on the same GPUs
_taken: list[Lease] = []


def device_name(device: torch.device) -> str:
    """The model of a GPU, such as ``NVIDIA H200``, or ``cpu``: what the last bits of a result depend on."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_gpu(asked: str) -> torch.device | None:
    """The GPU that `choose_device` finds, or None for the CPU; where that is asked for, torch is not imported."""
    if asked == "cpu":
        return None
    device = choose_device(asked)
    return None if device.type == "cpu" else device


def choose_device(asked: str, gpus: int = 1) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu`` or ``cuda``. Raises ValueError for ``cuda`` without a GPU.

    gpus: how many the job asked Snakemake for. Where more GPUs are visible than that, this process takes as many for
    itself (`take_devices`), sees no others from then on, and ``cuda`` is the first of them. Raises NoFreeDevice where
    too few are free or visible. On a GPU, TF32 is switched off: its 10-bit mantissa changes neighbours.
    """
    import torch

    # before CUDA is in use, which reads what is visible only once
    if asked != "cpu":
        _see_only_own(gpus)
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device is cuda, but torch sees no GPU here; set it to auto or cpu to use the CPU")
    device = torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
    job_records.note(device=device_name(device))
    return device


def _see_only_own(gpus: int) -> None:
    """Take GPUs where several are visible."""
    import torch

    if _taken:
        return
    visible = visible_devices()
    # without any GPU, what compute.device says decides; the only one is shared by whoever is told to use it
    if not visible or (len(visible) == 1 and gpus == 1):
        return
    lease = take_devices(gpus, visible, lease_folder())
    os.environ[VISIBLE] = ",".join(lease.devices)
    if torch.cuda.device_count() != len(lease.devices):
        lease.give_back()
        raise RuntimeError(
            f"torch sees {torch.cuda.device_count()} GPUs after {VISIBLE} was set to {os.environ[VISIBLE]}; set "
            f"{VISIBLE} before Snakemake is called"
        )
    _taken.append(lease)


def visible_devices() -> tuple[str, ...]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them, or their numbers where it is not set.

    As CUDA reads it, the list ends before the first word that can name no device, such as -1.
    """
    said = os.environ.get(VISIBLE)
    if said is None:
        import torch

        return tuple(str(number) for number in range(torch.cuda.device_count()))
    words = [word.strip() for word in said.split(",")]
    named = [bool(re.fullmatch(r"[0-9]+|(GPU|MIG)-[\w/-]+", word)) for word in words]
    return tuple(words[: named.index(False)] if False in named else words)


def lease_folder() -> Path:
    """Where locks lie of GPUs that jobs of this user take: one folder a machine, and one a job of SLURM, which gives
    every job GPUs of its own and may call them all 0.
    """
    job = os.environ.get("SLURM_JOB_ID")
    folder = Path(tempfile.gettempdir()) / f"diffalign-gpus-{os.getuid()}"
    return folder / (f"slurm-{job}" if job else "machine")


def take_devices(count: int, visible: Sequence[str], folder: Path) -> Lease:
    """Take `count` of the visible GPUs that no other process has taken, the first that are free.

    Locks of the operating system are held on files in the folder, one a GPU: they belong to this process alone, not to
    its children, and end with it, however it ends. All GPUs are taken at once or none is. Raises NoFreeDevice, and does
    not wait: Snakemake starts no more jobs than `resources: [gpu=N]` allows.
    """
    if count > len(visible):
        raise NoFreeDevice(
            f"{count} GPUs are asked for, but {len(visible)} are visible here ({', '.join(visible)}); change gpus of "
            f"the model's entry, or {VISIBLE}"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    taken: dict[str, IO[str]] = {}
    holders: dict[str, str] = {}
    with (folder / "taking").open("a", encoding="utf-8") as gate:
        # one process at a time, so that none takes a part of what another needs
        fcntl.lockf(gate, fcntl.LOCK_EX)
        for device in visible:
            if len(taken) == count:
                break
            file = (folder / re.sub(r"[^\w-]", "_", device)).open("a+", encoding="utf-8")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holders[device] = file.read().strip()
                file.close()
                continue
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            taken[device] = file
    lease = Lease(tuple(taken), tuple(taken.values()))
    if len(taken) < count:
        lease.give_back()
        held = ", ".join(f"{device} by process {process}" for device, process in holders.items())
        limit = f"gpu={len(visible)}"
        raise NoFreeDevice(
            f"{count} of {len(visible)} GPUs asked for, but {len(taken)} free; taken are {held}. Let no more jobs run "
            f"at once than there are GPUs: resources: [{limit}] in the profile, or --resources {limit}"
        )
    return lease
