"""``contracts/data/MODEL.yaml``: how the rows of a file become requests and labels of a model.

The contract says what a request is, wherever it comes from; this file says where a data file has it, and how the file
is written. ``tailrace init`` writes it, ``train``, ``replay`` and ``publish`` read it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from ruamel.yaml import YAML

from tailrace.contracts.instants import read_time
from tailrace.contracts.language.durations import Duration
from tailrace.contracts.language.fields import FieldName, Section
from tailrace.contracts.language.model_contract import ModelName
from tailrace.contracts.language.sections import Expression
from tailrace.contracts.language.yaml_file import read_yaml
from tailrace.files.missing import MissingWords
from tailrace.files.numbers import Decimal

_HEADER = (
    "# How rows of a file become requests and labels of this model: for `train`, `replay` and `publish`.\n"
)
OneCharacter = Annotated[str, StringConstraints(min_length=1, max_length=1)]


def _iso(text: str) -> str:
    return datetime.fromtimestamp(read_time(text) / 1000, UTC).isoformat().replace("+00:00", "Z")


class FileFormat(Section):
    """How a CSV file is written. Parquet says so itself."""

    delimiter: OneCharacter = ","
    """What stands between two values."""
    quote: OneCharacter = '"'
    """What stands around a value that holds the delimiter."""
    escape: OneCharacter = '"'
    """What stands before a quote within a value."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Lines before the header."""
    encoding: str = "utf-8"
    """As Python names it."""
    decimal: Decimal = "."
    """What stands before decimals."""
    thousands: str = ""
    """What may stand between groups of three digits; a space stands for every kind of space."""


class DataMapping(Section):
    """Where a file holds what a model's requests and labels need. Column names are the file's."""

    model: ModelName
    target: Expression | None = None
    """The truth, as a SQL expression over the file's columns; None where the file does not know it."""
    time: str | None = None
    """Column of the event time."""
    time_format: str | None = None
    """How that is written: ``iso``, ``epoch-seconds`` and finer, or a pattern such as ``%d.%m.%Y %H:%M``."""
    every_ms: Duration | None = Field(None, alias="every")
    """For a file without times: one row each so many milliseconds, the first at ``start``."""
    start: Annotated[str, AfterValidator(_iso), BeforeValidator(str)] | None = None
    key: str | None = None
    """Column of the contract's key; None where it has the key field's name or the key is the request id."""
    columns: dict[FieldName, str] = Field({})
    """The column of a feature or context field, where the names differ."""
    format: FileFormat | None = None
    """How the file is written; found anew where it is not said."""
    missing: MissingWords = MissingWords()
    """Words that stand for a missing value; what a missing value means is the contract's to say."""

    @model_validator(mode="after")
    def _has_times(self) -> Self:
        if (self.time is None) == (self.every_ms is None):
            raise ValueError("has no single source of event times; write either time: COLUMN or every: 30min")
        if (self.every_ms is None) != (self.start is None):
            raise ValueError("every and start belong together; write both or neither")
        return self


def mapping_path(project: Path, model: str) -> Path:
    return project / "contracts" / "data" / f"{model}.yaml"


def load_mapping(path: Path) -> DataMapping:
    """Reads a mapping.

    Raises:
        ContractError: it is not valid; names line and field.
        TailraceError: the file cannot be read.
    """
    return read_yaml(path).parse(DataMapping)


def find_mapping(project: Path, model: str) -> DataMapping | None:
    """The project's mapping for a model; None where it has none and the names have to fit as they are."""
    path = mapping_path(project, model)
    return load_mapping(path) if path.exists() else None


def save_mapping(mapping: DataMapping, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEADER)
        data = mapping.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        yaml = YAML(typ="rt")
        yaml.width = 4_000  # a text that is folded at a space does not always come back as it was
        yaml.dump(data, file)
