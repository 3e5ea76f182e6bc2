"""Finished shards of a long job, from which the job goes on after a kill: numbered safetensors files in one folder.

The folder of a job lies below results/checkpoints, where Snakemake removes nothing, and has a folder for the digest of
all that the shards depend on, so that shards of other settings or inputs are never taken. The metadata of a shard hold
the sha256 of what it says and holds, which is checked when it is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind, StoreError
from diffalign.io.safetensors_files import save_file
from diffalign.logs import log

KIND = FileKind("a shard of a job", 1)


@dataclass(frozen=True, eq=False)
class Shard:
    """A part of a job that is done. arrays: by name. facts: what the job says of them, as plain JSON."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class Shards:
    """The shards of one job, in the order in which they were made. path: the folder of the job. key: all that their
    content depends on, as plain JSON; what lies there of other keys is removed.
    """

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._path = path
        self._folder = path / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._count = 0

    def finished(self) -> Iterator[Shard]:
        """Shards that an earlier call of the job has made, from the first to the last that is whole.

        A shard that is cut off or changed is made again, with all that follow it.
        """
        for other in self._path.iterdir() if self._path.is_dir() else ():
            if other != self._folder:
                log.info("%s is of other settings or inputs and is removed", other)
                shutil.rmtree(other, ignore_errors=True)
        self._count = 0
        while self._file(self._count).exists():
            try:
                shard = _read(self._file(self._count))
            except StoreError as error:
                log.warning("%s; it is made again", error)
                break
            yield shard
            self._count += 1
        # what a job was writing when it was killed has another name, and is removed when the next is written
        for left in self._folder.glob("*.safetensors"):
            if left.stem.isdecimal() and int(left.stem) >= self._count:
                left.unlink()

    def append(self, shard: Shard) -> None:
        """Write the next shard as a whole."""
        facts = json.dumps(dict(shard.facts))
        arrays = {name: np.ascontiguousarray(array) for name, array in shard.arrays.items()}
        with replacing(self._file(self._count)) as temporary:
            save_file(arrays, temporary, KIND.metadata(facts=facts, sha256=_digest(arrays, facts)))
        self._count += 1

    def clear(self) -> None:
        """Remove all shards of the job."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"


def _read(path: Path) -> Shard:
    from safetensors import safe_open

    metadata = KIND.read_metadata(path)
    with KIND.reading(path), safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        facts = metadata["facts"]
        if _digest(arrays, facts) != metadata["sha256"]:
            raise StoreError(f"{path}: is not what was written")
    return Shard(arrays, json.loads(facts))


def _digest(arrays: Mapping[str, NDArray[Any]], facts: str) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
