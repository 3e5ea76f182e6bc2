"""A file that must be refused, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from importers import place

# writes the case's file; the second path is its canary
Make = Callable[[Path, Path], object]


@dataclass(frozen=True)
class Case:
    """A file for one importer. stem: of the file, where its name is what is hostile."""

    group: str
    name: str
    importer: str
    suffix: str
    make: Make
    stem: str = "file"

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}{self.suffix} for {self.importer}"

    def write(self, folder: Path) -> Path:
        """The file in a folder of its own, beside which its canary would lie."""
        path = place(folder, self.importer, self.suffix, self.stem)
        self.make(path, folder / "canary")
        return path
