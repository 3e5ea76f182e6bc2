"""What published code does beside what a profile does: one file a study, profiles/{study}/parity.yaml.

Every row says a setting of the published code, with its source, and where the checked configuration of the profile has
the same. The table of docs/reproduce.md is written from it, so that it says what the profile really does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from diffalign.config.fields import Matching, NonEmpty, Section, Text
from diffalign.config.study import Study
from diffalign.names import nearest

Source = Annotated[
    str,
    Matching(
        r"https://\S+|[\w./-]+#L[0-9]+(-L[0-9]+)?",
        "is no source; write path/in/the/repository.py#L12, with the line or lines #L12-L20, or an address",
    ),
]
Commit = Annotated[str, Matching("[0-9a-f]{40}", "is no commit of 40 hexadecimal digits")]


class ParityRow(Section):
    """One setting of the published code. Either `here` or `words` says what the profile does."""

    setting: Text = Field(description="What is set.")
    published: Any = Field(description="What the published code has: a value, or words.")
    source: Source = Field(description="Where it says so: file and lines of the repository, or an address.")
    here: Text | None = Field(
        None,
        description=(
            "The place of the value in the checked configuration, such as alignment.preparation.clamp, "
            "models[vavae].posterior or models[sit, repa].noise, where all named must have the same."
        ),
    )
    value: Any = Field(
        None, description="What `here` must be to be the same, where `published` says it in words; null: `published`."
    )
    words: Text | None = Field(None, description="What the profile does, where no key of the configuration says it.")
    checked: Text | None = Field(
        None, description="The test that shows that `words` are the same: tests/test_conditions.py::test_name."
    )
    reason: Text | None = Field(None, description="Why the profile does something else; only where it does.")


class ParityFile(Section):
    """The settings of one published study."""

    repository: Annotated[str, Matching(r"[\w.-]+/[\w.-]+", "is no repository; write owner/name")] = Field(
        description="The published code on GitHub."
    )
    commit: Commit = Field(description="The commit that was read.")
    study: NonEmpty[str] = Field(description="The files of configuration that the profile is, in order.")
    rows: NonEmpty[ParityRow] = Field(description="One row a setting.")


class ParityError(ValueError):
    """A file of settings does not say what the profile does. The message has one line a row."""


def table(file: ParityFile, study: Study, is_test: Callable[[str], bool]) -> str:
    """The rows as a table in Markdown: setting, published, here, same?

    study: the checked configuration of the profile. is_test: whether a test of this name exists. Raises ParityError
    with every row whose difference has no reason, whose reason explains no difference, whose place does not exist, or
    whose words no test shows.
    """
    lines, mistakes = ["| setting | published | here | same? |", "|---|---|---|---|"], []
    for row in file.rows:
        try:
            here, same = _compared(row, study, is_test)
        except ParityError as error:
            mistakes.append(f"{row.setting}: {error}")
            continue
        published = f"{_shown(row.published)} ({_link(file, row.source)})"
        cells = (row.setting, published, here, "yes" if same else f"no: {row.reason}")
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if mistakes:
        raise ParityError("\n".join(mistakes))
    return "\n".join(lines) + "\n"


def _compared(row: ParityRow, study: Study, is_test: Callable[[str], bool]) -> tuple[str, bool]:
    """What the profile does, as text, and whether it is as published."""
    if (row.here is None) == (row.words is None):
        raise ParityError("give one of 'here' and 'words'")
    if row.words is not None:
        if (row.checked is None) == (row.reason is None):
            raise ParityError("words need the test that shows them ('checked'), or the reason why they differ")
        if row.checked is not None and not is_test(row.checked):
            raise ParityError(f"there is no test '{row.checked}'")
        return row.words, row.reason is None
    values = list(dict.fromkeys(map(_shown, _found(study, str(row.here)))))
    same = ", ".join(values) == _shown(row.published if row.value is None else row.value)
    if same and row.reason is not None:
        raise ParityError("is as published, so there is no reason why it should differ")
    if not same and row.reason is None:
        raise ParityError(f"is {', '.join(values)}, not as published, without a reason")
    return ", ".join(values), same


def _found(study: Study, place: str) -> Iterator[Any]:
    """Every value that a place of the configuration means. Raises ParityError where there is none."""
    steps = re.findall(r"\.?([a-z_]+)|\[([^\]]+)\]", place)
    if "".join(f".{key}" if key else f"[{choice}]" for key, choice in steps).lstrip(".") != place:
        raise ParityError(f"'{place}' is no place; write models[vavae].posterior")
    values: list[Any] = [study]
    for key, choice in steps:
        values = [each for value in values for each in (_attribute(value, key) if key else _chosen(value, choice))]
    yield from values


def _attribute(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from _chosen(value, key)
    elif hasattr(value, key):
        yield getattr(value, key)
    else:
        raise ParityError(f"there is no '{key}'{nearest(key, [each for each in dir(value) if each[0] != '_'])}")


def _chosen(value: Any, choice: str) -> Iterator[Any]:
    for word in re.split(r", *", choice):
        if isinstance(value, Mapping) and word in value:
            yield value[word]
        elif isinstance(value, Sequence) and word.isdigit() and int(word) < len(value):
            yield value[int(word)]
        else:
            raise ParityError(f"there is no '{word}'{nearest(word, value if isinstance(value, Mapping) else ())}")


def _shown(value: Any) -> str:
    """A value as the table has it: text as it is, none where it is empty, others as YAML writes them."""
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _link(file: ParityFile, source: str) -> str:
    if source.startswith("https://"):
        return f"[source]({source})"
    path, lines = source.split("#")
    text = f"{path.rsplit('/', 1)[-1]}:{lines.replace('L', '')}"
    return f"[{text}](https://github.com/{file.repository}/blob/{file.commit}/{source})"
