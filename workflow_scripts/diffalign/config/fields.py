"""Types of keys of the configuration: lists, words and numbers as YAML gives them, with the check of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from diffalign.names import nearest

T = TypeVar("T")


class Section(BaseModel):
    """A mapping of the configuration: its keys with type, default, check and line of documentation.

    A key that it does not list, or a value of another type, is a mistake; 1.0 is no integer and true is no number.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def written(cls) -> tuple[str, ...]:
        """The keys as they are written, in the order in which they are documented."""
        return tuple(field.alias or name for name, field in cls.model_fields.items())

    def plain(self) -> dict[str, Any]:
        """Its keys and values, as parameters of jobs: lists in place of tuples."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def missing(cls, given: dict[str, Any]) -> tuple[str, ...]:  # noqa: ARG003
        """Required keys that an entry leaves out, beyond those without a default."""
        return ()


def mistake(message: str) -> PydanticCustomError:
    """An error of a validator whose text follows the place of the value."""
    return PydanticCustomError("mistake", "{text}", {"text": message})


@dataclass(frozen=True)
class Matching:
    """Text must match a regular expression as a whole; message: what follows the value where it does not."""

    pattern: str
    message: str

    def check(self, value: str) -> str:
        """Raises PydanticCustomError."""
        if not re.fullmatch(self.pattern, value):
            raise mistake(f"{value!r} {self.message}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class OneOf:
    """Text must be one of some words, which another module declares."""

    words: tuple[str, ...]

    def check(self, value: str) -> str:
        """Raises PydanticCustomError that offers the nearest word."""
        if value not in self.words:
            raise mistake(f"'{value}' is not allowed{nearest(value, self.words)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.words)}


class Distinct:
    """No item of a list stands twice."""

    @staticmethod
    def check(value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Raises PydanticCustomError that names the first repetition."""
        for i, item in enumerate(value):
            if item in value[:i]:
                raise mistake(f"{item!r} stands twice")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "uniqueItems": True}


def _tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    raise mistake("is empty; expected: array" if value is None else f"{value!r} is not of type 'array'")


def _exponent(value: Any) -> Any:
    # YAML 1.1 reads 1e-6 as text
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+", value):
        return float(value)
    return value


def _at_home(value: str) -> str:
    if not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise mistake(f"{value!r} begins with ~, but there is no such home") from None


FromList = BeforeValidator(_tuple)
FromExponent = BeforeValidator(_exponent)

Listed = Annotated[tuple[T, ...], FromList]
NonEmpty = Annotated[tuple[T, ...], Field(min_length=1), FromList]
Number = Annotated[float, FromExponent]
Positive = Annotated[float, Field(gt=0), FromExponent]
NonNegative = Annotated[float, Field(ge=0), FromExponent]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
# of a file or folder of the user's; ~ is the home of who calls Snakemake
FilePath = Annotated[str, Field(min_length=1), AfterValidator(_at_home)]
Address = Annotated[str, Matching("https?://.*", "is no address; write https://host/path/file.pt")]
Sha256 = Annotated[str, Matching(r"[0-9a-f]{64}", "is no sha256 of 64 hexadecimal digits")]
Word = Annotated[str, Matching(r"[a-z0-9][a-z0-9_.]*", "may hold only a-z, 0-9, '_' and '.'")]
ModelName = Annotated[
    str,
    Matching(
        r"[a-z0-9]+(\.[a-z0-9]+)*",
        "is no model name: only a-z, 0-9 and '.' ('-' and '_' begin the variant and the layer)",
    ),
]
ConditionName = Annotated[
    str,
    Matching(
        r"clean|equivariance|noise_(0\.(?!000)[0-9]{3}|1\.000)|rotate_(90|180|270)|scale_0\.(?!000)[0-9]{3}",
        "is no condition; write clean, equivariance, noise_0.050 (three decimals, above 0, at most 1), rotate_90, "
        "rotate_180, rotate_270 or scale_0.500 (three decimals, between 0 and 1)",
    ),
]
