"""Requests, labels and actions as JSON objects, for producers without Avro: checked against the contract.

A field that is not there, or null, is null. Numbers are JSON numbers, times are ISO 8601 text (UTC where it
names no offset) or whole milliseconds since 1970. Everything else that is not of the field's type is refused:
nothing is guessed. Whether values are in range and known is judged later, alike for JSON and Avro.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from tailrace.contracts.records.json_values import READERS
from tailrace.contracts.records.schemas import AvroSchema, action_schema, label_schema, request_schema
from tailrace.errors import BadRecord

if TYPE_CHECKING:
    from tailrace.contracts.language.model_contract import ModelContract

Kind = Literal["requests", "labels", "actions"]

_SCHEMAS: dict[Kind, Callable[[ModelContract], AvroSchema]] = {
    "requests": request_schema,
    "labels": label_schema,
    "actions": action_schema,
}
JSON_KINDS: dict[str, Kind] = {kind: kind for kind in _SCHEMAS}
"""The lane topics whose records may be JSON, by suffix."""


class JsonInput:
    """Reads the JSON form of one kind of record of one contract; build it once and keep it."""

    def __init__(self, contract: ModelContract, kind: Kind) -> None:
        fields = avro_schema(contract, kind)["fields"]
        self._readers = {field["name"]: _reader(field["type"]) for field in fields}
        self._empty: dict[str, Any] = dict.fromkeys(self._readers)

    def parse(self, value: bytes) -> dict[str, Any]:
        """The record, with every field of the schema, as the codec would give it.

        Raises:
            BadRecord: ``not-json``, ``not-unicode``, ``duplicate-field``, ``unknown-field``, ``wrong-type``,
                ``not-finite``, ``out-of-range``.
        """
        record = dict(self._empty)
        for name, given in parse_object(value).items():
            reader = self._readers.get(name)
            if reader is None:
                raise BadRecord("unknown-field", f"the contract has no field {name}", name)
            if given is not None:
                record[name] = reader(name, given)
        return record


def avro_schema(contract: ModelContract, kind: Kind) -> AvroSchema:
    """The schema that records of this kind have in Avro, and so their fields in JSON."""
    return _SCHEMAS[kind](contract)


def parse_object(value: bytes) -> dict[str, Any]:
    """A JSON object by the letter of the standard: no NaN, no name twice, UTF-8."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord("not-unicode", f"the JSON is not UTF-8: {error}") from error
    try:
        record = json.loads(text, object_pairs_hook=_object, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise BadRecord("not-json", f"this is no JSON object: {error}") from error
    if not isinstance(record, dict):
        raise BadRecord("not-json", f"this is no JSON object but {type(record).__name__}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise BadRecord("duplicate-field", f"{name} is there twice", name)
        record[name] = value
    return record


def _not_finite(word: str) -> Any:
    raise BadRecord("not-finite", f"{word} is no JSON number")


def _reader(union: Any) -> Callable[[str, Any], Any]:
    kind = next(branch for branch in union if branch != "null")
    return READERS["timestamp" if isinstance(kind, dict) else kind]
