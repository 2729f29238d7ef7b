"""The columnar decoder against fastavro: the same values, and the same verdict on broken bytes."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.contracts import contract

from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.avro.columns.decoder_kernels import is_utf8
from tailrace.avro.strict_types import plain
from tailrace.contracts.records.schemas import prediction_schema

KINDS: dict[str, Any] = {
    "double": st.floats(allow_nan=True, allow_infinity=True),
    "long": st.integers(-(2**63), 2**63 - 1),
    "boolean": st.booleans(),
    "string": st.text(max_size=8),
}
HEADER = b"\x00\x00\x00\x00\x01"


def schema(kinds: list[str]) -> dict[str, Any]:
    fields = [{"name": f"f{i}", "type": ["null", kind], "default": None} for i, kind in enumerate(kinds)]
    return {"type": "record", "name": "Request", "fields": fields}


def encoded(parsed: Any, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, parsed, record)
    return buffer.getvalue()


def by_fastavro(parsed: Any, body: bytes) -> dict[str, Any] | None:
    """The record, or None where the body is not exactly what fastavro would write for one."""
    buffer = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(buffer, parsed, None)
    except Exception:
        return None
    assert isinstance(record, dict)
    return record if buffer.tell() == len(body) and encoded(parsed, record) == body else None


def by_columns(kinds: list[str], bodies: list[bytes]) -> list[dict[str, Any] | None]:
    columns, good, _ = ColumnDecoder(schema(kinds)).decode([HEADER + body for body in bodies])
    records: list[dict[str, Any] | None] = []
    for row in range(len(bodies)):
        if good is not None and not good[row]:
            records.append(None)
            continue
        record: dict[str, Any] = {}
        for (name, column), kind in zip(columns.items(), kinds, strict=True):
            is_present = column.present is None or bool(column.present[row])
            value = column.values[row]
            if not is_present:
                absent = {"string": lambda v: v is None, "long": lambda v: v == 0}.get(kind, np.isnan)
                assert absent(value)
                record[name] = None
            elif kind == "string":
                record[name] = value.decode()
            else:
                record[name] = {"double": float, "long": int, "boolean": lambda v: bool(v == 1.0)}[kind](
                    value
                )
        records.append(record)
    return records


def same(one: Any, other: Any) -> bool:
    """Equal, and NaNs by their bits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and bool(one == other)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=6))
    parsed = fastavro.parse_schema(schema(kinds))
    row = st.fixed_dictionaries({f"f{i}": st.none() | KINDS[kind] for i, kind in enumerate(kinds)})
    bodies = [encoded(parsed, record) for record in draw(st.lists(row, min_size=1, max_size=8))]
    return kinds, bodies


@given(cases())
@settings(max_examples=100)
def test_decodes_what_fastavro_decodes(case: tuple[list[str], list[bytes]]) -> None:
    kinds, bodies = case
    parsed = fastavro.parse_schema(schema(kinds))
    for body, record in zip(bodies, by_columns(kinds, bodies), strict=True):
        assert same(record, by_fastavro(parsed, body))


@given(cases(), st.data())
@settings(max_examples=120)
def test_a_broken_row_is_found_and_harms_no_other(
    case: tuple[list[str], list[bytes]], data: st.DataObject
) -> None:
    kinds, bodies = case
    parsed = fastavro.parse_schema(schema(kinds))
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.integers(0, len(bodies) - 1))
        body = bodies[row]
        at = data.draw(st.integers(0, len(body)))
        change = data.draw(st.sampled_from(["cut", "insert", "replace", "append"]))
        byte = bytes([data.draw(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 255]))])
        bodies[row] = {
            "cut": body[:at],
            "insert": body[:at] + byte + body[at:],
            "replace": body[:at] + byte + body[at + 1 :],
            "append": body + byte * data.draw(st.integers(1, 20)),
        }[change]
    for body, record in zip(bodies, by_columns(kinds, bodies), strict=True):
        assert same(record, by_fastavro(parsed, body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x02",
        b"\x02\xff",
        b"\x02" + b"\xff" * 12,
        b"\x02" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a text of 2**63 - 1 bytes
        b"\x02\x01",  # a text of -1 bytes
        b"\x02\x02\xff",  # not UTF-8
        b"\x04\x02a",  # a branch that is not there
        b"\x02\x82\x00a",  # a length with a byte too many
    ],
)
def test_hostile_text_is_refused(body: bytes) -> None:
    good = b"\x02\x02a"
    assert by_columns(["string"], [good, body, good]) == [{"f0": "a"}, None, {"f0": "a"}]
    assert by_columns(["string"], [body]) == [None]


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_text_is_what_python_takes_for_it() -> None:
    """Each first byte with each edge of what may be second, cut anywhere and with something wrong in it."""
    edges = (0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF)
    tails = (b"", b"\x80", b"\x80\x80", b"\xbf\xbf", b"\x80\x7f", b"\xc0\x80", b"\x80\x80\x80", b"\x80\xc0")
    for first in range(256):
        for data in (bytes([first]), *(bytes([first, edge]) + tail for edge in edges for tail in tails)):
            values = np.frombuffer(data, dtype=np.uint8)
            assert is_utf8(values, 0, len(values)) == is_text(data), data.hex()


@pytest.mark.parametrize(
    ("data", "good"),
    [
        (b"\xed\xa0\x80", False),  # half a pair of surrogates
        (b"\xed\xbf\xbf", False),
        (b"\xed\x9f\xbf", True),
        (b"\xe0\x80\x80", False),  # three bytes where one is enough
        (b"\xe0\x9f\xbf", False),
        (b"\xe0\xa0\x80", True),
        (b"\xf0\x80\x80\x80", False),
        (b"\xf0\x8f\xbf\xbf", False),
        (b"\xf0\x90\x80\x80", True),
        (b"\xf4\x90\x80\x80", False),  # past U+10FFFF
        (b"\xf4\x8f\xbf\xbf", True),
        (b"\xc1\xbf", False),
        (b"\xf5\x80\x80\x80", False),
    ],
)
def test_texts_at_the_edges_of_utf8(data: bytes, good: bool) -> None:
    body = b"\x02" + bytes([2 * len(data)]) + data
    assert by_columns(["string"], [body]) == [{"f0": data.decode()} if good else None]


@pytest.mark.parametrize(("byte", "value"), [(0, False), (1, True), (2, None), (128, None), (255, None)])
def test_a_boolean_is_0_or_1(byte: int, value: bool | None) -> None:
    body = b"\x02" + bytes([byte])
    assert by_columns(["boolean"], [body]) == [None if value is None else {"f0": value}]


ENDING = {
    "type": "record",
    "name": "Ending",
    "fields": [
        {"name": "items", "type": {"type": "array", "items": "long"}},
        {"name": "last", "type": "long"},
    ],
}


@pytest.mark.parametrize(
    ("body", "last"),
    [
        (b"\x02\x0a\x00\x08", 4),
        (b"\x00\x08", 4),
        (b"\x02\x0a\x06\x08", None),  # ends with 3
        (b"\x02\x0a\x01\x08", None),
        (b"\x02\x0a\x02\x0c\x00\x08", None),  # in two blocks: not what the reference writes
        (b"\x01\x02\x0a\x00\x08", None),
    ],
)
def test_an_array_is_one_block_and_ends_with_nothing(body: bytes, last: int | None) -> None:
    columns, good, _ = ColumnDecoder(ENDING, read=("last",)).decode([HEADER + body, HEADER + b"\x00\x02"])
    assert (good is None) == (last is not None)
    if last is not None:
        assert columns["last"].values.tolist() == [last, 1]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rows_that_are_taken_are_there_where_they_were(kind: str) -> None:
    parsed = fastavro.parse_schema(schema([kind]))
    one = {"double": 1.5, "long": 7, "boolean": True, "string": "a"}[kind]
    bodies = [encoded(parsed, {"f0": value}) for value in (one, None, None, one)]
    column = ColumnDecoder(schema([kind])).decode([HEADER + body for body in bodies]).columns["f0"]
    taken = column.take(np.array([3, 1]))
    assert taken.present is not None
    assert taken.present.tolist() == [True, False]
    assert len(taken.values) == 2


def test_a_value_shorter_than_its_header_is_refused() -> None:
    _, good, _ = ColumnDecoder(schema(["long"])).decode([HEADER + b"\x00", HEADER[:3], HEADER + b"\x00"])
    assert good is not None
    assert good.tolist() == [True, False, True]


def test_a_schema_of_other_types_is_refused() -> None:
    for kind in ("bytes", ["null", "long", "string"], {"type": "map", "values": "long"}):
        with pytest.raises(ValueError, match="f0"):
            ColumnDecoder({"fields": [{"name": "f0", "type": kind}]})


# Records within records, arrays, maps: a prediction.

PREDICTION = prediction_schema(contract())
PARSED = fastavro.parse_schema(plain(PREDICTION))
WANTED = ("event_time", "source.offset", "request.income", "request.purpose", "request.employed", "score")
IDENTITY = ("model", "version", "artifact_digest", "contract_digest", "rollout_revision", "runtime", "role")
PARSED_IDENTITY = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Identity",
        "fields": [field for field in PARSED["fields"] if field["name"] in IDENTITY],
    }
)


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of an Avro type."""
    match kind:
        case ["null", of]:
            return st.none() | values_of(of)
        case {"type": "array", "items": of}:
            return st.lists(values_of(of), max_size=3)
        case {"type": "map", "values": of}:
            return st.dictionaries(st.text(max_size=3), values_of(of), max_size=3)
        case {"type": "record", "fields": fields}:
            return st.fixed_dictionaries({f["name"]: values_of(f["type"]) for f in fields})
        case "int":
            return st.integers(-(2**31), 2**31 - 1)
    return KINDS[kind if isinstance(kind, str) else kind["type"]]


def at(record: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        record = record[part]
    return record


def check_predictions(bodies: list[bytes]) -> None:
    """Each row is decoded as by fastavro, or refused where fastavro would not have written it.

    Where only a text that is not asked for is not UTF-8, it is for the decoder to say.
    """
    decoder = ColumnDecoder(PREDICTION, read=WANTED, pieces=IDENTITY)
    by_reference = [by_fastavro(PARSED, body) for body in bodies]
    for _ in range(2):  # the second time pieces are known
        columns, good, pieces = decoder.decode([HEADER + body for body in bodies])
        assert set(columns) == set(WANTED)
        for row, (body, expected) in enumerate(zip(bodies, by_reference, strict=True)):
            if good is not None and not good[row]:
                assert expected is None
                assert pieces.at[row] == -1
                continue
            if expected is None:
                with pytest.raises(UnicodeDecodeError):
                    fastavro.schemaless_reader(io.BytesIO(body), PARSED, None)
                continue
            for name, column in columns.items():
                value, wanted = column.values[row], at(expected, name)
                is_present = column.present is None or bool(column.present[row])
                assert is_present == (wanted is not None)
                if is_present:
                    assert same(value.decode() if isinstance(value, bytes) else type(wanted)(value), wanted)
            identity = {name: expected[name] for name in IDENTITY}
            assert pieces.values[pieces.at[row]] == encoded(PARSED_IDENTITY, identity)


predictions = st.lists(values_of(plain(PREDICTION)), min_size=1, max_size=5)


@given(predictions, st.booleans())
@settings(max_examples=100)
def test_decodes_the_fields_of_predictions_that_are_wanted(
    records: list[dict[str, Any]], alike: bool
) -> None:
    if alike:
        records = [{**record, **{n: records[0][n] for n in IDENTITY}} for record in records]
    check_predictions([encoded(PARSED, record) for record in records])


@given(predictions, st.data())
@settings(max_examples=100)
def test_a_broken_prediction_is_found(records: list[dict[str, Any]], data: st.DataObject) -> None:
    bodies = [encoded(PARSED, record) for record in records]
    row = data.draw(st.integers(0, len(bodies) - 1))
    place = data.draw(st.integers(0, len(bodies[row]) - 1))
    cut = data.draw(st.booleans())
    byte = bytes([data.draw(st.sampled_from([0, 1, 2, 3, 4, 127, 128, 255]))])
    bodies[row] = bodies[row][:place] + (b"" if cut else byte + bodies[row][place + 1 :])
    check_predictions(bodies)


def test_pieces_have_to_follow_one_another() -> None:
    with pytest.raises(ValueError, match="follow"):
        ColumnDecoder(PREDICTION, read=(), pieces=("model", "role"))


def test_an_array_within_a_record_may_be_a_piece() -> None:
    inner = {
        "type": "array",
        "items": {"type": "record", "name": "F", "fields": [{"name": "t", "type": "string"}]},
    }
    nested = {
        "type": "record",
        "name": "Inner",
        "fields": [
            {"name": "before", "type": "long"},
            {"name": "found", "type": inner},
            {"name": "after", "type": "double"},
        ],
    }
    outer = {
        "type": "record",
        "name": "Outer",
        "fields": [{"name": "first", "type": "string"}, {"name": "in", "type": nested}],
    }
    parsed = fastavro.parse_schema(outer)
    lists = [[], [{"t": "a"}], [{"t": "a"}, {"t": "b" * 90}], [], [{"t": "a"}]]
    bodies = [
        encoded(parsed, {"first": "x" * at, "in": {"before": at, "found": items, "after": at / 2}})
        for at, items in enumerate(lists)
    ]
    decoder = ColumnDecoder(outer, read=("in.before", "in.after"), pieces=("in.found",))
    columns, good, pieces = decoder.decode([HEADER + body for body in [*bodies, bodies[1][:-1]]])
    assert good is not None
    assert good.tolist() == [True] * 5 + [False]
    assert columns["in.after"].values[:5].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    of_array = fastavro.parse_schema(inner)
    assert [pieces.values[at] for at in pieces.at[:5]] == [encoded(of_array, items) for items in lists]
    assert pieces.at[5] == -1
    assert len(pieces.values) == 3
