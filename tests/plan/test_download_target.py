"""`make download` runs the rules that download, and nothing that follows them needs a network."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Workflow
from test_graph import snakemake

SCORE = "results/cknna/theirs/clean/left_vs_right.npy"


def downloading_rules() -> list[str]:
    """The rules that `make download` names."""
    said = subprocess.run(["make", "--dry-run", "download"], cwd=ROOT, capture_output=True, text=True, check=True)
    (rules,) = re.findall(r"--until (.+)$", said.stdout, re.MULTILINE)
    return list(rules.split())


def test_only_these_rules_import_what_downloads() -> None:
    fetching = re.compile(r"\b(hub_snapshot|kept_download|import .*\bdownload\b)")
    scripts = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py") if fetching.search(path.read_text())}
    # a command, not a rule
    assert scripts - {"download_data"} == set(downloading_rules())


@pytest.mark.workflow
def test_the_downloads_of_the_study_are_planned_without_what_follows(tmp_path: Path) -> None:
    rules = downloading_rules()
    study = ("--dry-run", "--cores", "1", "--configfile", "config.yaml")
    whole, part = (snakemake(tmp_path, *study, *options, "--", "all").jobs() for options in ((), ("--until", *rules)))
    assert part == {rule: count for rule, count in whole.items() if rule in rules}
    assert part["weights"] > 10


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server, and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_after_the_downloads_a_study_runs_without_a_network(fresh: Workflow, served: tuple[str, Path]) -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode != 0:
        # CI runs as root, where it is allowed
        assert not os.environ.get("CI")
        pytest.skip("a namespace without a network may not be made here")
    address, folder = served
    random = np.random.default_rng(0)
    for name in ("left", "right"):
        np.save(folder / f"{name}.npy", random.standard_normal((40, 8)).astype(np.float32))
    entry = {"family": "precomputed", "layers": {"b0": "0"}, "default_layer": "b0"}
    features = {"layout": "array", "names": "rows"}
    study = {
        "datasets": {"theirs": {"kind": "precomputed"}},
        "models": {
            name: {**entry, "features": {**features, "url": f"{address}/{name}.npy"}} for name in ("left", "right")
        },
    }

    def without_network(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--net", *fresh.command(*arguments, overlay=study)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=fresh.tree)

    refused = without_network(SCORE)
    assert refused.returncode != 0
    assert "cannot be downloaded" in refused.stdout + refused.stderr
    downloaded = fresh.run(SCORE, options=["--until", *downloading_rules()], overlay=study)
    assert downloaded.code == 0, downloaded.output
    assert downloaded.jobs() == {"fetch_features": 2}
    made = without_network(SCORE)
    assert made.returncode == 0, made.stderr
    assert -1 <= float(np.load(fresh.directory / SCORE)) <= 1
