"""A checkpoint of the hub, of an address, a local folder or file, or an installed package: links, and their sha256."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.atomic import make_empty
from diffalign.io.checkpoint_errors import CheckpointError
from diffalign.io.checkpoints import describe, hub_snapshot, link_file, link_files, package_folder
from diffalign.io.downloads import DownloadError, kept_download
from diffalign.models import find_family
from diffalign.offenders import first_five
from diffalign.specs import Weights

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def weights(
    model: str, spec: Weights, folder: Path, record: Path, downloads: Path, weights_file: str | None = None
) -> None:
    """Link the files of a checkpoint into `folder` and describe them in `record`, weights.json.

    weights_file: the one that the family of the model reads its weights from, where there is only one.

    downloads: the folder of files that came from an address. An interrupted download of the hub goes on where it
    stopped: files lie in the Hugging Face cache, not here. Raises CheckpointError that says what to do where a file
    cannot be downloaded or is not the expected one, where the hub asks for a licence, or where a package is not
    installed; FileNotFoundError where a folder or file is absent, or no file matches ``spec.files``.
    """
    if spec.source == "url":
        origin = _from_url(model, spec, folder, downloads)
    else:
        origin = _LINK[spec.source](model, spec, folder)
    given = spec.given_statistics
    if given is not None and not (folder / given).is_file():
        raise FileNotFoundError(f"models.{model}.weights.statistics: the checkpoint has no file {given}")
    if weights_file is not None and spec.source in _FOLDERS and not (folder / weights_file).is_file():
        there = first_five(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
        raise CheckpointError(f"models.{model}.weights: its weights are read from {weights_file}, and there is {there}")
    origin = {"source": spec.source, **origin}
    describe(record, folder, origin, may_be_empty=spec.source == "none")


def _from_hub(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.hub is not None  # the config is checked
    snapshot, commit = hub_snapshot(model, spec.hub, spec.revision, _files(spec))
    link_files(snapshot, folder, _files(spec), f"{spec.hub} at {commit}")
    return {"hub": spec.hub, "revision": commit}


def _from_folder(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.folder is not None  # the config is checked
    link_files(Path(spec.folder).expanduser(), folder, _files(spec), f"models.{model}.weights.folder")
    return {}


def _from_file(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.path is not None  # the config is checked
    link_file(Path(spec.path).expanduser(), folder, f"models.{model}.weights.path")
    if spec.statistics is not None:
        place = f"models.{model}.weights.statistics"
        link_file(Path(spec.statistics).expanduser(), folder, place, empties=False)
    return {}


def _from_url(model: str, spec: Weights, folder: Path, downloads: Path) -> dict[str, Any]:
    assert spec.url is not None  # the config is checked
    place = f"models.{model}.weights"
    try:
        file, _ = kept_download(spec.url, spec.sha256, downloads, f"{place}.sha256")
    except DownloadError as error:
        raise CheckpointError(f"{error}; with a local copy, set {place} to {{from: file, path: …}}") from error
    link_file(file, folder, f"{place}.url")
    return {"url": spec.url}


def _files(spec: Weights) -> tuple[str, ...]:
    """The patterns of files to take, with the statistics of latents; none for all."""
    return spec.files if spec.statistics is None or not spec.files else (*spec.files, spec.statistics)


def _from_package(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    assert spec.package is not None  # the config is checked
    source, version = package_folder(model, spec.package, spec.folder)
    link_files(source, folder, spec.files, f"models.{model}.weights.folder")
    return {"package": spec.package, "version": version}


def _without_weights(model: str, spec: Weights, folder: Path) -> dict[str, Any]:
    make_empty(folder)
    return {}


# sources that are folders
_FOLDERS = ("hub", "folder", "package")
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
        spec, downloads = Weights(**entry["weights"]), Path(snakemake.params.downloads)
        only = find_family(entry["family"]).weights_file
        weights(entry["name"], spec, Path(made.folder), Path(made.record), downloads, only)
