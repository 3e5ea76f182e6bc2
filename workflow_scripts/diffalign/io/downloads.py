"""Files that are downloaded from an address: whole or absent, each with a record of its sha256."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from diffalign.io.atomic import replacing
from diffalign.io.headers import FileKind
from diffalign.logs import log
from diffalign.provenance import file_of, file_sha256

RECORD = FileKind("a record of a download", 1)

_BLOCK = 2**20
# seconds without an answer
_PATIENCE = 60


class DownloadError(ValueError):
    """A file that cannot be downloaded, or that is not the expected one."""


def download(url: str, path: Path, sha256: str | None, whose: str, instead: str | None = None) -> str:
    """Download a file and return its sha256.

    sha256: what it must be; None for any. For messages, whose: where the expected one stands, instead: the key of a
    local file that may take the place of the address. Raises DownloadError, and leaves no file, for
    an address of another scheme than http and https, where the download fails or is cut off, where the address gives a
    page in place of a file, or where the sha256 is another one.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url}: is no address; write https://host/path/file")
    log.info("%s: downloading", url)
    otherwise = "" if instead is None else f"; download it elsewhere and name it as {instead}"
    hashed, count = hashlib.sha256(), 0
    with replacing(path) as temporary:
        try:
            with (
                # the scheme is checked above
                urlopen(Request(url, headers={"User-Agent": "diffalign"}), timeout=_PATIENCE) as answer,  # noqa: S310
                temporary.open("wb") as file,
            ):
                kind, announced = answer.headers.get_content_type(), answer.headers.get("Content-Length")
                while block := answer.read(_BLOCK):
                    file.write(block)
                    hashed.update(block)
                    count += len(block)
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url}: cannot be downloaded ({error}){otherwise}") from error
        if kind == "text/html":
            raise DownloadError(f"{url}: cannot be downloaded (the answer is a page, not a file){otherwise}")
        if announced is not None and count != int(announced):
            raise DownloadError(f"{url}: cannot be downloaded (cut off after {count} of {announced} bytes){otherwise}")
        if sha256 is not None and hashed.hexdigest() != sha256:
            raise DownloadError(f"{url}: has the sha256 {hashed.hexdigest()}; expected {sha256} ({whose})")
    return hashed.hexdigest()


def kept_download(url: str, sha256: str | None, folder: Path, whose: str) -> tuple[Path, str]:
    """The file of an address, downloaded into a folder of its own below `folder` unless it lies there; and its sha256.

    sha256: what it must be. None takes any at the first download, records it beside the file, and holds every later
    download to it. Raises DownloadError as `download` does.
    """
    place = folder / hashlib.sha256(url.encode()).hexdigest()[:16]
    path = place / file_of(url)
    record = place / f"{path.name}.json"
    expected, where = sha256, whose
    if expected is None and record.is_file():
        expected, where = RECORD.read_json(record)["sha256"], f"of the first download, in {record}"
    if expected is not None and path.is_file() and file_sha256(path) == expected:
        return path, expected
    digest = download(url, path, expected, where)
    RECORD.write_json(record, url=url, sha256=digest, bytes=path.stat().st_size)
    return path, digest
