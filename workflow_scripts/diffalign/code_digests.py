"""Digests of the code that a result depends on."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parent
_PACKAGE = _ROOT.name
# modules of records, of which fields and methods count one by one
_RECORDS = ("specs.py", "dataset_specs.py")


def code_digest(files: Iterable[Path]) -> str:
    """A digest of source files and of the code of this package that they use.

    As a parameter of a rule, it reruns the rule after a change of that code. It is computed from syntax trees, so no
    code is executed. It does not depend on comments, docstrings, type annotations and imports for typing.

    Of an imported module, it includes the statements that run on import, and the definitions whose names occur in
    included code of any module. Records of jobs (`specs`, `dataset_specs`) are included by field and method, since
    recipes hold their values. Modules whose names are known only at run time, such as families of models, must be given
    as files.
    """
    parts = sorted({piece.digest for pieces in _used(files).values() for piece in pieces})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def modules_of(files: Iterable[Path]) -> set[Path]:
    """The files whose code `code_digest` includes."""
    return {path for path, pieces in _used(files).items() if pieces}


@dataclass(frozen=True)
class _Piece:
    """A statement of a module. names: identifiers that it binds. mentions: identifiers that occur in it. imports:
    modules of this package that it imports when it runs. always: whether it is included without being mentioned.
    """

    digest: str
    names: frozenset[str]
    mentions: frozenset[str]
    imports: tuple[str, ...]
    always: bool


def _used(files: Iterable[Path]) -> dict[Path, list[_Piece]]:
    """Module -> its included pieces. These files are included as a whole."""
    roots = {path.resolve() for path in files}
    used: dict[Path, list[_Piece]] = {}
    # name -> pieces to include once it is mentioned
    waiting: dict[str, list[tuple[Path, _Piece]]] = {}
    counted: set[tuple[Path, _Piece]] = set()
    mentioned: set[str] = set()
    paths, pieces = list(roots), list[tuple[Path, _Piece]]()
    while paths or pieces:
        if paths:
            path = paths.pop()
            if path in used:
                continue
            used[path] = []
            module = _module(path)
            paths.extend(module.imports)
            for piece in module.pieces:
                if path in roots or piece.always or piece.names & mentioned:
                    pieces.append((path, piece))
                else:
                    for name in piece.names:
                        waiting.setdefault(name, []).append((path, piece))
            continue
        path, piece = pieces.pop()
        if (path, piece) in counted:
            continue
        counted.add((path, piece))
        used[path].append(piece)
        paths.extend(file for name in piece.imports for file in _files_of(name))
        for name in piece.mentions - mentioned:
            mentioned.add(name)
            pieces.extend(waiting.pop(name, ()))
    return used


@dataclass(frozen=True)
class _Module:
    """The imports of a file at import time, and its statements."""

    imports: tuple[Path, ...]
    pieces: tuple[_Piece, ...]


@cache
def _module(path: Path) -> _Module:
    body = _without_docstring(ast.parse(path.read_text(encoding="utf-8")).body)
    of_records = path in [_ROOT / name for name in _RECORDS]
    imports: list[str] = []
    pieces: list[_Piece] = []
    for statement in body:
        if _is_for_typing(statement):
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports.extend(_imported(statement))
            pieces.append(_piece(statement, (alias.asname or alias.name.split(".")[0] for alias in statement.names)))
        elif isinstance(statement, ast.ClassDef) and of_records:
            pieces.extend(_members(statement))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            pieces.append(_piece(statement, [statement.name], always=_registers(statement)))
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            pieces.append(_piece(statement, names))
        else:
            # other statements, such as if and try, run on import
            pieces.append(_piece(statement, [], always=True))
    files = dict.fromkeys(file for name in imports for file in _files_of(name))
    return _Module(tuple(files), tuple(pieces))


def _members(record: ast.ClassDef) -> Iterator[_Piece]:
    """Pieces of a record: the class without its body, then every field and method."""
    bare = ast.ClassDef(record.name, record.bases, record.keywords, [ast.Pass()], record.decorator_list)
    yield _piece(bare, [record.name])
    for statement in _without_docstring(record.body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names = [statement.target.id]
        elif isinstance(statement, ast.FunctionDef):
            names = [record.name if statement.name.startswith("__") else statement.name]
        else:
            names = [record.name]
        yield _piece(statement, names, of=record.name)


def _piece(statement: ast.stmt, names: Iterable[str], always: bool = False, of: str = "") -> _Piece:
    parts: list[str] = [of]
    mentions: set[str] = set()
    imports: list[str] = []
    _flatten(statement, parts, mentions, imports)
    bound = frozenset(names)
    digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()
    return _Piece(digest, bound, frozenset(mentions), tuple(dict.fromkeys(imports)), always)


# fields of a tree that do not affect results
_SILENT = {"annotation", "returns", "type_comment", "kind", "ctx", "type_params", "type_ignores"}


def _flatten(node: ast.AST, parts: list[str], mentions: set[str], imports: list[str]) -> None:
    """Append the content of a tree, without docstrings and annotations, and collect its identifiers and imports."""
    parts.append(type(node).__name__)
    if isinstance(node, ast.Import | ast.ImportFrom):
        imports.extend(_imported(node))
    elif isinstance(node, ast.Name):
        mentions.add(node.id)
    elif isinstance(node, ast.Attribute):
        mentions.add(node.attr)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        mentions.add(node.value)
    elif isinstance(node, ast.alias):
        mentions.add(node.name.rpartition(".")[2])
    elif isinstance(node, ast.keyword) and node.arg:
        mentions.add(node.arg)
    for field in node._fields:
        value = getattr(node, field, None)
        if field in _SILENT:
            continue
        if isinstance(value, ast.AST):
            _flatten(value, parts, mentions, imports)
        elif isinstance(value, list):
            parts.append("[")
            for each in _without_docstring(value) if field == "body" and _has_docstring(node) else value:
                if not isinstance(each, ast.AST):
                    parts.append(repr(each))
                elif not _is_for_typing(each):
                    _flatten(each, parts, mentions, imports)
            parts.append("]")
        else:
            parts.append(repr(value))


def _has_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module)


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body


def _is_for_typing(node: ast.AST) -> bool:
    """Whether this is ``if TYPE_CHECKING:`` without an else."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
        and not node.orelse
    )


# decorators that do not register the definition
_PURE = {"cache", "cached_property", "contextmanager", "dataclass", "lru_cache", "njit", "overload", "total_ordering"}


def _registers(definition: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether a decorator may register a definition, which then has an effect without being mentioned."""
    for decorator in definition.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in _PURE:
            return True
    return False


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Dotted names of this package in an import: of modules or of their members."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        module = statement.module or ""
        names = [module, *(f"{module}.{alias.name}" for alias in statement.names)]
    yield from (name for name in names if name.split(".")[0] == _PACKAGE and not getattr(statement, "level", 0))


@cache
def _files_of(name: str) -> tuple[Path, ...]:
    """The file of a module and the ``__init__`` files of its packages, which run first."""
    steps = name.split(".")[1:]
    files = [_ROOT.joinpath(*steps[:count], "__init__.py") for count in range(len(steps) + 1)]
    if steps:
        files.append(_ROOT.joinpath(*steps).with_suffix(".py"))
    return tuple(path.resolve() for path in files if path.is_file())
