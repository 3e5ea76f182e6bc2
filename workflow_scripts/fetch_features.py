"""Download a published file of features, check its sha256 and record it."""

from pathlib import Path
from typing import TYPE_CHECKING

from torch.hub import download_url_to_file

from diffalign import logs
from diffalign.io.headers import FileKind
from diffalign.provenance import file_sha256

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

KIND = FileKind("a record of a download", 1)


def fetch_features(url: str, sha256: str | None, path: Path, record: Path) -> None:
    """Download a file and record its url, sha256 and size in bytes.

    Raises ValueError, and leaves no file, where the download fails or the sha256 is not the expected one.
    """
    logs.log.info("%s: downloading", url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(url, str(path), progress=False)
    except OSError as error:
        raise ValueError(
            f"{url}: cannot be downloaded ({error}); download it elsewhere and name it as the model's features.path"
        ) from error
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        path.unlink()
        raise ValueError(f"{url}: has the sha256 {digest}; expected {sha256} (features.sha256)")
    KIND.write_json(record, url=url, sha256=digest, bytes=path.stat().st_size)


if __name__ == "__main__":
    with logs.attached(snakemake.log[0], "fetch_features"):
        fetch_features(
            snakemake.params.url,
            snakemake.params.sha256,
            Path(snakemake.output.features),
            Path(snakemake.output.record),
        )
