"""Write envs/*.yaml, the conda environments of `--sdm conda`, from the pins in pyproject.toml."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environments() -> dict[str, str]:
    """File name -> content. Raises KeyError for a package that pyproject.toml does not pin."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = {pin.split("==")[0]: pin for pin in project["project"]["dependencies"]}
    head = "# Derived from pyproject.toml by envs/derive.py (make lock).\n"
    return {
        f"{name}.yaml": head
        + "channels: [conda-forge, nodefaults]\ndependencies:\n  - python=3.11\n  - pip\n  - pip:\n"
        + "".join(f"      - {pins[package]}\n" for package in packages)
        for name, packages in project["tool"]["diffalign"]["envs"].items()
    }


if __name__ == "__main__":
    for name, content in environments().items():
        (ROOT / "envs" / name).write_text(content, encoding="utf-8")
        print(f"envs/{name}")
