"""Writes the types of the records in schemas/avro: ``python -m tools.record_types``, which `make pages` runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "schemas/avro"
TYPES = ROOT / "services/tailrace/contracts/records/record_types.py"
_PRIMITIVES = {
    "null": "None",
    "boolean": "bool",
    "int": "int",
    "long": "int",
    "float": "float",
    "double": "float",
    "bytes": "bytes",
    "string": "str",
}
_HEAD = '''"""The records of schemas/avro as Python reads and writes them. `make pages` makes this file of the schemas.

A time is an int, in ms since 1970. Who writes a record may leave out a field that has a default; who reads it, has all.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict
'''


def source() -> str:
    """The source of the module: a class for each record of each schema, a record's own records before it."""
    classes: dict[str, str] = {}
    for file in sorted(SCHEMAS.glob("*.avsc")):
        for record in _records(json.loads(file.read_text())):
            text = _class(record)
            assert classes.setdefault(record["name"], text) == text, f"{record['name']} has two forms"
    return "\n\n".join([_HEAD, *classes.values()])


def _records(schema: Any) -> Iterator[dict[str, Any]]:
    """The records within a schema, and last itself."""
    match schema:
        case list():
            for member in schema:
                yield from _records(member)
        case {"type": "record", "fields": fields}:
            for field in fields:
                yield from _records(field["type"])
            yield schema
        case {"type": "array", "items": inner} | {"type": "map", "values": inner}:
            yield from _records(inner)


def _class(record: dict[str, Any]) -> str:
    doc = [f'    """{record["doc"]}"""\n'] if len(record.get("doc", "")) in range(1, 100) else []
    fields = [f"    {field['name']}: {_of_field(field)}" for field in record["fields"]]
    return "\n".join([f"class {record['name']}Record(TypedDict):", *doc, *fields]) + "\n"


def _of_field(field: dict[str, Any]) -> str:
    form = _type(field["type"])
    return f"NotRequired[{form}]" if "default" in field else form


def _type(schema: Any) -> str:
    match schema:
        case list():
            return " | ".join(sorted(map(_type, schema), key="None".__eq__))
        case {"type": "record", "name": name}:
            return f"{name}Record"
        case {"type": "array", "items": inner}:
            return f"list[{_type(inner)}]"
        case {"type": "map", "values": inner}:
            return f"dict[str, {_type(inner)}]"
        case {"type": primitive}:
            return _PRIMITIVES[primitive]
        case str():
            return _PRIMITIVES.get(schema) or f"{schema.rpartition('.')[2]}Record"
        case _:
            raise TypeError(f"no type of Python's for {schema}")


if __name__ == "__main__":
    TYPES.write_text(source())
