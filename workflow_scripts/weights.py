"""A checkpoint of the hub, a local folder or file, or an installed package: links to its files, and their sha256."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoints import describe, hub_snapshot, link_file, link_files, package_folder
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def weights(model: str, spec: Weights, folder: Path, record: Path) -> None:
    """Link the files of a checkpoint into `folder` and describe them in `record`, weights.json.

    An interrupted download goes on where it stopped: files lie in the Hugging Face cache, not here. Raises
    CheckpointError that says what to do where the hub cannot be reached or asks for a licence, or where a package is
    not installed; FileNotFoundError where a folder or file is absent, or no file matches ``spec.files``.
    """
    origin = {"source": spec.source, **_LINK[spec.source](model, spec, folder)}
    describe(record, folder, origin, may_be_empty=spec.source == "none")


def _from_hub(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.hub is not None  # the config is checked
    snapshot, commit = hub_snapshot(model, spec.hub, spec.revision, spec.files)
    link_files(snapshot, folder, spec.files, f"{spec.hub} at {commit}")
    return {"hub": spec.hub, "revision": commit}


def _from_folder(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.folder is not None  # the config is checked
    link_files(Path(spec.folder).expanduser(), folder, spec.files, f"models.{model}.weights.folder")
    return {}


def _from_file(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.path is not None  # the config is checked
    link_file(Path(spec.path).expanduser(), folder, f"models.{model}.weights.path")
    return {}


def _from_package(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.package is not None  # the config is checked
    source, version = package_folder(model, spec.package, spec.folder)
    link_files(source, folder, spec.files, f"models.{model}.weights.folder")
    return {"package": spec.package, "version": version}


def _without_weights(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    make_empty(folder)
    return {}


_LINK: Mapping[str, Callable[[str, Weights, Path], dict[str, Any]]] = {
    "hub": _from_hub,
    "folder": _from_folder,
    "file": _from_file,
    "package": _from_package,
    "none": _without_weights,
}


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "weights"):
        entry, made = snakemake.params.model, snakemake.output
        weights(entry["name"], Weights(**entry["weights"]), Path(made.folder), Path(made.record))
