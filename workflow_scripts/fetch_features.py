"""Download a published file of features, check its sha256 and record it."""

from pathlib import Path
from typing import TYPE_CHECKING

from diffalign import logs
from diffalign.io.downloads import RECORD, download

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def fetch_features(url: str, sha256: str | None, path: Path, record: Path) -> None:
    """Download a file and record its url, sha256 and size in bytes.

    Raises DownloadError, and leaves no file, where the download fails or the sha256 is not the expected one.
    """
    digest = download(url, path, sha256, "features.sha256", "the model's features.path")
    RECORD.write_json(record, url=url, sha256=digest, bytes=path.stat().st_size)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "fetch_features"):
        fetch_features(
            snakemake.params.url,
            snakemake.params.sha256,
            Path(snakemake.output.features),
            Path(snakemake.output.record),
        )
