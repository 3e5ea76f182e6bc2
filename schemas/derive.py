"""Write schemas/config.schema.yaml and docs/config.md from the sections of the configuration."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from diffalign.config.reference import page, schema

HEADER = (
    "# Generated from workflow_scripts/diffalign/config by `make reference`, for editors; the workflow checks more."
)


def derived() -> dict[Path, str]:
    """File -> what it must hold."""
    text = "\n".join([HEADER, *_lines(schema())]) + "\n"
    return {ROOT / "schemas" / "config.schema.yaml": text, ROOT / "docs" / "config.md": page()}


def _lines(mapping: dict[str, Any], indent: str = "") -> Iterator[str]:
    """A schema as YAML, one line a key of the configuration: values are JSON, which YAML includes."""
    for key, value in mapping.items():
        if isinstance(value, dict) and (key in ("$defs", "properties") or "properties" in value):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"


if __name__ == "__main__":
    for path, text in derived().items():
        path.write_text(text, encoding="utf-8")
