"""Apache Avro's own Python implementation, as the judge of ours; and schemas and records to judge by."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import avro.io
import avro.schema
from hypothesis import strategies as st

TEXT = st.text(max_size=8)  # hypothesis leaves surrogates out
INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**63), 2**63 - 1)
DOUBLES = st.floats(allow_nan=False)

PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": INTS,
    "long": LONGS,
    "float": st.floats(width=32, allow_nan=False),
    "double": DOUBLES,
    "string": TEXT,
    "bytes": st.binary(max_size=8),
}


def encode(schema: Any, record: Any) -> bytes:
    buffer = io.BytesIO()
    parsed = avro.schema.parse(json.dumps(schema))
    avro.io.DatumWriter(parsed).write(record, avro.io.BinaryEncoder(buffer))
    return buffer.getvalue()


def decode(body: bytes, writer: Any, reader: Any | None = None) -> Any:
    written, read = (avro.schema.parse(json.dumps(s)) for s in (writer, reader or writer))
    return avro.io.DatumReader(written, read).read(avro.io.BinaryDecoder(io.BytesIO(body)))


def schemas_and_values(depth: int = 2) -> st.SearchStrategy[tuple[Any, Any]]:
    """A type and a value of it; types within types down to ``depth``."""
    return _types(depth).map(lambda found: (_named(found[0], itertools.count()), found[1]))


def _named(schema: Any, numbers: itertools.count[int]) -> Any:
    if isinstance(schema, list):
        return [_named(branch, numbers) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    name = {"name": f"N{next(numbers)}"} if schema.get("name") == "unnamed" else {}
    inner = {k: _named(schema[k], numbers) for k in ("items", "values", "type") if k in schema}
    fields = {"fields": [_named(f, numbers) for f in schema["fields"]]} if "fields" in schema else {}
    return {**schema, **name, **inner, **fields}


def _takes_bytes(schema: Any) -> bool:
    if isinstance(schema, dict) and "fields" in schema:
        return any(_takes_bytes(field["type"]) for field in schema["fields"])
    return bool(schema != "null")


@st.composite
def _types(draw: st.DrawFn, depth: int) -> tuple[Any, Any]:
    kinds = [*PRIMITIVES, "optional", "enum", "fixed"] + (["array", "map", "record"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind in PRIMITIVES:
        return kind, draw(PRIMITIVES[kind])
    name = "unnamed"
    if kind == "optional":
        inner = draw(st.sampled_from([k for k in PRIMITIVES if k != "null"]))
        return ["null", inner], draw(st.none() | PRIMITIVES[inner])
    if kind == "enum":
        return {"type": "enum", "name": name, "symbols": ["A", "B"]}, draw(st.sampled_from("AB"))
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": 3}, draw(st.binary(min_size=3, max_size=3))
    inner, value = draw(_types(depth - 1))
    if kind == "array" and _takes_bytes(inner):
        return {"type": "array", "items": inner}, [value] * draw(st.integers(0, 3))
    if kind in ("array", "map"):  # arrays of what takes no bytes are refused on purpose
        return {"type": "map", "values": inner}, dict.fromkeys(draw(st.sets(TEXT, max_size=3)), value)
    field = {"name": "inner", "type": inner}
    return {"type": "record", "name": name, "fields": [field]}, {"inner": value}


@st.composite
def records(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record schema, up to five fields of any type, and a record of it."""
    fields = draw(st.lists(_types(2), min_size=1, max_size=5))
    schema = {
        "type": "record",
        "name": "Generated",
        "namespace": "tests",
        "fields": [{"name": f"f{i}", "type": kind} for i, (kind, _) in enumerate(fields)],
    }
    return _named(schema, itertools.count()), {f"f{i}": value for i, (_, value) in enumerate(fields)}
