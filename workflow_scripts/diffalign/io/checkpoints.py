"""Where checkpoints come from, and the record of what they are."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from importlib import metadata, util
from pathlib import Path, PurePath
from typing import Any

from diffalign.io.atomic import make_empty, make_readable, write_json
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.headers import FileKind
from diffalign.logs import TerminalBar, log, progress
from diffalign.offenders import first_five
from diffalign.provenance import file_sha256
from diffalign.reasons import reason

RECORD = FileKind("a record of weights", 1)


def describe(record: Path, folder: Path, origin: Mapping[str, Any], may_be_empty: bool = False) -> None:
    """Write weights.json: the format, the origin, and the sha256 of every file of the checkpoint.

    Files that a library wrote for their owner alone become readable as other outputs are; those that links lead to stay
    as they are. Raises CheckpointError for a folder without files, unless nothing of the model is learned.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files and not may_be_empty:
        raise CheckpointError(f"{folder}: the checkpoint has no files")
    _check_shards(folder)
    for path in files:
        if not path.is_symlink():
            make_readable(path)
    digests = _digests(folder, files)
    RECORD.write_json(record, **origin, sha256=digests)


def _digests(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    listed = progress(files, len(files), "sha256")
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in listed}


def _check_shards(folder: Path) -> None:
    """Raise CheckpointError where an index of shards names a file that is not there, as after a cut-off download."""
    for index in sorted(folder.rglob("*.index.json")):
        try:
            named = set(map(str, json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
            raise CheckpointError(f"{index}: cannot be read as an index of shards ({reason(error)})") from error
        outside = sorted(name for name in named if PurePath(name).is_absolute() or ".." in PurePath(name).parts)
        if outside:
            raise CheckpointError(f"{index}: {len(outside)} shards lie elsewhere, first: {first_five(outside)}")
        absent = sorted(name for name in named if not (index.parent / name).is_file())
        if absent:
            raise CheckpointError(
                f"{index}: {len(absent)} of {len(named)} shards are missing, first: {first_five(absent)}"
            )


def verify(record: Path, folder: Path) -> dict[str, Any]:
    """Check that a checkpoint is the one that weights.json records, and return the record.

    Files are hashed once on a machine, and again when size, time of change or inode of one of them differ. Raises
    CheckpointError that names the first file that is missing or has changed.
    """
    content = read_record(record)
    recorded: dict[str, str] = content["sha256"]
    for name in recorded:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: recorded in {record}, but missing; delete {record} and rerun")
    seen = record.with_name(f".{record.stem}.{platform.node()}.json")
    state = {name: [recorded[name], *_state(folder / name)] for name in recorded}
    if _is_verified(seen, state):
        return content
    digests = _digests(folder, [folder / name for name in recorded])
    changed = [name for name, digest in recorded.items() if digests[name] != digest]
    if changed:
        raise CheckpointError(
            f"{folder / changed[0]}: has changed since its sha256 was recorded in {record}; "
            "if that is meant, delete the record and rerun"
        )
    write_json(seen, state)
    return content


def _state(path: Path) -> list[int]:
    """Size, time of change and inode of a file, also behind a link."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _is_verified(seen: Path, state: Mapping[str, Any]) -> bool:
    """Whether this machine has hashed these very files before."""
    try:
        return bool(json.loads(seen.read_text(encoding="utf-8")) == state)
    except (OSError, ValueError):
        return False


def read_record(record: Path) -> dict[str, Any]:
    """Read weights.json. Raises StoreError for another format."""
    return RECORD.read_json(record)


# names of files that hold weights; the rest of a checkpoint is its configuration
_WEIGHTS = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.index.json",
    "*.msgpack",
    "*.h5",
    "*.onnx*",
    "*.gguf",
)


def is_configuration(name: str) -> bool:
    """Whether a file of a checkpoint, or a pattern of such files, holds no weights."""
    return not any(fnmatch(name, pattern) for pattern in _WEIGHTS)


def link_configuration(source: Path, folder: Path, patterns: Sequence[str], what: str) -> None:
    """Link the matching files of `source` that hold no weights into `folder`. Raises FileNotFoundError."""
    names = [path.relative_to(source).as_posix() for path in sorted(source.rglob("*")) if path.is_file()]
    taken = [name for name in names if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]
    configuration = [name for name in taken if is_configuration(name)]
    if not configuration:
        raise FileNotFoundError(f"{what}: {source} has no files of a configuration")
    link_files(source, folder, configuration, what)


def link_files(source: Path, folder: Path, patterns: Sequence[str], what: str) -> None:
    """Link the files of `source` that match one of the patterns (all, if there are none) into `folder`, which is
    emptied.

    Raises FileNotFoundError, which says `what` was asked for, where the source or a matching file is missing.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{what}: no such folder: {source}")
    files = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
    patterns = chosen(patterns, files)
    exact = [pattern for pattern in patterns if not set(pattern) & set("*?[")]
    absent = [pattern for pattern in exact if pattern not in files]
    matching = [path for name, path in files.items() if not patterns or any(fnmatch(name, p) for p in patterns)]
    if absent or not matching:
        raise FileNotFoundError(f"{what}: {source} has no file {', '.join(absent or patterns or ['at all'])}")
    make_empty(folder)
    for path in matching:
        link = folder / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())


def chosen(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """Patterns without choices: of ``*.safetensors|*.bin`` the first that one of the names matches, or the first."""
    taken = []
    for pattern in patterns:
        choices = pattern.split("|")
        taken.append(next((each for each in choices if any(fnmatch(name, each) for name in names)), choices[0]))
    return taken


def package_folder(model: str, package: str, folder: str | None) -> tuple[Path, str]:
    """A folder that an installed package carries, and the version of the package; its code is not run.

    Raises CheckpointError where it is not installed.
    """
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"{model}: the Python package '{package}' is not installed; install it, or change models.{model}.weights"
        )
    where = Path(next(iter(spec.submodule_search_locations))) / (folder or "")
    distributions = metadata.packages_distributions().get(package.partition(".")[0], [])
    return where, metadata.version(distributions[0]) if distributions else "unknown"


def link_file(source: Path, folder: Path, what: str, empties: bool = True) -> None:
    """Link one file into `folder`, which is emptied unless it is to lie beside others.

    Raises FileNotFoundError, which says `what` was asked for, where it is missing, and FileExistsError where a file of
    this name lies there.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{what}: no such file: {source}")
    if empties:
        make_empty(folder)
    (folder / source.name).symlink_to(source.resolve())


def hub_snapshot(
    model: str,
    hub: str,
    revision: str | None,
    patterns: Sequence[str],
    configuration: bool = False,
    kind: str = "model",
) -> tuple[Path, str]:
    """The matching files of a repository in the Hugging Face cache, downloaded if need be: the folder and the commit.

    configuration: without those that hold weights. kind: ``model`` or ``dataset``, what the repository is.

    With the hub switched off (HF_HUB_OFFLINE=1) what the cache holds of the revision is taken. An open revision with
    the hub out of reach is an error: the cache may hold an old one. Raises CheckpointError that says what to do: accept
    a licence, check the name, or point to a local folder.
    """
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    elsewhere = f"or set models.{model}.weights to {{from: folder, folder: …}} with a local copy"
    if kind == "dataset":
        elsewhere = f"or set datasets.{model}.path to a local copy, and hub: null"
    try:
        if constants.HF_HUB_OFFLINE:
            allowed = [choice for pattern in patterns for choice in pattern.split("|")]
        elif revision is None or any("|" in pattern for pattern in patterns):
            allowed = chosen(patterns, HfApi().list_repo_files(hub, revision=revision, repo_type=kind))
        else:
            allowed = list(patterns)
        folder = Path(
            snapshot_download(
                hub,
                revision=revision,
                repo_type=kind,
                allow_patterns=allowed or None,
                ignore_patterns=list(_WEIGHTS) if configuration else None,
                tqdm_class=TerminalBar,
            )
        )
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
        raise CheckpointError(
            f"{model}: {hub} could not be downloaded ({error}); try again, "
            f"set HF_HUB_OFFLINE=1 to take what the Hugging Face cache holds, {elsewhere}"
        ) from error
    log.info("%s: %s at commit %s", model, hub, folder.name)
    # a snapshot is kept in a folder named for its commit
    return folder, folder.name
