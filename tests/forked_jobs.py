"""Jobs of Snakemake in forks of a process that has imported their libraries: imports take seconds, and tests run many.

The server imports nothing of this project, of which tests change copies. Snakemake starts `job_client.py` in place of
Python; the client hands its script, folder, environment and streams to the server and exits as the job does.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import selectors
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkProcess as Process
from pathlib import Path
from typing import Any

_CLIENT = Path(__file__).resolve().parent / "job_client.py"
# what most jobs import, and what takes longest
_PRELOADED = (
    *("snakemake.logging", "snakemake.iocontainers", "snakemake.shell", "threadpoolctl", "numba", "pandas", "pyarrow"),
    *("pyarrow.parquet", "pydantic", "jsonschema", "yaml", "PIL.Image", "skimage.filters", "skimage.color"),
    *("scipy.stats", "scipy.sparse", "scipy.linalg", "scipy.spatial.distance", "scipy.optimize", "sklearn.datasets"),
    *("matplotlib.pyplot", "torch", "safetensors.torch", "timm", "diffusers.models", "transformers.models.clip"),
)


class JobServer:
    """A server of forked jobs, which ends with this process if it is not closed before."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "jobs"
        command = [sys.executable, __file__, str(self.address)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the server of jobs did not start; its own message stands above")

    def close(self) -> None:
        """End the server and the jobs that run."""
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()

    @property
    def python(self) -> str:
        """The command that runs a script in a fork of the server, in the place of Python."""
        return f"{sys.executable} -I -S {_CLIENT} {self.address}"


def _serve(address: str) -> None:
    """Serve until standard input closes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    selector.register(listener, selectors.EVENT_READ)
    jobs: dict[socket.socket, Process] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for job in jobs.values():
                    job.kill()
                return
            if key.fileobj is listener:
                client, _ = listener.accept()
                received = _received(client)
                if received is None:
                    client.close()
                    continue
                request, streams = received
                job = multiprocessing.get_context("fork").Process(target=_become, args=(streams,), kwargs=request)
                job.start()
                for stream in streams:
                    os.close(stream)
                jobs[client] = job
                selector.register(client, selectors.EVENT_READ)
                selector.register(job.sentinel, selectors.EVENT_READ, client)
            elif key.data is None:
                # the client was killed, and its job goes with it
                selector.unregister(key.fileobj)
                jobs[key.fileobj].kill()
            else:
                client = key.data
                job = jobs.pop(client)
                job.join()
                selector.unregister(key.fileobj)
                if client in selector.get_map():
                    selector.unregister(client)
                    client.sendall(str(job.exitcode).encode())
                client.close()


def _received(client: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request and the three standard streams of its client; None where it was killed before it had sent all."""
    content, streams, _, _ = socket.recv_fds(client, 65536, 3)
    while not content.endswith(b"\n"):
        more = client.recv(65536)
        if not more:
            for stream in streams:
                os.close(stream)
            return None
        content += more
    return dict(json.loads(content)), list(streams)


def _become(streams: Sequence[int], script: str, folder: str, environment: Mapping[str, str]) -> None:
    """Run a script as its own process would."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = str(Path(script).parent)
    sys.argv = [script]
    threads = int(environment.get("OMP_NUM_THREADS", "1"))
    # libraries read the environment when they are imported
    import torch
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    torch.set_num_threads(threads)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    for name in _PRELOADED:
        importlib.import_module(name)
    # collections of garbage would copy every page into every fork
    gc.freeze()
    _serve(sys.argv[1])
