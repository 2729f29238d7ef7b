"""The JSON form of requests, labels and actions as a JSON Schema: what `json_input` takes, said for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.contracts.records.json_input import Kind, avro_schema

if TYPE_CHECKING:
    from tailrace.contracts.language.model_contract import ModelContract

_INTEGER = {"minimum": -(2**63), "maximum": 2**63 - 1}
_TYPES: dict[str, dict[str, Any]] = {
    "double": {"type": ["number", "null"]},
    "long": {"type": ["integer", "null"], **_INTEGER},
    "boolean": {"type": ["boolean", "null"]},
    "string": {"type": ["string", "null"]},
    "timestamp": {"type": ["string", "integer", "null"], "format": "date-time", **_INTEGER},
}


def json_form(contract: ModelContract, kind: Kind) -> dict[str, Any]:
    """The schema (draft 7, as AsyncAPI wants it) of one kind of record.

    It says what has the right form; ranges and categories are the contract's, and judged alike for JSON and Avro.
    """
    schema = avro_schema(contract, kind)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {field["name"]: _property(field) for field in schema["fields"]},
    }


def _property(field: dict[str, Any]) -> dict[str, Any]:
    kind = field["type"][1]
    description = {"description": field["doc"]} if "doc" in field else {}
    return {**_TYPES["timestamp" if isinstance(kind, dict) else kind], **description}
