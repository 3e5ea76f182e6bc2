"""Calls importers on files, each in a fork of one process, with bounded memory, time and size of files.

    python tests/corpus/guard.py cases.json outcomes.json

cases: a list of [importer, file, folder of the call]. A call runs in ``{folder}/work`` and writes to ``work/out``.
outcomes: for each case ``kind`` and ``message`` of what was raised (None where the file was read), ``errors`` (names of
the classes of the error), ``left`` (what lies in ``out``), ``touched`` (programs that were started, and files outside
of the folder that were opened to be written).
"""

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

SECONDS = 40
# beyond what the process has when it is forked
MEMORY = 800 * 2**20
FILE_SIZE = 300 * 2**20
# what readers import when they are called
_IMPORTED = (
    *("archive", "compare", "human_choices", "images", "pandas", "pyarrow.parquet", "scipy.io"),
    *("diffalign.alignment.metrics", "diffalign.config.catalogue", "diffalign.human.similarities"),
    *(
        "diffalign.io.feature_files",
        "diffalign.io.prompt_files",
        "diffalign.io.quality_files",
        "diffalign.io.state_dicts",
    ),
    *("diffalign.io.checkpoints", "diffalign.io.transform_files", "diffalign.io.layouts.feature_tables"),
    *("diffalign.io.layouts.latent_folders", "diffalign.stimuli.captions", "diffalign.stimuli.masks"),
)
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.spawn", "pty.spawn", "socket.connect")


def main(cases_path: str, outcomes_path: str) -> None:
    for library in ("tests", "tests/corpus", "workflow_scripts"):
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / library))
    import importers

    _warm_up()
    outcomes = [
        _guarded(importers.IMPORTERS[name].read, Path(path), Path(folder)) for name, path, folder in _read(cases_path)
    ]
    Path(outcomes_path).write_text(json.dumps(outcomes))


def _read(path: str) -> Any:
    return json.loads(Path(path).read_text())


def _warm_up() -> None:
    """Import what importers import, so that no fork does."""
    for name in _IMPORTED:
        importlib.import_module(name)


def _guarded(read: Any, path: Path, folder: Path) -> dict[str, Any]:
    """The outcome of one call."""
    work = folder / "work"
    (work / "out").mkdir(parents=True)
    told = folder / "outcome.json"
    child = os.fork()
    if child == 0:
        _call(read, path, work, told)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not told.exists():
        number = os.waitstatus_to_exitcode(status)
        name = signal.Signals(-number).name if number < 0 else str(number)
        outcome: dict[str, Any] = {"kind": f"died: {name}", "message": "", "errors": [], "touched": []}
    else:
        outcome = json.loads(told.read_text())
        told.unlink()
    outcome["left"] = sorted(str(file.relative_to(work)) for file in work.rglob("*") if not file.is_dir())
    return outcome


def _call(read: Any, path: Path, work: Path, told: Path) -> None:
    """Read a file with bounds, and write what came of it."""
    from diffalign.human import matlab

    os.chdir(work)
    touched: list[str] = []
    folder = str(work.parent)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTS:
            # files of MATLAB are read by a process of their own
            if event == "subprocess.Popen" and list(arguments[1][1:2]) == [matlab.__file__]:
                return
            touched.append(f"{event} {arguments[:1]}")
        elif (
            event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ):
            where = os.path.realpath(arguments[0])
            # numba keeps what it compiled
            if not where.startswith((folder, "/dev/")) and "__pycache__" not in where:
                touched.append(f"open {where}")

    sys.addaudithook(watch)
    signal.alarm(SECONDS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    outcome: dict[str, Any] = {"kind": None, "message": "", "errors": []}
    try:
        read(path, work / "out")
    except BaseException as error:
        outcome = {
            "kind": f"{type(error).__module__}.{type(error).__qualname__}",
            "message": str(error),
            "errors": [each.__name__ for each in type(error).__mro__],
            "trace": traceback.format_exc()[-3000:],
        }
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    told.write_text(json.dumps({**outcome, "touched": touched}))


if __name__ == "__main__":
    main(*sys.argv[1:])
