"""Hostile files through the readers that they could reach: nothing runs, nothing is written, one message names each."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from case import Case
from damaged_images import damaged_images
from hostile_objects import harms, objects, raw_pickles
from importers import IMPORTERS, place
from odd_names import odd_names, paths
from swollen import bombs, nested, texts

GUARD = Path(__file__).with_name("guard.py")
# what must not reach a user without a name of the file, whatever it says
BARE = {"MemoryError", "RecursionError", "IndexError", "KeyError", "AttributeError", "TypeError", "AssertionError"}
ADVICE = ("weights_only", "allow_pickle", "safe_globals", "max_header_size", "trust_remote_code")


def guarded(calls: list[tuple[str, Path, Path]], folder: Path) -> list[dict[str, Any]]:
    """What comes of reading each file, in a process with bounded memory."""
    cases, outcomes = folder / "cases.json", folder / "outcomes.json"
    cases.write_text(json.dumps([[importer, str(path), str(at)] for importer, path, at in calls]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(GUARD), str(cases), str(outcomes)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(outcomes.read_text())
    return found


def snapshot(folder: Path) -> dict[str, str]:
    """Every file of a folder with a digest of it, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def complaints(case: Case, path: Path, outcome: dict[str, Any], folder: Path) -> Iterator[str]:
    """What is wrong with the answer to a hostile file."""
    kind, message = outcome["kind"], outcome["message"]
    if (folder / "canary").exists():
        yield "it was executed"
    if outcome["touched"]:
        yield f"it touched {outcome['touched'][:3]}"
    if kind is None:
        yield "it was read"
        return
    if outcome["left"]:
        yield f"it left {outcome['left'][:5]}"
    if kind.startswith("died"):
        yield f"it {kind}"
        return
    # of a file that lies in its folder, the folder may be named
    if path.name not in message and str(path.parent) not in message:
        yield f"{kind} does not name the file: {message[:300]!r}"
    if BARE & set(outcome["errors"]) or (
        "Error" in kind and not {"ValueError", "OSError", "RuntimeError"} & set(outcome["errors"])
    ):
        yield f"{kind}: {message[:300]!r}"
    if len(message) > 1500 or "\n" in message or any(word in message for word in ADVICE):
        yield f"{kind} says in more than a line, or with advice: {message[:600]!r}"


def check(cases: list[Case], tmp_path: Path) -> None:
    assert len({case.id for case in cases}) == len(cases)
    calls, made = [], []
    for number, case in enumerate(cases):
        folder = tmp_path / f"case{number}"
        (folder / "sentinel").mkdir(parents=True)
        (folder / "sentinel" / "secret").write_text("secret")
        path = case.write(folder)
        calls.append((case.importer, path, folder))
        made.append((case, path, folder, snapshot(folder / "sentinel")))
    outcomes = guarded(calls, tmp_path)
    found, said = [], []
    for (case, path, folder, before), outcome in zip(made, outcomes, strict=True):
        wrong = list(complaints(case, path, outcome, folder))
        if snapshot(folder / "sentinel") != before:
            wrong.append("it changed a file elsewhere")
        extra = {entry.name for entry in folder.iterdir()} - {"given", "work", "sentinel"}
        if extra:
            wrong.append(f"it wrote {extra}")
        found += [f"{case.id}: {'; '.join(wrong)}"] if wrong else []
        said.append(f"{case.id}\n    {outcome['kind']}: {outcome['message']}\n")
    (tmp_path / "messages.txt").write_text("".join(said))
    assert not found, f"{len(found)} of {len(cases)}:\n" + "\n".join(found)


def test_every_importer_reads_its_valid_files(tmp_path: Path) -> None:
    calls = []
    for importer, kinds in IMPORTERS.items():
        for suffix, write in kinds.valid.items():
            folder = tmp_path / f"{importer}{suffix}"
            path = place(folder, importer, suffix)
            write(path)
            calls.append((importer, path, folder))
    outcomes = guarded(calls, tmp_path)
    refused = [
        f"{importer} {path.name}: {outcome['kind']}: {outcome['message']} {outcome['touched']}"
        for (importer, path, _), outcome in zip(calls, outcomes, strict=True)
        if outcome["kind"] is not None or outcome["touched"]
    ]
    assert not refused, "\n".join(refused)


def test_the_objects_do_run_where_nothing_refuses_them(tmp_path: Path) -> None:
    """Else the corpus would prove nothing."""
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    canaries = [tmp_path / f"canary{number}" for number in range(3)]
    ways = [raw_pickles(canaries[0])["STACK_GLOBAL"], raw_pickles(canaries[1])["INST"]]
    for number, content in enumerate([*ways, pickle.dumps(harms(canaries[2])["in a scalar"])]):
        (tmp_path / "object.pkl").write_bytes(content)
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "object.pkl")], capture_output=True, check=False)
        assert canaries[number].exists()


@pytest.mark.parametrize("group", [objects, paths, odd_names, bombs, damaged_images, texts, nested])
def test_hostile_files_are_refused(group: Callable[[], Iterator[Case]], tmp_path: Path) -> None:
    check(list(group()), tmp_path)
