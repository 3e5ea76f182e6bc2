"""Files of an address: downloaded whole, with the sha256 that is expected."""

from __future__ import annotations

from pathlib import Path

from diffalign import logs
from diffalign.provenance import file_sha256


def download(url: str, sha256: str | None, path: Path, instead: str) -> str:
    """Download a file to `path` and return its sha256.

    instead: the key that takes a local file in the place of the address, for the message. Raises ValueError, and leaves
    no file, where the download fails or the sha256 is not the expected one.
    """
    from torch.hub import download_url_to_file

    logs.log.info("%s: downloading", url)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(url, str(path), progress=False)
    except OSError as error:
        raise ValueError(
            f"{url}: cannot be downloaded ({error}); download it elsewhere and name it as {instead}"
        ) from error
    digest = file_sha256(path)
    if sha256 not in (None, digest):
        path.unlink()
        raise ValueError(f"{url}: has the sha256 {digest}; expected {sha256}")
    return digest
