"""The examples in contracts/examples: records and bytes, and what is to become of them. See docs/formats.md."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from tests.support import avro_oracle

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.package_data import data_dir

ROOT = data_dir("contracts", "models").parent / "examples"
CONTRACT = load_contract(data_dir("contracts", "models", "credit.yaml"))
SCHEMAS: dict[str, Any] = {
    **lane_schemas(CONTRACT),
    **{topic: control_schema(name) for name, topic in CONTROL_RECORDS.items()},
}


@dataclass(frozen=True)
class Example:
    """One file.

    Attributes:
        topic: of the credit lane, or a control topic.
        record: as decoded; encoded by Apache Avro's implementation.
        json: the JSON form, where it has one.
        raw: bytes as they are; ``{id}`` stands for the topic's schema id.
        of: the schema of another record, to be read as this topic's.
        code, field: what is wrong with a bad one; found in the format, or ``by_contract``.
    """

    name: str
    topic: str
    ok: bool
    record: dict[str, Any] | None
    json: str | None
    raw: str | None
    headers: dict[str, str]
    of: str | None
    code: str | None
    field: str | None
    by_contract: bool

    def avro(self, schema_id: int) -> bytes:
        """The record on the wire, written by the oracle."""
        schema = _plain(SCHEMAS[self.topic])
        return b"\0" + schema_id.to_bytes(4, "big") + avro_oracle.encode(schema, self.record)

    def raw_bytes(self, schema_id: int) -> bytes | None:
        if self.raw is None:
            return None
        return bytes.fromhex(self.raw.replace("{id}", f"{schema_id:08x}"))

    def values(self, schema_id: int) -> list[bytes | None]:
        """Every form in which it is to be fed."""
        forms: list[bytes | None] = []
        if self.record is not None:
            forms.append(self.avro(schema_id))
        if self.json is not None:
            forms.append(self.json.encode())
        if self.record is None and self.json is None and self.of is None:
            forms.append(self.raw_bytes(schema_id))
        return forms


def examples() -> list[Example]:
    return [_read(path) for path in sorted(ROOT.glob("*/*/*.yaml"))]


def _read(path: Path) -> Example:
    fields = dict(YAML(typ="safe").load(path.read_text()))
    assert fields.pop("about"), path
    topic, kind = path.parts[-3:-1]
    topic = topic.replace("lane.", f"{CONTRACT.lane}.")
    record = fields.pop("record", None)
    if record is not None:
        record = {name: _value(SCHEMAS[topic], name, value) for name, value in record.items()}
    example = Example(
        name="/".join(path.parts[-3:]).removesuffix(".yaml"),
        topic=topic,
        ok=kind == "ok",
        record=record,
        json=fields.pop("json", None),
        raw=fields.pop("bytes", None),
        headers=fields.pop("headers", {}),
        of=fields.pop("of", None),
        code=fields.pop("code", None),
        field=fields.pop("field", None),
        by_contract=fields.pop("by", "format") == "contract",
    )
    assert not fields, f"{path}: {fields}"
    assert kind in ("ok", "bad"), path
    assert example.ok == (example.code is None), path
    return example


def _value(schema: Any, name: str, value: Any) -> Any:
    kind = next(field["type"] for field in schema["fields"] if field["name"] == name)
    return base64.b64decode(value) if kind == "bytes" else value


def _plain(schema: Any) -> Any:
    """The schema with times as plain longs, as our records have them."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema
