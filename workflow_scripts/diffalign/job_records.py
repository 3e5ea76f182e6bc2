"""What a job read, wrote and took, as a JSON file a job below results/provenance, in the place of its log below logs.

A result holds nothing that differs between two runs; what does, such as time and memory, stands here. Records are read
by `io.audits`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from diffalign.code_digests import code_digest
from diffalign.provenance import file_sha256

FORMAT = 1
FOLDER = Path("results", "provenance")
_LOGS = "logs"
# whose versions results may depend on, where a job has imported them
_PACKAGES = (
    *("numpy", "scipy", "pandas", "pyarrow", "torch", "torchvision", "timm", "transformers", "diffusers", "numba"),
    *("scikit-image", "scikit-learn", "PyWavelets", "pillow", "matplotlib", "safetensors"),
)
_MODULES = {"scikit-image": "skimage", "scikit-learn": "sklearn", "PyWavelets": "pywt", "pillow": "PIL"}
# bytes of the largest inputs that are read for their digests; of larger ones the record of their job says it
_SMALL = 10**6
# what the job that runs says of itself
_noted: dict[str, Any] = {}
# path -> state of an input when the job began: one that is edited while it runs is not what it has read
_read: dict[str, dict[str, Any]] = {}


def place_of(log: Path) -> Path:
    """Where the record of a job lies, by its log, which lies below logs."""
    at = log.parts.index(_LOGS)
    return Path(*log.parts[:at], FOLDER, *log.parts[at + 1 :]).with_suffix(".json")


def _is_recorded(log: Path) -> bool:
    """Whether a job leaves a record: one that Snakemake has begun, and that is not computed again elsewhere, where the
    path of its log is absolute.
    """
    return not log.is_absolute() and _LOGS in log.parts and _given() is not None


def note(**facts: Any) -> None:
    """Say something of the job that runs, such as its device."""
    _noted.update(facts)


def note_family(name: str) -> None:
    """Say that the job that runs uses a family of models, which no import says."""
    _noted.setdefault("families", set()).add(name)


def code_of(script: Path, families: Iterable[str]) -> str:
    """The digest of the code of a script and of families of models; empty where one of them is gone."""
    folder = Path(__file__).resolve().parent / "models" / "families"
    files = [script, *(folder / f"{name}.py" for name in families)]
    return code_digest(files) if all(path.is_file() for path in files) else ""


def note_settings(content: Any) -> None:
    """Say what settings or a recipe the job that runs has read: the first seed that one of them has is its seed."""
    if not isinstance(content, Mapping):
        return
    model = content.get("model")
    seed = content.get("seed", model.get("seed", 0) if isinstance(model, Mapping) else None)
    if seed is not None:
        _noted.setdefault("seed", seed)


def gpus_of(resources: Mapping[str, Any]) -> int:
    """GPUs that a job asks for: as `gpu`, or as `gres`, such as gpu:a100:2, where a cluster is asked in this way."""
    asked, by_gres = resources.get("gpu", 0), resources.get("gres")
    if isinstance(by_gres, str) and by_gres.startswith("gpu:"):
        return int(by_gres.rpartition(":")[2])
    return asked if isinstance(asked, int) else 0


def outputs() -> list[str]:
    """What the job that runs writes; empty outside of a job of Snakemake."""
    given = _given()
    return [] if given is None else list(given.output)


def begin(log: Path) -> None:
    """Remove the record of the job that ran before in the place of this one, and look at its inputs."""
    _noted.clear()
    _read.clear()
    if _is_recorded(log):
        place_of(log).unlink(missing_ok=True)
        _read.update({path: _seen(Path(path)) for path in _given().input})


def finish(log: Path, seconds: float) -> None:
    """Write the record of a job that Snakemake has begun and that is done. seconds: that it took."""
    if not _is_recorded(log):
        return
    place, given = place_of(log), _given()
    params = dict(given.params.items())
    # Snakemake runs a copy, and says which
    script = Path(str(sys.modules["__main__"].__file__))
    families = sorted(_noted.get("families", ()))
    content = {
        "format": FORMAT,
        "rule": given.rule,
        "script": script.name,
        "log": str(log),
        "wildcards": dict(given.wildcards.items()),
        "threads": given.threads,
        "resources": {key: value for key, value in given.resources.items() if not key.startswith("_")},
        "params": params,
        "families": families,
        "code": code_of(script, families),
        "seed": _seed(params),
        "device": _noted.get("device", "cpu"),
        "inputs": _named(given.input),
        "outputs": _named(given.output),
        "states": dict(_read),
        "written": {path: {**state_of(Path(path)), "sha256": digest_of(Path(path))} for path in given.output},
        "python": platform.python_version(),
        "packages": dict(_versions()),
        "host": platform.node(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "memory_mb": round(_peak_bytes() / 1e6, 1),
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(content, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def files_of(path: Path) -> list[Path]:
    """A file, or the files of a folder in order of name, without hidden ones, which caches and Snakemake write."""
    if not path.is_dir():
        return [path]
    below = (each for each in sorted(path.rglob("*")) if not each.is_dir())
    return [each for each in below if not any(word.startswith(".") for word in each.relative_to(path).parts)]


def state_of(path: Path) -> dict[str, int]:
    """Bytes and time of change of a file; of a folder all bytes, and the latest time of its files. Empty for none."""
    if not path.exists():
        return {}
    found = [each.stat() if each == path else each.lstat() for each in files_of(path)]
    return {"bytes": sum(each.st_size for each in found), "changed_ns": max((e.st_mtime_ns for e in found), default=0)}


def _seen(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = dict(state_of(path))
    return {**state, "sha256": digest_of(path)} if path.is_file() and state["bytes"] <= _SMALL else state


def digest_of(path: Path) -> str:
    """Hexadecimal sha256 of a file; of a folder that of the names and digests of its files.

    A link out of a folder counts as where it leads: files of a checkpoint have digests of their own in weights.json.
    """
    if not path.is_dir():
        return file_sha256(path)
    lines = []
    for each in files_of(path):
        name = each.relative_to(path).as_posix()
        lines.append(f"{name} -> {each.readlink()}" if each.is_symlink() else f"{name} {file_sha256(each)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _given() -> Any:
    """What Snakemake has given to the script that runs; None outside of a job."""
    return getattr(sys.modules["__main__"], "snakemake", None)


def _named(files: Any) -> dict[str, Any]:
    """All files in their order, and those of each name."""
    named = {name: value if isinstance(value, str) else list(value) for name, value in files.items()}
    return {"all": list(files), "named": named}


def _seed(params: Mapping[str, Any]) -> Any:
    settings = params.get("settings")
    seed = params.get("seed", settings.get("seed") if isinstance(settings, Mapping) else None)
    return seed if seed is not None else _noted.get("seed")


def _versions() -> Iterable[tuple[str, str]]:
    for package in _PACKAGES:
        if _MODULES.get(package, package) in sys.modules:
            yield package, metadata.version(package)


def _peak_bytes() -> float:
    """The most memory that this process had, beside the most of one of its children."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # kilobytes, but on macOS
    return sum(peaks) * (1 if sys.platform == "darwin" else 1024)


def read(path: Path) -> dict[str, Any]:
    """Read a record. Raises ValueError that names the file for one that is broken or of another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} is not known here")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no record of a job ({error}); delete it, and what it is of, and rerun") from None
    return dict(content)
