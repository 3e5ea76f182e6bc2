"""Archives of images: what is unpacked, and what is refused before anything is written."""

import hashlib
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from test_study import load, mistakes

from archive import archive
from diffalign.io.archives import ArchiveError, unpack
from diffalign.models import all_families
from diffalign.plan import Plan

FILES = {"images/clean/a.png": b"one", "./images/clean/b.png": b"two", "images/records.json": b"{}"}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [zipped, tarred, lambda path, files: tarred(path, files, "w")])
def test_files_are_those_of_the_archive(make: Callable[[Path, dict[str, bytes]], Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert unpack(make(tmp_path / "x", FILES), folder) == 3
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("./"): content for name, content in FILES.items()}


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../out.png", "images/../../out.png", "/out.png", "C:\\out.png", "images\\..\\..\\out.png"]
)
def test_paths_that_leave_the_folder_are_refused(
    make: Callable[[Path, dict[str, bytes]], Path], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = make(tmp_path / "x", {**FILES, name: b"harm"})
    with pytest.raises(ArchiveError, match="x: 1 entries have paths that leave its folder, first: ") as caught:
        unpack(path, folder)
    assert name in str(caught.value)
    # nothing was written, not even what would have been harmless
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "out.png").exists()


def test_links_repetitions_and_other_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "x.tar", "w") as file:
            entry = tarfile.TarInfo("images/link.png")
            entry.type, entry.linkname = kind, "../../secret"
            file.addfile(entry)
        with pytest.raises(ArchiveError, match="1 entries are no plain files but links or devices, first: images/link"):
            unpack(tmp_path / "x.tar", folder)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "../secret")
    with pytest.raises(ArchiveError, match="links or devices, first: link.png"):
        unpack(tmp_path / "x.zip", folder)
    with pytest.raises(ArchiveError, match="1 entries stand twice, first: images/a.png"):
        unpack(tarred(tmp_path / "y.tar", {"images/a.png": b"", "images//a.png": b""}), folder)
    many = {f"images/{number}.png": b"" for number in range(20_000)}
    with pytest.raises(ArchiveError, match="1 entries stand twice, first: images/7.png"):
        unpack(tarred(tmp_path / "many.tar", {**many, "images//7.png": b""}), folder)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(ArchiveError, match="text: is no .zip and no .tar"):
        unpack(tmp_path / "text", folder)
    whole = tarred(tmp_path / "z.tar.gz", {"a.png": bytes(10**5)}).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="cut.tar.gz: cannot be unpacked|cut.tar.gz: is no"):
        unpack(tmp_path / "cut.tar.gz", folder)
    with pytest.raises(FileNotFoundError, match="gone.zip: no such archive"):
        unpack(tmp_path / "gone.zip", folder)


def test_a_local_archive_is_unpacked_and_recorded(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", FILES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    folder, record = tmp_path / "archive", tmp_path / "archive.json"
    source = {"url": None, "path": str(path), "sha256": digest}
    archive("mine", source, folder, record)
    told = json.loads(record.read_text())
    assert (told["path"], told["sha256"], told["files"]) == (str(path), digest, 3)
    assert (folder / "images/clean/a.png").read_bytes() == b"one"
    with pytest.raises(ArchiveError, match=f"x.zip: has the sha256 {digest}; expected {'0' * 64}"):
        archive("mine", {**source, "sha256": "0" * 64}, folder, record)
    with pytest.raises(FileNotFoundError, match=r"gone: no such archive \(datasets.mine.archive.path\)"):
        archive("mine", {**source, "path": str(tmp_path / "gone")}, folder, record)


def test_images_of_an_archive_lie_below_it() -> None:
    entry = {"kind": "folder", "archive": {"path": "x.zip"}, "path": "images/clean", "size": 16}
    plan = Plan(load({"datasets": {"packed": entry}}), all_families())
    wildcards = type("Wildcards", (), {"dataset": "packed"})()
    assert plan.stimuli.dataset(wildcards)["path"] == "resources/datasets/packed/archive/images/clean"
    assert plan.stimuli.own_files(wildcards) is None
    assert list(plan.stimuli.downloaded_table(wildcards)) == ["download", "record"]


def test_archives_that_mean_nothing_are_named() -> None:
    both = {"path": "x.zip", "url": "https://x.org/x.zip"}
    told = mistakes(
        {
            "datasets": {
                "one": {"kind": "folder", "archive": both, "path": "../images", "size": 16},
                "two": {"kind": "photographs", "archive": {"path": "x.zip"}, "size": 16},
            }
        }
    )
    assert "datasets.one.archive: needs one of 'path' and 'url'" in told
    assert "datasets.one.path: is a folder in the archive, so '../images' must not leave it" in told
    assert "datasets.two.archive: means nothing for kind 'photographs'" in told
