"""Where checkpoints come from. The hub is a server on the loopback that speaks its protocol to the real client."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import ROOT

from diffalign import provenance
from diffalign.io import checkpoints
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.headers import StoreError
from diffalign.specs import Weights
from weights import weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"weights" * 1000, "README.md": b"not asked for"}


class Hub(BaseHTTPRequestHandler):
    """Two repositories: me/open, and me/gated, whose files are refused until a licence is accepted."""

    requested: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.requested.append(f"{self.command} {self.path}")
        path = self.path.split("?")[0]
        kind, _, rest = path.removeprefix("/").partition("/")
        if kind == "api":
            repository = "/".join(rest.split("/")[1:3])
            if repository not in ("me/open", "me/gated"):
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            if len(rest.split("/")) > 3 and not {"main", COMMIT} & set(rest.split("/")):
                return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
            if "/tree/" in path:
                tree = [{"type": "file", "path": n, "size": len(c), "oid": sha1(c)} for n, c in FILES.items()]
                return self.reply(200, json.dumps(tree).encode(), {}, body)
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings, "tags": []}
            return self.reply(200, json.dumps(info).encode(), {}, body)
        if f"{kind}/{rest}".startswith("me/gated"):
            return self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        content = FILES[path.split(f"/resolve/{COMMIT}/")[1]]
        headers = {"ETag": f'"{sha1(content)}"', "X-Repo-Commit": COMMIT}
        return self.reply(200, content, headers, body)

    def reply(self, code: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.requested.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def download(tmp_path: Path, endpoint: str, hub_id: str, revision: str | None = None, offline: str = "0") -> Any:
    """Run the script's function in a process of its own, since the client reads its settings when it is imported."""
    code = (
        "import sys; sys.path.insert(0, 'workflow_scripts'); from pathlib import Path; import weights;"
        "from diffalign.specs import Weights;"
        f"weights.weights('mine', Weights('hub', {hub_id!r}, {revision!r}, ('config.json', '*.safetensors')),"
        f" Path({str(tmp_path / 'checkpoint')!r}), Path({str(tmp_path / 'weights.json')!r}), Path())"
    )
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": offline, "PATH": ""}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_download_records_its_commit_and_the_sha256_of_every_file(hub: str, tmp_path: Path) -> None:
    done = download(tmp_path, hub, "me/open")
    assert done.returncode == 0, done.stderr
    record = checkpoints.read_record(tmp_path / "weights.json")
    assert (record["source"], record["hub"], record["revision"]) == ("hub", "me/open", COMMIT)
    wanted = {name: content for name, content in FILES.items() if name != "README.md"}
    assert record["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in wanted.items()}
    for name, content in wanted.items():
        assert (tmp_path / "checkpoint" / name).read_bytes() == content
    assert not any("README" in request for request in Hub.requested)


def test_a_pinned_download_is_not_fetched_twice(hub: str, tmp_path: Path) -> None:
    assert download(tmp_path, hub, "me/open", COMMIT).returncode == 0
    Hub.requested.clear()
    assert download(tmp_path, hub, "me/open", COMMIT).returncode == 0
    assert not any(request.startswith("GET /me/open") for request in Hub.requested)


def test_with_the_hub_switched_off_the_cache_is_enough(hub: str, tmp_path: Path) -> None:
    refused = download(tmp_path, hub, "me/open", offline="1")
    assert refused.returncode != 0
    assert (
        "mine: me/open is not in the Hugging Face cache, and the hub is out of reach or switched off" in refused.stderr
    )
    assert download(tmp_path, hub, "me/open").returncode == 0
    before = (tmp_path / "weights.json").read_text()
    Hub.requested.clear()
    assert download(tmp_path, hub, "me/open", offline="1").returncode == 0
    assert (tmp_path / "weights.json").read_text() == before
    assert Hub.requested == []


def test_an_open_revision_is_not_taken_from_the_cache_unasked(hub: str, tmp_path: Path) -> None:
    assert download(tmp_path, hub, "me/open").returncode == 0
    nowhere = "http://127.0.0.1:9"
    refused = download(tmp_path, nowhere, "me/open")
    assert refused.returncode != 0
    assert "mine: me/open could not be downloaded" in refused.stderr
    assert "set HF_HUB_OFFLINE=1 to take what the Hugging Face cache holds" in refused.stderr
    # a pinned commit is what it is, wherever it lies
    assert download(tmp_path, nowhere, "me/open", COMMIT).returncode == 0


@pytest.mark.parametrize(
    ("hub_id", "revision", "message"),
    [
        ("me/gated", None, "mine: me/gated is gated: accept its licence on the page of the repository, log in"),
        ("me/absent", None, "mine: the hub has no repository 'me/absent', or you are not logged in"),
        ("me/open", "f" * 40, f"mine: me/open has no revision '{'f' * 40}'"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    hub: str, hub_id: str, revision: str | None, message: str, tmp_path: Path
) -> None:
    refused = download(tmp_path, hub, hub_id, revision)
    assert refused.returncode != 0
    assert message in refused.stderr
    assert not (tmp_path / "weights.json").exists()


def test_a_record_of_another_format_and_an_empty_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="format 99 is not known here"):
        checkpoints.read_record(tmp_path / "weights.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no files"):
        checkpoints.describe(tmp_path / "weights.json", tmp_path / "empty", {})


def test_files_of_a_checkpoint_are_readable_as_others_and_those_of_links_stay(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (folder / "model.safetensors", tmp_path / "theirs"):
        path.write_bytes(b"x")
        path.chmod(0o600)
    (folder / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "usual").write_bytes(b"x")
    checkpoints.describe(tmp_path / "weights.json", folder, {})
    assert (folder / "model.safetensors").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "theirs").stat().st_mode & 0o777 == 0o600


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model" / "model-1.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing, first: model-2\.safetensors"):
        checkpoints.describe(tmp_path / "weights.json", tmp_path / "model", {})


def test_links_follow_patterns_and_name_what_is_missing(tmp_path: Path) -> None:
    for name in ("vae/config.json", "vae/model.bin", "unet/config.json"):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(name)
    checkpoints.link_files(tmp_path / "source", tmp_path / "links", ["vae/*.json"], "models.mine")
    assert [p.relative_to(tmp_path / "links").as_posix() for p in (tmp_path / "links").rglob("*.json")] == [
        "vae/config.json"
    ]
    checkpoints.link_files(tmp_path / "source", tmp_path / "links", ["unet/*"], "models.mine")
    assert not (tmp_path / "links" / "vae").exists()
    with pytest.raises(FileNotFoundError, match=r"models\.mine: .*source has no file te/\*"):
        checkpoints.link_files(tmp_path / "source", tmp_path / "other", ["te/*"], "models.mine")
    with pytest.raises(FileNotFoundError, match="models.mine: no such folder"):
        checkpoints.link_files(tmp_path / "gone", tmp_path / "other", [], "models.mine")


def test_one_local_file_is_linked_recorded_and_verified(tmp_path: Path) -> None:
    source = tmp_path / "last.pt"
    source.write_bytes(b"weights")
    folder, record = tmp_path / "checkpoint", tmp_path / "weights.json"
    weights("mine", Weights("file", path=str(source)), folder, record, tmp_path)
    weights("mine", Weights("file", path=str(source)), folder, record, tmp_path)
    assert (folder / "last.pt").resolve() == source
    content = checkpoints.verify(record, folder)
    assert content["source"] == "file"
    assert content["sha256"] == {"last.pt": hashlib.sha256(b"weights").hexdigest()}
    source.write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"last\.pt: has changed since"):
        checkpoints.verify(record, folder)
    with pytest.raises(FileNotFoundError, match=r"models\.mine\.weights\.path: no such file: .*none\.pt"):
        weights("mine", Weights("file", path=str(tmp_path / "none.pt")), folder, record, tmp_path)


def test_a_checkpoint_is_hashed_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counting(path: Path) -> str:
        hashed.append(path.name)
        return provenance.file_sha256(path)

    folder, record = tmp_path / "checkpoint", tmp_path / "weights.json"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    checkpoints.describe(record, folder, {"source": "file"})
    monkeypatch.setattr(checkpoints, "file_sha256", counting)
    assert checkpoints.verify(record, folder) == checkpoints.verify(record, folder)
    assert hashed == ["model.safetensors"]
    # the same bytes at another time, and other bytes of the same size
    os.utime(folder / "model.safetensors", (1, 1))
    checkpoints.verify(record, folder)
    assert len(hashed) == 2
    (folder / "model.safetensors").write_bytes(b"weightz")
    with pytest.raises(CheckpointError, match="has changed since its sha256 was recorded"):
        checkpoints.verify(record, folder)
    (tmp_path / f".weights.{platform.node()}.json").write_text("{")
    (folder / "model.safetensors").write_bytes(b"weights")
    checkpoints.verify(record, folder)
    assert len(hashed) == 4
