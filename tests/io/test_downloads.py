"""Checkpoints of an address: the sha256 of the first download is recorded, and holds later ones."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from diffalign.io import checkpoints
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.downloads import DownloadError, download
from diffalign.specs import Weights
from weights import weights

PAGE = b"<html>gone</html>"


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, Any]]]:
    """The address of a server, and what it answers: ``body``, ``kind``, ``length``; it counts ``asked``."""
    answer: dict[str, Any] = {"body": b"weights", "kind": "application/binary", "length": None, "asked": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer["asked"] += 1
            self.send_response(200)
            self.send_header("Content-Type", answer["kind"])
            self.send_header("Content-Length", str(answer["length"] or len(answer["body"])))
            self.end_headers()
            self.wfile.write(answer["body"])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/scl/last.pt?key=1&dl=0", answer
    server.shutdown()
    server.server_close()


def linked(tmp_path: Path, url: str, sha256: str | None = None) -> dict[str, Any]:
    folder, record = tmp_path / "checkpoint", tmp_path / "weights.json"
    weights("repa", Weights("url", url=url, sha256=sha256), folder, record, tmp_path / "downloads")
    return checkpoints.verify(record, folder)


def test_the_first_download_is_recorded_and_holds_later_ones(tmp_path: Path, served: tuple[str, Any]) -> None:
    url, answer = served
    digest = hashlib.sha256(b"weights").hexdigest()
    content = linked(tmp_path, url)
    assert (content["source"], content["url"], content["sha256"]) == ("url", url, {"last.pt": digest})
    [record] = (tmp_path / "downloads").rglob("last.pt.json")
    assert json.loads(record.read_text()) == {"format": 1, "url": url, "sha256": digest, "bytes": 7}
    # what lies there is taken, without a network
    linked(tmp_path, url)
    assert answer["asked"] == 1
    # a file that is gone, or damaged, comes anew; another one is refused, and the record says what is expected
    record.with_suffix("").write_bytes(b"weig")
    linked(tmp_path, url)
    assert answer["asked"] == 2
    record.with_suffix("").unlink()
    answer["body"] = b"others!"
    with pytest.raises(CheckpointError, match=rf"expected {digest} \(of the first download, in .*last\.pt\.json\)"):
        linked(tmp_path, url)
    assert [path.name for path in record.parent.iterdir()] == [record.name]
    # unless the configuration says that it is meant
    other = hashlib.sha256(b"others!").hexdigest()
    assert linked(tmp_path, url, other)["sha256"] == {"last.pt": other}
    assert json.loads(record.read_text())["sha256"] == other


def test_a_download_that_is_not_the_expected_one_is_refused(tmp_path: Path, served: tuple[str, Any]) -> None:
    url, answer = served
    said = r"; expected 0{64} \(models\.repa\.weights\.sha256\); with a local copy, set models\.repa\.weights to {from"
    with pytest.raises(CheckpointError, match=rf"{re.escape(url)}: has the sha256 [0-9a-f]+{said}"):
        linked(tmp_path, url, "0" * 64)
    answer |= {"body": PAGE, "kind": "text/html; charset=utf-8"}
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \(the answer is a page, not a file\)"):
        linked(tmp_path, url)
    answer |= {"body": b"weig", "kind": "application/binary", "length": 7}
    with pytest.raises(CheckpointError, match=r"cannot be downloaded \((cut off after 4 of 7 bytes|Incomplete.*)\)"):
        linked(tmp_path, url)
    with pytest.raises(DownloadError, match=r"file:///x: is no address"):
        download("file:///x", tmp_path / "x", None, "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
