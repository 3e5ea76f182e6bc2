"""What a result was made by: digests of code and of files."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parent
_PACKAGE = _ROOT.name


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str | None:
    """A digest of name, size and time of change of every file below a folder, to notice new ones; None without one.

    Files are not read. As a rule's parameter it reruns the rule when a user's own files have changed.
    """
    if not folder.is_dir():
        return None
    found = []
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    status = entry.stat()
                    name = os.path.relpath(entry.path, folder)
                    found.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def files_digest(paths: Iterable[Path]) -> str:
    """A digest of path, size and time of change of files and folders, absent ones too; none is read."""
    found = []
    for path in sorted(set(paths)):
        if path.is_file():
            status = path.stat()
            found.append(f"{path} {status.st_size} {status.st_mtime_ns}")
        else:
            found.append(f"{path} {folder_digest(path)}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def code_digest(files: Iterable[Path]) -> str:
    """A digest of source files and of every module of this package that they import, directly or not.

    As a rule's parameter it reruns the rule when a module it uses has changed. Imports are read from the source, so
    nothing is executed and nothing heavy is loaded.
    """
    # by name and content, not by path: a workflow that has moved is the same
    parts = sorted(f"{path.name} {file_sha256(path)}" for path in _closure(files))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _closure(files: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    waiting = [path.resolve() for path in files]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting.extend(_imports(path))
    return found


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of this package that one file imports."""
    modules: set[str] = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules.add(node.module)
            modules.update(f"{node.module}.{alias.name}" for alias in node.names)
    paths = (_module_file(module) for module in modules if module.split(".")[0] == _PACKAGE)
    return tuple(sorted({p.resolve() for p in paths if p is not None}))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement, however deep; expressions hold none, and most of a tree is made of them."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            yield child
            yield from _statements(child)


def _module_file(module: str) -> Path | None:
    path = _ROOT.joinpath(*module.split(".")[1:])
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None
