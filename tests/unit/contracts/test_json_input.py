"""JSON requests, labels and actions against the contract: what is taken, and why the rest is not."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from tests.support import avro_oracle as oracle
from tests.support.contracts import contract

from tailrace.contracts.records.json_form import json_form
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.schemas import request_schema
from tailrace.errors import BadRecord

CONTRACT = contract()
READER = JsonInput(CONTRACT, "requests")
SCHEMA = request_schema(CONTRACT)
JSON_SCHEMA = Draft7Validator(json_form(CONTRACT, "requests"))
NOTHING = {field["name"]: None for field in SCHEMA["fields"]}

NUMBERS = ["income", "amount"]
INTEGERS = ["age", "applied_at"]
TEXTS = ["request_id", "loan_id", "model", "purpose", "region", "note"]
VALUES = {
    **dict.fromkeys(NUMBERS, oracle.DOUBLES.filter(math.isfinite)),
    **dict.fromkeys(INTEGERS, oracle.LONGS),
    **dict.fromkeys(TEXTS, st.text(max_size=10)),
    "employed": st.booleans(),
}


def parse(text: str | bytes) -> dict[str, Any]:
    return READER.parse(text.encode() if isinstance(text, str) else text)


def code_of(text: str | bytes) -> tuple[str, str | None]:
    with pytest.raises(BadRecord) as caught:
        parse(text)
    return caught.value.code, caught.value.field


def test_every_field_is_covered_here() -> None:
    assert set(VALUES) == set(NOTHING)


@settings(max_examples=200)
@given(st.fixed_dictionaries({}, optional={name: st.none() | of for name, of in VALUES.items()}))
def test_what_fits_the_contract_comes_out_as_it_went_in(record: dict[str, Any]) -> None:
    assert parse(json.dumps(record)) == NOTHING | record
    assert parse(json.dumps(record, ensure_ascii=False, indent=2)) == NOTHING | record


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*VALUES, "other"]), _ANYTHING, max_size=4))
def test_what_is_taken_is_what_was_given_and_is_valid_avro(record: dict[str, Any]) -> None:
    try:
        taken = parse(json.dumps(record))
    except BadRecord:
        return
    assert not math.isnan(taken["income"] or 0)
    given_times = {k: v for k, v in record.items() if k != "applied_at"}
    assert {k: taken[k] for k in given_times} == given_times
    oracle.encode(_without_times(SCHEMA), taken)  # Apache Avro checks types and ranges


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from([*VALUES, "other"]), _ANYTHING, max_size=3))
def test_what_is_taken_is_what_the_published_json_schema_allows(record: dict[str, Any]) -> None:
    assume(not isinstance(record.get("applied_at"), str))  # which texts are times, a schema cannot say
    text = json.dumps(record)
    assume("NaN" not in text and "Infinity" not in text)
    try:
        parse(text)
        taken = True
    except BadRecord:
        taken = False
    assert taken == JSON_SCHEMA.is_valid(record)


def _without_times(schema: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(schema).replace(', "logicalType": "timestamp-millis"', "")
    plain: dict[str, Any] = json.loads(text)
    return plain


@settings(max_examples=200)
@given(st.binary(max_size=30).map(lambda rest: b"{" + rest))
def test_no_bytes_do_worse_than_a_bad_record(value: bytes) -> None:
    try:
        parse(value)
    except BadRecord as error:
        assert error.code and error.reason  # noqa: PT017,PT018


BAD = [
    ("{", "not-json", None),
    ("{}x", "not-json", None),
    ("[1]", "not-json", None),
    ("{'income': 1}", "not-json", None),
    ("[" * 100_000, "not-json", None),
    ('{"income": ' + "[" * 100_000, "not-json", None),
    ('{"income": 1' + "0" * 5000 + "}", "not-json", None),
    (b'{"note": "\xff"}', "not-unicode", None),
    (b"\xef\xbb\xbf{}", "not-json", None),
    ('{"note": "\\ud800"}', "not-unicode", "note"),
    ('{"income": 1, "income": 2}', "duplicate-field", "income"),
    ('{"incom": 1}', "unknown-field", "incom"),
    ('{"incom": null}', "unknown-field", "incom"),
    ('{"defaulted": true}', "unknown-field", "defaulted"),
    ('{"income": NaN}', "not-finite", None),
    ('{"income": Infinity}', "not-finite", None),
    ('{"income": -Infinity}', "not-finite", None),
    ('{"income": 1e999}', "out-of-range", "income"),
    ('{"income": 1' + "0" * 400 + "}", "out-of-range", "income"),
    ('{"income": "1"}', "wrong-type", "income"),
    ('{"income": true}', "wrong-type", "income"),
    ('{"income": {"value": 1}}', "wrong-type", "income"),
    ('{"age": 35.5}', "wrong-type", "age"),
    ('{"age": "35"}', "wrong-type", "age"),
    ('{"age": false}', "wrong-type", "age"),
    ('{"age": 9223372036854775808}', "out-of-range", "age"),
    ('{"age": -9223372036854775809}', "out-of-range", "age"),
    ('{"age": 1e999}', "out-of-range", "age"),
    ('{"age": 1e300}', "out-of-range", "age"),
    ('{"employed": 1}', "wrong-type", "employed"),
    ('{"employed": "true"}', "wrong-type", "employed"),
    ('{"purpose": 1}', "wrong-type", "purpose"),
    ('{"loan_id": 1}', "wrong-type", "loan_id"),
    ('{"applied_at": "yesterday"}', "wrong-type", "applied_at"),
    ('{"applied_at": 1.5}', "wrong-type", "applied_at"),
    ('{"applied_at": "10000-01-01T00:00:00Z"}', "wrong-type", "applied_at"),
]


@pytest.mark.parametrize(("text", "code", "field"), BAD, ids=lambda v: repr(v)[:30])
def test_what_breaks_the_contract_has_a_code(text: str, code: str, field: str | None) -> None:
    assert code_of(text) == (code, field)


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
)
def test_times_are_iso_8601_with_any_offset(when: datetime, minutes: int) -> None:
    offset = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    expected = (when.replace(tzinfo=UTC) - timedelta(minutes=minutes)) - datetime(1970, 1, 1, tzinfo=UTC)
    found = parse(json.dumps({"applied_at": when.isoformat() + offset}))["applied_at"]
    assert found == (expected + timedelta(microseconds=500)) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01", 0),
        ("1970-01-01 00:00:01.5", 1500),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1969-12-31T23:59:59.9996Z", 0),
        ("2025-12-31T23:59:59.9996Z", 1_767_225_600_000),
        ("2025-12-31T23:59:59.99949999999Z", 1_767_225_599_999),
        ("20260301T120000Z", 1_772_366_400_000),
    ],
)
def test_a_time_without_offset_is_utc(text: str, milliseconds: int) -> None:
    assert parse(json.dumps({"applied_at": text}))["applied_at"] == milliseconds


@pytest.mark.usefixtures("far_zone")
def test_so_it_is_on_a_machine_in_another_zone() -> None:
    for text in ("1970-01-01T00:00:01", "1970-01-01T05:30:01+05:30", "1970-01-01T00:00:01Z"):
        assert parse(json.dumps({"applied_at": text}))["applied_at"] == 1_000


def test_whole_floats_are_integers_as_json_has_one_kind_of_number() -> None:
    found = parse('{"age": 35.0, "income": 1, "applied_at": 5.0}')
    assert (found["age"], found["income"], found["applied_at"]) == (35, 1.0, 5)
    assert (type(found["age"]), type(found["income"])) == (int, float)


def test_what_a_bad_record_quotes_is_text_and_short() -> None:
    for name in ("\ud800", "x" * 10_000):
        with pytest.raises(BadRecord) as caught:
            parse(json.dumps({name: 1}))
        assert len((caught.value.field or "").encode()) < 600
        assert len(caught.value.reason.encode()) < 700


def test_labels_and_actions_have_fields_of_their_own() -> None:
    label = JsonInput(CONTRACT, "labels").parse(
        b'{"loan_id": "L1", "defaulted": true, "labelled_by": "desk"}'
    )
    assert (label["loan_id"], label["defaulted"], label["request_id"]) == ("L1", True, None)
    action = JsonInput(CONTRACT, "actions").parse(b'{"request_id": "r1", "action": "approve", "by": "ada"}')
    assert (action["action"], action["by"]) == ("approve", "ada")
    with pytest.raises(BadRecord, match="unknown-field"):
        JsonInput(CONTRACT, "labels").parse(b'{"income": 1}')
