"""make data: what may be downloaded is, with its sha256; what may not is named with where to ask."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, read_yaml

from diffalign.config.mistakes import ConfigError
from download_data import human_files, main

BODY = b"concepts"
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def address() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/concepts.tsv"
    server.shutdown()
    server.server_close()


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, **concepts: Any) -> int:
    """Of a study with one file that has an address, and choices that have none."""
    triplets = {"train": {"path": "train_90.npy", "first": 0, "odd": "last", "ask": "the choices of THINGS"}}
    entry = {"path": "data/concepts.tsv", "sha256": DIGEST, **concepts}
    config = {"datasets": {"things": {"kind": "things", "concepts": entry, "triplets": triplets}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(folder)
    return main([])


def test_what_may_be_downloaded_is_and_the_rest_is_asked_for(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, url=address) == 0
    assert (tmp_path / "data/concepts.tsv").read_bytes() == BODY
    asked = "datasets.things.triplets.train: train_90.npy is to be asked for: the choices of THINGS"
    assert capsys.readouterr().out.splitlines() == [
        f"datasets.things.concepts: data/concepts.tsv downloaded from {address}",
        asked,
    ]
    assert run(tmp_path, monkeypatch, url=address) == 0
    assert capsys.readouterr().out.splitlines() == ["datasets.things.concepts: data/concepts.tsv is there", asked]


def test_another_file_is_refused_and_none_is_written_over(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    mine = tmp_path / "data/concepts.tsv"
    mine.write_bytes(b"mine")
    assert run(tmp_path, monkeypatch, url=address) == 1
    assert mine.read_bytes() == b"mine"
    assert f"expected {DIGEST}" in capsys.readouterr().err
    mine.unlink()
    assert run(tmp_path, monkeypatch, url=address, sha256="0" * 64) == 1
    assert f"has the sha256 {DIGEST}; expected {'0' * 64} (datasets.things.concepts.sha256)" in capsys.readouterr().err
    assert list(mine.parent.iterdir()) == []
    outside = tmp_path.parent / "outside.tsv"
    assert run(tmp_path, monkeypatch, url=address, path=str(outside)) == 1
    assert "lies outside of the working directory" in capsys.readouterr().err
    assert not outside.exists()


def test_every_address_of_the_shipped_configuration_has_a_sha256_and_the_rest_says_where_to_ask() -> None:
    files = dict(human_files(read_yaml(ROOT / "config.yaml")))
    assert sum(entry.url is not None for entry in files.values()) == 3
    for place, entry in files.items():
        assert entry.sha256 if entry.url else entry.ask, place


def test_an_address_without_a_sha256_is_not_downloaded(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, monkeypatch, url=address, sha256=None) == 1
    assert "is not downloaded: no sha256 is given to compare it with" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"concepts\.url"):
        run(tmp_path, monkeypatch, url="ftp://host/x")
