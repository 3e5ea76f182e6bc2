"""Where checkpoints come from, and the record that says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from diffalign.atomic import write_json
from diffalign.models import CheckpointError
from diffalign.provenance import file_sha256

RECORD_FORMAT = 1


def describe(record: Path, folder: Path, origin: Mapping[str, Any]) -> None:
    """Write weights.json: the format, the origin, and the sha256 of every file of the checkpoint."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise CheckpointError(f"{folder}: the checkpoint has no files")
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    write_json(record, {"format": RECORD_FORMAT, **origin, "sha256": digests})


def read_record(record: Path) -> dict[str, Any]:
    """Read weights.json. Raises CheckpointError for another format."""
    content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    if content.get("format") != RECORD_FORMAT:
        raise CheckpointError(f"{record}: format {content.get('format')!r} is not known here; delete it and rerun")
    return content


def link_files(source: Path, folder: Path, patterns: Sequence[str], what: str) -> None:
    """Link the files of `source` that match one of the patterns (all, if there are none) into `folder`.

    Raises FileNotFoundError, which says `what` was asked for, where the source or a matching file is missing.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{what}: no such folder: {source}")
    found = [
        path
        for path in sorted(source.rglob("*"))
        if path.is_file() and (not patterns or any(fnmatch(path.relative_to(source).as_posix(), p) for p in patterns))
    ]
    if not found:
        raise FileNotFoundError(f"{what}: {source} has no file that matches {', '.join(patterns) or '*'}")
    for path in found:
        link = folder / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def hub_snapshot(model: str, hub: str, revision: str | None, patterns: Sequence[str]) -> tuple[Path, str]:
    """The matching files of a repository in the Hugging Face cache, downloaded if need be: the folder and the commit.

    With the hub switched off (HF_HUB_OFFLINE=1), or out of reach, what the cache holds of the revision is taken.
    Raises CheckpointError that says what to do: accept a licence, check the name, or point to a local folder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    elsewhere = f"or set models.{model}.weights to {{from: folder, folder: …}} with a local copy"
    try:
        folder = Path(snapshot_download(hub, revision=revision, allow_patterns=list(patterns) or None))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{model}: {hub} is gated: accept its licence on the page of the repository, "
            f"log in with `hf auth login`, {elsewhere}"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{model}: {hub} has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{model}: the hub has no repository '{hub}', or you are not logged in; {elsewhere}"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{model}: {hub} is not in the Hugging Face cache, and the hub is out of reach or switched off "
            f"(HF_HUB_OFFLINE); try again with a network, {elsewhere}"
        ) from error
    except Exception as error:  # whatever the network or the disk does, the reader learns what failed
        raise CheckpointError(f"{model}: {hub} could not be downloaded ({error}); try again, {elsewhere}") from error
    # a snapshot is kept in a folder named for its commit
    return folder, folder.name
