"""Download the files of people that may be downloaded, and say where the others are to be asked for. make data"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from diffalign.config.catalogue import merged
from diffalign.config.datasets import DatasetEntry, SourceEntry, TripletEntry, check
from diffalign.config.mistakes import ConfigError, read
from diffalign.io.downloads import DownloadError, download
from diffalign.provenance import file_sha256


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a file is another one than expected, or cannot be downloaded."""
    command = argparse.ArgumentParser(prog="download_data", description=__doc__)
    command.add_argument("--configfile", nargs="+", type=Path, default=[Path("config.yaml")], help="as of Snakemake")
    config: dict[str, Any] = {}
    for path in command.parse_args(arguments).configfile:
        config = merged(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    failed = False
    for place, entry in human_files(config):
        try:
            sys.stdout.write(f"{place}: {provide(place, entry)}\n")
        except (DownloadError, OSError) as error:
            sys.stderr.write(f"{place}: {error}\n")
            failed = True
    return int(failed)


def human_files(config: dict[str, Any]) -> Iterator[tuple[str, SourceEntry | TripletEntry]]:
    """Files of people of all data sets of a configuration, by their place in it. Raises ConfigError."""
    for name, given in (config.get("datasets") or {}).items():
        mistakes: list[str] = []
        entry = read(DatasetEntry, given, f"datasets.{name}", mistakes)
        mistakes += [] if entry is None else check(name, entry)
        if entry is None or mistakes:
            raise ConfigError(mistakes)
        for key, source in entry.human_files():
            yield f"datasets.{name}.{key}", source


def provide(place: str, entry: SourceEntry | TripletEntry) -> str:
    """What became of one entry. place: of the entry in the configuration.

    Files that are there are compared with their sha256; nothing is downloaded over them, or outside of the working
    directory. Raises DownloadError for a file that is another one, for an address without a sha256, and where a
    download fails.
    """
    paths = [entry.path] if isinstance(entry.path, str) else list(entry.path)
    digests = [entry.sha256] if entry.sha256 is None or isinstance(entry.sha256, str) else list(entry.sha256)
    absent = [path for path in paths if not Path(path).is_file()]
    for path, expected in zip(paths, digests * (len(paths) if len(digests) == 1 else 1), strict=True):
        if path not in absent and expected is not None and (found := file_sha256(Path(path))) != expected:
            raise DownloadError(f"{path}: has the sha256 {found}; expected {expected}")
    if not absent:
        return f"{', '.join(paths)} is there"
    if entry.url is None or len(paths) > 1:
        where = "its address is not known here" if entry.ask is None else entry.ask
        return f"{', '.join(absent)} is to be asked for: {where}"
    if not isinstance(entry.sha256, str):
        raise DownloadError(f"{entry.url} is not downloaded: no sha256 is given to compare it with")
    target = Path(absent[0])
    if not target.resolve().is_relative_to(Path.cwd()):
        raise DownloadError(f"{target} lies outside of the working directory; download {entry.url} yourself")
    download(entry.url, target, entry.sha256, f"{place}.sha256")
    return f"{target} downloaded from {entry.url}"


if __name__ == "__main__":
    sys.exit(main())
