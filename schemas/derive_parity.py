"""Write the tables of docs/reproduce.md: what published code does beside what the profiles do."""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from diffalign.alignment.metrics import METRICS
from diffalign.config import study
from diffalign.config.catalogue import merged, read_catalogue
from diffalign.config.mistakes import ConfigError, read
from diffalign.config.parity import ParityError, ParityFile, table
from diffalign.models import all_families

PAGE = ROOT / "docs" / "reproduce.md"


def parity_files() -> list[Path]:
    """The files of settings of all profiles, in order of their names: parity.yaml, and one for each further set of
    files of a profile, parity_{set}.yaml.
    """
    return sorted((ROOT / "profiles").glob("*/parity*.yaml"))


def table_of(path: Path) -> str:
    """The table of one file of settings. Raises ParityError or ConfigError that names the file."""
    mistakes: list[str] = []
    file = read(ParityFile, _yaml(path), "", mistakes)
    if file is None or mistakes:
        raise ConfigError([f"{path}: {line}" for line in mistakes])
    config: dict[str, Any] = {}
    for part in file.study:
        config = merged(config, _yaml(ROOT / part))
    checked = study.load(config, read_catalogue(ROOT / "catalogue"), all_families(), METRICS)
    try:
        return table(file, checked, _is_test)
    except ParityError as error:
        raise ParityError(f"{path}:\n{error}") from error


def derived() -> str:
    """docs/reproduce.md with the table of every profile between its two marks. Raises ParityError without them."""
    text = PAGE.read_text(encoding="utf-8")
    for path in parity_files():
        # of profiles/platonic/parity_test.yaml, platonic/test
        name = "/".join([path.parent.name, *path.stem.split("_", 1)[1:]])
        begin, end = f"<!-- settings of profiles/{name} -->\n", f"<!-- end of profiles/{name} -->\n"
        if (text.count(begin), text.count(end)) != (1, 1):
            raise ParityError(f"{PAGE}: needs the lines '{begin.strip()}' and '{end.strip()}', once")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table_of(path)}\n{end}{rest.split(end)[1]}"
    return text


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _is_test(name: str) -> bool:
    """Whether a file of tests has a function of this name."""
    path, _, function = name.partition("::")
    file = ROOT / path
    return file.is_file() and f"\ndef {function}(" in file.read_text(encoding="utf-8")


if __name__ == "__main__":
    PAGE.write_text(derived(), encoding="utf-8")
