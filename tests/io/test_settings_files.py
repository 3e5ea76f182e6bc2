"""A job that outlives its run writes nothing once a later run has other settings."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffalign import logs
from diffalign.io.atomic import make_empty, read_settings_file, replacing_folder, write_text


def job(folder: Path, settings: Path, later: str | None) -> None:
    """A job that reads settings, which a later run changes, and writes a result."""
    with logs.attached(folder / "log", "late"):
        read_settings_file(settings)
        if later is not None:
            settings.write_text(later)
        write_text(folder / "result", "of the earlier settings")


def test_a_result_of_earlier_settings_takes_no_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings, result = tmp_path / "settings.json", tmp_path / "result"
    settings.write_text(json.dumps({"k": 10}))
    job(tmp_path, settings, None)
    result.write_text("of the later run")
    with pytest.raises(SystemExit):
        job(tmp_path, settings, json.dumps({"k": 5}))
    assert result.read_text() == "of the later run"
    assert "settings.json changed while this job ran, so it belongs to an earlier run" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "result", "settings.json"]
    # the same content written anew is no change
    job(tmp_path, settings, settings.read_text())
    assert result.read_text() == "of the earlier settings"


def test_settings_are_those_of_the_job_that_reads_them(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"k": 10}))
    assert read_settings_file(settings) == {"k": 10}
    settings.write_text(json.dumps({"k": 5}))
    write_text(tmp_path / "result", "outside of a job")


def test_a_job_that_a_later_run_has_begun_again_writes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log, result = tmp_path / "log", tmp_path / "result"

    def fill(folder: Path) -> None:
        with replacing_folder(folder):
            pass

    def late(write: Callable[[Path], None]) -> None:
        with logs.attached(log, "late"):
            write_text(tmp_path / "before", "the only job so far")
            with logs.attached(log, "late"):
                write_text(result, "of the later job")
            write(result)

    for write in (lambda path: write_text(path, "of the earlier job"), make_empty, fill):
        with pytest.raises(SystemExit):
            late(write)
        said = capfd.readouterr().err
        assert "result is not written: a later run has begun the same job (late: process" in said
    assert (tmp_path / "result").read_text() == "of the later job"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "log", "result"]
