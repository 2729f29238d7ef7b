"""The wire format, judged by Apache Avro's own implementation."""

from __future__ import annotations

import copy
import math
import re
import struct
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tests.support import avro_oracle as oracle

from tailrace.avro.codec import Codec, is_json
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, ControlCodec, control_schema
from tailrace.errors import BadRecord, Unavailable
from tailrace.testing.memory_registry import MemoryRegistry

TIME = {"type": "long", "logicalType": "timestamp-millis"}
FLAT = {
    "type": "record",
    "name": "Flat",
    "namespace": "tests",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": ["null", TIME], "default": None},
        {"name": "x", "type": ["null", "double"], "default": None},
        {"name": "n", "type": "long"},
        {"name": "flag", "type": "boolean"},
        {"name": "tags", "type": {"type": "map", "values": "double"}, "default": {}},
    ],
}
RECORD = {"id": "é", "at": 1_700_000_000_123, "x": 0.1, "n": 2**62, "flag": True, "tags": {"a": 1.5}}


def codec_for(*schemas: Any) -> tuple[Codec, MemoryRegistry]:
    registry = MemoryRegistry()
    for number, schema in enumerate(schemas):
        registry.register(f"subject-{number}", schema)
    return Codec(registry), registry


def with_field(name: str, **changes: Any) -> dict[str, Any]:
    schema = copy.deepcopy(FLAT)
    next(f for f in schema["fields"] if f["name"] == name).update(changes)  # type: ignore[attr-defined]
    return schema


def code_of(call: Any, *args: Any) -> tuple[str, str | None]:
    with pytest.raises(BadRecord) as caught:
        call(*args)
    return caught.value.code, caught.value.field


def test_the_wire_format_is_a_zero_the_id_and_the_body() -> None:
    codec, _ = codec_for(FLAT)
    value = codec.encode(1, RECORD)
    assert value[:5] == b"\x00\x00\x00\x00\x01"
    without_time = with_field("at", type=["null", "long"])
    assert value[5:] == oracle.encode(without_time, RECORD)
    assert codec.decode(value) == (1, RECORD)
    assert codec.decode(value, FLAT) == (1, RECORD)


def test_times_are_milliseconds_here_and_times_to_others() -> None:
    codec, _ = codec_for(FLAT)
    seen = oracle.decode(codec.encode(1, RECORD)[5:], FLAT)
    assert seen["at"].isoformat() == "2023-11-14T22:13:20.123000+00:00"


@settings(max_examples=150)
@given(oracle.records())
def test_bytes_and_records_agree_with_the_oracle(generated: tuple[dict[str, Any], dict[str, Any]]) -> None:
    schema, record = generated
    codec, _ = codec_for(schema)
    value = codec.encode(1, record)
    assert value[5:] == oracle.encode(schema, record)
    assert codec.decode(value).record == record == oracle.decode(value[5:], schema)


PROMOTIONS = [("int", "long"), ("int", "double"), ("long", "double"), ("float", "double"), ("long", "long")]


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(PROMOTIONS), st.sampled_from(["kept", "dropped", "added"]), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    st.data(),
)
def test_older_records_are_read_as_the_oracle_reads_them(fields: list[Any], data: st.DataObject) -> None:
    def schema(side: int, absent: str) -> dict[str, Any]:
        kinds = [
            (
                f"f{i}",
                ["null", kinds[side]] if nullable else kinds[side],
                None if nullable else 7.0 if kinds[side] == "double" else 7,
            )
            for i, (kinds, fate, nullable) in enumerate(fields)
            if fate != absent
        ]
        of = [{"name": n, "type": t, "default": default} for n, t, default in kinds]
        return {"type": "record", "name": "R", "fields": of}

    writer, reader = schema(0, absent="added"), schema(1, absent="dropped")
    record = {
        f"f{i}": data.draw(oracle.PRIMITIVES[kinds[0]] | (st.none() if nullable else st.nothing()))
        for i, (kinds, fate, nullable) in enumerate(fields)
        if fate != "added"
    }
    codec, _ = codec_for(writer)
    value = codec.encode(1, record)
    expected = oracle.decode(value[5:], writer, reader)
    for i, ((_, kind), *_) in enumerate(fields):
        # The oracle leaves a whole number as it is, also one that no double is equal to.
        if kind == "double" and expected.get(f"f{i}") is not None:
            expected[f"f{i}"] = float(expected[f"f{i}"])
    assert codec.decode(value, reader).record == expected


def test_what_cannot_be_read_as_expected_is_incompatible() -> None:
    codec, _ = codec_for(FLAT)
    value = codec.encode(1, RECORD)
    for field, kind in {"x": ["null", "string"], "n": "string", "flag": "double"}.items():
        assert code_of(codec.decode, value, with_field(field, type=kind))[0] == "incompatible-schema"
    no_default = copy.deepcopy(FLAT)
    no_default["fields"].append({"name": "new", "type": "long"})  # type: ignore[attr-defined]
    assert code_of(codec.decode, value, no_default)[0] == "incompatible-schema"


def test_microseconds_never_pass_for_milliseconds() -> None:
    micros = with_field("at", type=["null", {"type": "long", "logicalType": "timestamp-micros"}])
    codec, _ = codec_for(micros)
    assert code_of(codec.decode, codec.encode(1, RECORD), FLAT) == ("incompatible-schema", "at")


BAD_VALUES = [
    ("id", 1, "wrong-type"),
    ("id", None, "wrong-type"),
    ("id", b"bytes", "wrong-type"),
    ("id", "half\ud800", "not-unicode"),
    ("at", "2026-01-01", "wrong-type"),
    ("at", 1.5, "wrong-type"),
    ("x", "1.5", "wrong-type"),
    ("x", True, "wrong-type"),
    ("x", 10**400, "out-of-range"),
    ("n", 1.0, "wrong-type"),
    ("n", 1.7, "wrong-type"),
    ("n", True, "wrong-type"),
    ("n", 2**63, "out-of-range"),
    ("n", -(2**63) - 1, "out-of-range"),
    ("n", None, "wrong-type"),
    ("flag", 1, "wrong-type"),
    ("flag", "yes", "wrong-type"),
    ("tags", [], "wrong-type"),
]


@pytest.mark.parametrize(("field", "value", "code"), BAD_VALUES)
def test_a_wrong_value_is_refused_by_name(field: str, value: Any, code: str) -> None:
    codec, _ = codec_for(FLAT)
    assert code_of(codec.encode, 1, {**RECORD, field: value}) == (code, field)


def test_nested_fields_are_named_by_their_path() -> None:
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "inner", "type": inner},
        {"name": "more", "type": {"type": "array", "items": "Inner"}},
        {"name": "either", "type": ["null", "long", "string"]},
    ]}  # fmt: skip
    codec, _ = codec_for(schema)
    good = {"inner": {"n": 1}, "more": [{"n": 2}], "either": "x"}
    assert codec.decode(codec.encode(1, good)).record == good
    assert code_of(codec.encode, 1, {**good, "inner": {"n": "1"}}) == ("wrong-type", "inner.n")
    assert code_of(codec.encode, 1, {**good, "inner": {"n": 2**31}}) == ("out-of-range", "inner.n")
    assert code_of(codec.encode, 1, {**good, "inner": {}}) == ("missing-field", "inner.n")
    assert code_of(codec.encode, 1, {**good, "more": [{"n": 1}, 5]}) == ("wrong-type", "more[1]")
    assert code_of(codec.encode, 1, {**good, "either": 1.5}) == ("wrong-type", "either")
    assert code_of(codec.encode, 1, {**good, "other": 1}) == ("unknown-field", "other")


@settings(max_examples=200)
@given(oracle.schemas_and_values(), oracle.schemas_and_values())
def test_nothing_is_written_otherwise_than_it_was_given(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    schema = {"type": "record", "name": "R", "fields": [{"name": "f", "type": one[0]}]}
    codec, _ = codec_for(schema)
    try:
        value = codec.encode(1, {"f": other[1]})
    except BadRecord as error:
        assert str(error.field).startswith("f")  # noqa: PT017
        return
    value_read = codec.decode(value).record["f"]
    assume("float" not in str(one[0]))  # 32 bits hold less than a Python float
    assert value_read == (float(other[1]) if isinstance(value_read, float) else other[1])


def test_missing_fields_take_their_default_and_must_have_one() -> None:
    codec, _ = codec_for(FLAT)
    short = {"id": "a", "n": 1, "flag": False}
    assert codec.decode(codec.encode(1, short)).record == {**short, "at": None, "x": None, "tags": {}}
    assert code_of(codec.encode, 1, {"id": "a", "n": 1}) == ("missing-field", "flag")


def test_what_is_not_finite_survives_for_others_to_judge() -> None:
    codec, _ = codec_for(FLAT)
    for number in (math.inf, -math.inf):
        assert codec.decode(codec.encode(1, {**RECORD, "x": number})).record["x"] == number
    assert math.isnan(codec.decode(codec.encode(1, {**RECORD, "x": math.nan})).record["x"])


BROKEN = [
    (None, "empty"),
    (b"", "empty"),
    (b"\x01\x00\x00\x00\x01", "wrong-magic"),
    (b"hello", "wrong-magic"),
    (b"[]", "wrong-magic"),
    (b"\x00", "truncated"),
    (b"\x00\x00\x00\x00", "truncated"),
    (b"\x00\x00\x00\x00\x01", "truncated"),
    (b"\x00\x00\x00\x00\x63rest", "unknown-schema"),
    (b"\x00\xff\xff\xff\xffrest", "unknown-schema"),
    # a text of -1 bytes, of half a character, and a union's branch that does not exist
    (b"\x00\x00\x00\x00\x01\x01abc", "truncated"),
    (b"\x00\x00\x00\x00\x01\x02\xff\x00\x00\x00\x00\x00", "corrupt"),
    (b"\x00\x00\x00\x00\x01\x00\x08\x00\x00\x00\x00", "corrupt"),
]


@pytest.mark.parametrize(("value", "code"), BROKEN)
def test_broken_bytes_have_a_code(value: bytes | None, code: str) -> None:
    codec, _ = codec_for(FLAT)
    assert code_of(codec.decode, value) == (code, None)


def test_every_truncation_and_every_addition_is_seen() -> None:
    codec, _ = codec_for(FLAT)
    value = codec.encode(1, RECORD)
    assert {code_of(codec.decode, value[:end])[0] for end in range(1, len(value))} == {"truncated"}
    assert code_of(codec.decode, value + b"\x00")[0] == "trailing-bytes"


def test_a_reason_names_no_address_and_none_of_the_bytes() -> None:
    """A dead letter is a function of the log, and its reason is read by more people than the record is."""
    codec, _ = codec_for(FLAT)
    value = codec.encode(1, RECORD)
    for broken in (*(value[:end] for end in range(5, len(value))), b"\0\0\0\0\1\x12secret\xff\xff\xff\0"):
        with pytest.raises(BadRecord) as caught:
            codec.decode(broken)
        assert not re.search("0x[0-9a-f]{6}|secret", caught.value.reason), caught.value.reason


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"\x00" + b"\xfe" * 9 + b"\x01")
@example(b"\x00\x00\x00" + b"\x80" * 30)
def test_no_bytes_do_worse_than_a_bad_record(body: bytes) -> None:
    codec, _ = codec_for(FLAT)
    try:
        record = codec.decode(struct.pack(">bI", 0, 1) + body, FLAT).record
    except BadRecord as error:
        assert error.code in {"truncated", "corrupt", "trailing-bytes"}  # noqa: PT017
    else:
        assert set(record) == {f["name"] for f in FLAT["fields"]}  # type: ignore[index]


def test_a_registry_that_is_away_is_no_bad_record() -> None:
    codec, registry = codec_for(FLAT)
    value = codec.encode(1, RECORD)
    registry.away = True
    assert codec.decode(value).record == RECORD, "what is known needs no registry"
    with pytest.raises(Unavailable):
        codec.decode(b"\x00\x00\x00\x00\x02rest")
    registry.away = False
    assert code_of(codec.decode, b"\x00\x00\x00\x00\x02rest")[0] == "unknown-schema"
    registry.register("later", FLAT | {"name": "Later"})
    assert codec.decode(b"\x00\x00\x00\x00\x02" + value[5:]).record == RECORD, "unknown is not for ever"


def test_an_unknown_id_is_asked_for_once_in_a_batch() -> None:
    codec, registry = codec_for(FLAT)
    value = b"\x00\x00\x00\x00\x02" + codec.encode(1, RECORD)[5:]
    codec.begin_batch()
    assert code_of(codec.decode, value)[0] == "unknown-schema"
    registry.away = True
    assert code_of(codec.decode, value)[0] == "unknown-schema"
    registry.away = False
    registry.register("later", FLAT | {"name": "Later"})
    codec.begin_batch()
    assert codec.decode(value).record == RECORD


def test_schemas_that_are_no_records_or_no_avro_are_unsupported() -> None:
    codec, registry = codec_for("long")
    assert code_of(codec.decode, b"\x00\x00\x00\x00\x01\x02")[0] == "unsupported-schema"
    registry._texts.append('{"type": "no such type"}')
    assert code_of(codec.decode, b"\x00\x00\x00\x00\x02\x02")[0] == "unsupported-schema"


def _nested(levels: int) -> Any:
    inner: Any = {"type": "record", "name": "N0", "fields": []}
    for level in range(1, levels):
        fields = [{"name": "a", "type": inner}, {"name": "b", "type": f"N{level - 1}"}]
        inner = {"type": "record", "name": f"N{level}", "fields": fields}
    return inner


HARMFUL = {
    "a record that contains itself": (
        {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]},
        b"\x02" * 1_000_000,
    ),
    "an array of nothing": (
        {
            "type": "record",
            "name": "L",
            "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}],
        },
        b"\xfe\xff\xff\xff\xff\xff\xff\xff\x0f\x00",
    ),
    "records without end in no bytes": (_nested(40), b""),
}


@pytest.mark.parametrize("harm", HARMFUL)
def test_schemas_that_could_hurt_their_reader_are_unsupported(harm: str) -> None:
    schema, body = HARMFUL[harm]
    codec, _ = codec_for(schema)
    assert code_of(codec.decode, b"\0\0\0\0\1" + body)[0] == "unsupported-schema"
    assert code_of(codec.copies, 1, FLAT)[0] == "unsupported-schema"


def test_bodies_are_copied_only_where_they_are_the_same_to_the_byte() -> None:
    documented = {**with_field("x", doc="a number"), "doc": "other words"}
    reordered = {**FLAT, "fields": FLAT["fields"][::-1]}  # type: ignore[index]
    widened = with_field("n", type="int")
    micros = with_field("at", type=["null", {"type": "long", "logicalType": "timestamp-micros"}])
    codec, _ = codec_for(FLAT, documented, reordered, widened, micros)
    assert [codec.copies(schema_id, FLAT) for schema_id in range(1, 6)] == [True, True, False, False, False]
    assert codec.decode(codec.encode(2, RECORD), FLAT) == (2, RECORD)
    assert codec.decode(codec.encode(3, RECORD), FLAT) == (3, RECORD)


def _forms(kind: str) -> list[Any]:
    return [kind, {"type": kind}, ["null", kind], [{"type": kind}, "null"]]


@pytest.mark.parametrize(
    ("wrote", "reads", "value", "expected"),
    [
        ("bytes", "string", b"caf\xc3\xa9", "café"),
        ("string", "bytes", "café", b"caf\xc3\xa9"),
        ("int", "long", 7, 7),
        ("int", "double", 7, 7.0),
        ("long", "double", 7, 7.0),
        ("float", "double", 1.5, 1.5),
    ],
)
def test_what_avro_promotes_has_the_readers_type(wrote: str, reads: str, value: Any, expected: Any) -> None:
    for writer in _forms(wrote):
        for reader in _forms(reads):
            for nested in (lambda kind: kind, _listed):
                schemas = [
                    {"type": "record", "name": "R", "fields": [{"name": "a", "type": nested(kind)}]}
                    for kind in (writer, reader)
                ]
                codec, _ = codec_for(schemas[0])
                given, wanted = (value, expected) if nested is not _listed else ([value], [expected])
                taken = codec.decode(codec.encode(1, {"a": given}), schemas[1]).record["a"]
                assert repr(taken) == repr(wanted), (writer, reader)


def _listed(kind: Any) -> Any:
    return {"type": "array", "items": kind}


def test_bytes_that_are_no_text_are_corrupt_for_a_text() -> None:
    codec, _ = codec_for({"type": "record", "name": "R", "fields": [{"name": "a", "type": "bytes"}]})
    reader = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}
    assert code_of(codec.decode, codec.encode(1, {"a": b"\xff"}), reader)[0] == "corrupt"


def test_json_is_told_apart_by_its_first_byte() -> None:
    assert is_json(b'{"a": 1}')
    assert not any(map(is_json, (None, b"", b"[", b"\x00\x00\x00\x00\x01{")))


def test_control_records_go_by_their_schema() -> None:
    registry = MemoryRegistry()
    control = ControlCodec(registry)
    command = {"command_id": "c", "model": "credit", "command": "promote", "by": "ada", "issued_at": 5}
    value = control.encode("Command", command)
    absent = {"version": None, "arms": [], "follows": None, "reason": "", "key_id": None, "signature": None}
    expected = command | absent
    assert control.decode("Command", value) == expected
    assert ControlCodec(registry).encode("Command", command) == value
    assert registry.latest("tailrace.commands-value") is not None
    assert code_of(control.decode, "Rollout", value)[0] == "incompatible-schema"


def test_every_control_schema_has_its_topic() -> None:
    for name in CONTROL_RECORDS:
        assert control_schema(name)["name"] == name  # type: ignore[call-overload,index]
