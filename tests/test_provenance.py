import shutil
from pathlib import Path

from conftest import ROOT

from diffalign import provenance

SCRIPTS = ROOT / "workflow_scripts"


def names_in(*files: str) -> set[str]:
    return {path.relative_to(SCRIPTS).as_posix() for path in provenance._closure([SCRIPTS / file for file in files])}


def test_the_digest_covers_what_a_script_imports_and_no_more() -> None:
    closure = names_in("align.py")
    assert {
        "align.py",
        "diffalign/alignment/metrics.py",
        "diffalign/io/recipes.py",
        "diffalign/io/feature_files.py",
    } <= closure
    assert "diffalign/figures.py" not in closure
    assert "diffalign/models/diffusers_mmdit.py" not in closure
    assert "diffalign/extraction/taps.py" in names_in("extract.py")


def test_the_digest_changes_with_a_module_and_not_with_its_place(tmp_path: Path) -> None:
    before = provenance.code_digest([SCRIPTS / "align.py"])
    assert provenance.code_digest([SCRIPTS / "align.py"]) == before
    shutil.copy(SCRIPTS / "align.py", tmp_path / "align.py")
    assert provenance.code_digest([tmp_path / "align.py"]) == before
    with (tmp_path / "align.py").open("a") as file:
        file.write("# changed\n")
    assert provenance.code_digest([tmp_path / "align.py"]) != before


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
