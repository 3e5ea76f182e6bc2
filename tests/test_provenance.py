from pathlib import Path

from diffalign import provenance


def test_file_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert provenance.file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_digest_of_files_notices_new_changed_and_absent_ones(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pt", tmp_path / "folder"]
    seen = [provenance.files_digest(paths)]
    assert provenance.files_digest(reversed(paths)) == seen[0]
    (tmp_path / "a.pt").write_bytes(b"a")
    seen.append(provenance.files_digest(paths))
    (tmp_path / "a.pt").write_bytes(b"aa")
    seen.append(provenance.files_digest(paths))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(b"b")
    seen.append(provenance.files_digest(paths))
    assert len(set(seen)) == 4


def test_a_folder_digest_notices_every_change_and_reads_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    assert provenance.folder_digest(folder) is None
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.png").write_bytes(b"a")
    seen = [provenance.folder_digest(folder)]
    assert provenance.folder_digest(folder) == seen[0]
    (folder / "b.png").write_bytes(b"b")
    seen.append(provenance.folder_digest(folder))
    (folder / "deep" / "a.png").write_bytes(b"aa")
    seen.append(provenance.folder_digest(folder))
    (folder / "b.png").rename(folder / "c.png")
    seen.append(provenance.folder_digest(folder))
    assert len(set(seen)) == 4


def test_of_a_folder_of_images_only_images_count_and_links_end_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.PNG").write_bytes(b"a")
    alone = provenance.folder_digest(folder, (".png",))
    for name in (".DS_Store", "README.txt"):
        (folder / name).write_bytes(b"x")
    assert provenance.folder_digest(folder, (".png",)) == alone
    assert provenance.folder_digest(folder) != alone
    # up and down again, a link to itself, and one that leads nowhere
    (folder / "again").symlink_to(folder)
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "gone.png").symlink_to(tmp_path / "gone.png")
    linked = provenance.folder_digest(folder, (".png",))
    assert linked not in (None, alone)
    (tmp_path / "gone.png").write_bytes(b"here")
    assert provenance.folder_digest(folder, (".png",)) != linked
