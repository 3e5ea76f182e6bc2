"""An archive of the images of a data set: downloaded, or a local file, unpacked, and its sha256 recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffalign import logs
from diffalign.io.archives import ArchiveError, unpack
from diffalign.io.atomic import make_empty
from diffalign.io.downloads import download
from diffalign.io.headers import FileKind
from diffalign.provenance import file_sha256

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

KIND = FileKind("a record of an archive", 1)


def archive(dataset: str, source: Mapping[str, Any], folder: Path, record: Path) -> None:
    """Unpack an archive into `folder` and record its url or path, sha256 and number of files.

    source: url or path, and sha256, of the config. A download is removed when it is unpacked. Raises DownloadError
    where the download fails or its sha256 is another, ArchiveError as `unpack`, FileNotFoundError for a local file that
    is absent.
    """
    make_empty(folder)
    if source["url"] is not None:
        path = folder.with_name("download")
        place = f"datasets.{dataset}.archive"
        digest = download(source["url"], path, source["sha256"], f"{place}.sha256", f"{place}.path")
    else:
        path = Path(source["path"]).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such archive (datasets.{dataset}.archive.path)")
        digest = file_sha256(path)
        if source["sha256"] not in (None, digest):
            raise ArchiveError(f"{path}: has the sha256 {digest}; expected {source['sha256']}")
    try:
        count = unpack(path, folder)
    finally:
        if source["url"] is not None:
            path.unlink(missing_ok=True)
    logs.log.info("%s: %d files", source["url"] or path, count)
    KIND.write_json(record, **{key: source[key] for key in ("url", "path")}, sha256=digest, files=count)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "archive"):
        archive(
            snakemake.wildcards.dataset,
            snakemake.params.source,
            Path(snakemake.output.folder),
            Path(snakemake.output.record),
        )
