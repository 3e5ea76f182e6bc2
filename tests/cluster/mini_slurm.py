"""A SLURM cluster of this machine alone, with a GPU that is an empty file: munged, slurmctld and slurmd as this user.

All files lie in one folder. python tests/cluster/mini_slurm.py FOLDER COMMAND… runs a command on the cluster.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
# daemons lie where a user's PATH may not look
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# more than the machine has: jobs ask for what real models need
CPUS = 16
MEMORY_MB = 128_000
STARTS_WITHIN = 60.0

CONFIGURATION = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a job whose node died begins anew after cred_expire seconds
AuthInfo=socket={folder}/munge.socket,cred_expire=30
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/none
ReturnToService=2
# finished jobs stay in view
MinJobAge=3600
KillWait=2
DefMemPerCPU=500
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
# the plugin strips SLURM_CONF from the environment of the steps of jobs
SRUN = """\
#!/bin/sh
SLURM_CONF='{conf}' exec '{srun}' "$@"
"""


def missing() -> list[str]:
    """Programs that are not installed here: of Debian's packages slurm-wlm and munge."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass(frozen=True)
class Job:
    """What `scontrol show job` says of a job.

    gpus: those of the job, by --gpus, ``gres:gpu:1``, or empty. gpus_of_a_node: those by --gres. memory: MB. restarts:
    how often SLURM began it anew.
    """

    number: int
    comment: str
    state: str
    partition: str
    gpus: str
    gpus_of_a_node: str
    cpus: int
    memory: int
    log: Path
    restarts: int

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")


@dataclass(frozen=True)
class Cluster:
    """A running cluster. environment: of what is called on it. daemons: of it, in the order of their start."""

    folder: Path
    environment: Mapping[str, str]
    daemons: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def call(self, *command: str) -> str:
        """What a command prints. Raises CalledProcessError."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self) -> list[Job]:
        """All jobs so far, in the order in which they were submitted."""
        told = self.call("scontrol", "show", "job", "--oneliner")
        return sorted(
            (_job(line) for line in told.splitlines() if line.startswith("JobId=")), key=lambda job: job.number
        )

    def processes(self, job: int | None = None) -> dict[int, str]:
        """Process -> its command, of a job or of the whole cluster."""
        marks = {f"SLURM_CONF={self.folder / 'slurm.conf'}"} | (set() if job is None else {f"SLURM_JOB_ID={job}"})
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
            except OSError:
                # it has ended, or belongs to another user
                continue
            # a process that has ended but was not waited for has no command
            if marks <= set(environment) and command:
                found[int(entry.name)] = command
        return found


def _job(line: str) -> Job:
    facts = {key: value.strip() for key, value in re.findall(r"([\w:/]+)=(.*?)(?= [\w:/]+=|$)", line)}
    number, unit = re.fullmatch(r"([\d.]+)([MG])", facts["MinMemoryNode"]).groups()
    return Job(
        number=int(facts["JobId"]),
        comment=facts.get("Comment", ""),
        state=facts["JobState"],
        partition=facts["Partition"],
        gpus=facts.get("TresPerJob", ""),
        gpus_of_a_node=facts.get("TresPerNode", ""),
        cpus=int(facts["NumCPUs"].split("-")[0]),
        memory=round(float(number) * {"M": 1, "G": 1024}[unit]),
        log=Path(facts["StdOut"]),
        restarts=int(facts["Restarts"]),
    )


def wait_for(what: str, condition: Callable[[], T], seconds: float) -> T:
    """The first true value of a condition. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)
    return value


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster whose node is idle. However the block is left, no process of it stays.

    Raises TimeoutError, with the logs of the daemons, where the node does not become idle.
    """
    cluster = _configured(folder.resolve())
    try:
        for name in ("munged", "slurmctld", "slurmd"):
            _start(cluster, name)
            if name == "munged":
                wait_for("the socket of munge", (folder / "munge.socket").exists, STARTS_WITHIN)
        try:
            wait_for("an idle node", lambda: _idle(cluster), STARTS_WITHIN)
        except TimeoutError as error:
            logs = "\n".join(f"{path}:\n{path.read_text()}" for path in sorted(cluster.folder.glob("*.log")))
            raise TimeoutError(f"{error}\n{logs}") from None
        yield cluster
    finally:
        _stop(cluster)


def _configured(folder: Path) -> Cluster:
    # munge refuses a folder that others may write to, and a socket has a short path
    folder.mkdir(parents=True, mode=0o755)
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    host = _host()
    controller, node = _free_ports(2)
    conf.write_text(
        CONFIGURATION.format(
            host=host,
            controller=controller,
            node=node,
            user=getpass.getuser(),
            folder=folder,
            cpus=CPUS,
            memory=MEMORY_MB,
        )
    )
    # without a file of the device, the node drains
    (folder / "gpu0").touch()
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu0\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    shim = folder / "bin" / "srun"
    shim.write_text(SRUN.format(conf=conf, srun=shutil.which("srun", path=PATH)))
    shim.chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    environment = plain | {"SLURM_CONF": str(conf), "PATH": f"{folder / 'bin'}{os.pathsep}{PATH}"}
    return Cluster(folder, environment)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def lose_power(cluster: Cluster) -> None:
    """Kill all processes of the node, and tell SLURM, which else notices after SlurmdTimeout (300 s)."""
    daemons = [number for number, command in cluster.processes().items() if re.search(r"\bslurm(d|stepd)\b", command)]
    for process in [each for number in daemons for each in _with_children(number)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster.call("scontrol", "update", f"NodeName={_host()}", "State=DOWN", "Reason=power")


def return_to_service(cluster: Cluster) -> None:
    """Start the node again. Raises TimeoutError where it does not come back."""
    _start(cluster, "slurmd")
    wait_for("the node", lambda: _states(cluster) <= {"idle", "mixed", "allocated"}, STARTS_WITHIN)


def _with_children(number: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(number)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _start(cluster: Cluster, name: str) -> None:
    program = shutil.which(name, path=PATH)
    assert program is not None, f"{name} is not installed"
    folder = cluster.folder
    paths = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = {
        "munged": ["--foreground", "--force", *(f"--{option}={folder}/munge.{end}" for option, end in paths.items())],
        "slurmctld": ["-D", "-c"],
        "slurmd": ["-D", "-c"],
    }[name]
    # a session of its own, so that an interrupt from the keyboard leaves it to be stopped in order
    with (folder / f"{name}.out").open("wb") as out:
        daemon = subprocess.Popen(
            [program, *options], env=cluster.environment, stdout=out, stderr=out, start_new_session=True
        )
    cluster.daemons.append(daemon)


def _host() -> str:
    return socket.gethostname().split(".")[0]


def _idle(cluster: Cluster) -> bool:
    return _states(cluster) == {"idle"}


def _states(cluster: Cluster) -> set[str]:
    """States of nodes; of a controller that does not answer, {'silent'}."""
    told = subprocess.run(
        ["sinfo", "--noheader", "--format=%T"], env=cluster.environment, capture_output=True, text=True, check=False
    )
    return set(told.stdout.split()) if told.returncode == 0 else {"silent"}


def _stop(cluster: Cluster) -> None:
    """End all jobs, then the daemons, then what is left."""
    if len(cluster.daemons) >= 3:
        subprocess.run(
            ["scancel", "--signal=KILL", "--full", "--user", getpass.getuser()],
            env=cluster.environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
    for daemon in reversed(cluster.daemons):
        daemon.terminate()
    for daemon in cluster.daemons:
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def gone() -> bool:
        left = set(cluster.processes()) - {os.getpid()}
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not left

    wait_for("the end of the cluster's processes", gone, 30)


if __name__ == "__main__":
    # ended like one that is interrupted from the keyboard: in order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # what a shell starts in the background ignores the keyboard
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with running(Path(sys.argv[1])) as mini:
        code = subprocess.run(sys.argv[2:], env=mini.environment, check=False).returncode
    sys.exit(code)
