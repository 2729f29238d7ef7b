"""The generated schemas, and what may not happen to them."""

from __future__ import annotations

import json
from typing import Any

import avro.schema
import pytest
from tests.support import avro_oracle as oracle
from tests.support.contracts import CREDIT, contract

from tailrace.avro.codec import Codec
from tailrace.avro.registry import IncompatibleSchema
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.compatibility import breaks
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.contracts.records.json_input import JsonInput
from tailrace.contracts.records.lanes import CONTROL_TOPICS, Lane
from tailrace.contracts.records.schemas import lane_schemas, request_schema, subject
from tailrace.control.registration import incompatibilities, register_schemas
from tailrace.errors import BadRecord
from tailrace.package_data import data_dir
from tailrace.testing.memory_registry import MemoryRegistry

CONTRACT = contract()
SHIPPED = sorted(data_dir("contracts", "models").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_contracts_make_valid_avro(path: Any) -> None:
    for schema in lane_schemas(load_contract(path)).values():
        avro.schema.parse(json.dumps(schema))


def test_a_request_is_flat_and_nullable_in_the_contract_s_order() -> None:
    schema = request_schema(CONTRACT)
    assert (schema["namespace"], schema["name"]) == ("tailrace.credit", "Request")
    assert [f["name"] for f in schema["fields"]] == [
        "request_id", "loan_id", "model", "applied_at",
        "income", "age", "employed", "purpose",
        "amount", "region", "note",
    ]  # fmt: skip
    kinds = {f["name"]: f["type"] for f in schema["fields"]}
    assert all(f["type"][0] == "null" and f["default"] is None for f in schema["fields"])
    assert kinds["applied_at"][1] == {"type": "long", "logicalType": "timestamp-millis"}
    assert {n: k[1] for n, k in kinds.items() if n in CONTRACT.features} == {
        "income": "double", "age": "long", "employed": "boolean", "purpose": "string",
    }  # fmt: skip


def test_the_default_key_is_not_repeated_and_an_integer_key_is_long() -> None:
    default = contract(CREDIT.replace("key: {name: loan_id, type: string}\n", ""))
    assert [f["name"] for f in request_schema(default)["fields"]][:3] == ["request_id", "model", "applied_at"]
    numbered = contract(CREDIT.replace("loan_id, type: string", "loan_id, type: integer"))
    assert request_schema(numbered)["fields"][1]["type"] == ["null", "long"]


def test_a_prediction_nests_the_request_so_that_its_bytes_can_be_copied() -> None:
    registry = MemoryRegistry()
    codec = Codec(registry)
    schemas = lane_schemas(CONTRACT)
    ids = {topic: registry.register(topic, schema) for topic, schema in schemas.items()}
    request = JsonInput(CONTRACT, "requests").parse(b'{"loan_id": "L1", "income": 1.5, "purpose": "car"}')
    body = codec.encode(ids["credit.requests"], request)[5:]
    prediction = {
        "prediction_id": "0" * 32, "request_id": "r", "key": "L1", "event_time": 1, "model": "credit",
        "source": {"topic": "credit.requests", "partition": 0, "offset": 7}, "version": 1,
        "artifact_digest": "a", "contract_digest": "c", "rollout_revision": 1, "runtime": {"numpy": "2"},
        "role": "champion", "arm": None, "served_by": "model", "served_cause": None, "request": request,
        "replaced": [{"field": "income", "value": "1.0", "reason": "missing"}], "score": 0.25,
        "probabilities": {}, "predicted_class": None, "value": None, "action": "approve", "rule": None,
        "action_propensity": 1.0, "arm_propensity": 1.0,
        "guardrails": [{"guard": "domain", "field": None, "detail": "far"}], "guarded": True,
        "coverage": 0.9, "prediction_set": ["false", "true"], "interval_low": None, "interval_high": None,
        "explanation": [{"feature": "income", "contribution": 0.1}], "latency_ms": 1.5,
    }  # fmt: skip
    value = codec.encode(ids["credit.predictions"], prediction)
    assert codec.decode(value).record == prediction
    fields = _without_times(schemas["credit.predictions"])["fields"]
    first = fields[: next(i for i, field in enumerate(fields) if field["name"] == "request")]
    before = {**schemas["credit.predictions"], "fields": first}
    start = 5 + len(oracle.encode(before, {field["name"]: prediction[field["name"]] for field in first}))
    assert value[start : start + len(body)] == body


def _without_times(schema: Any) -> Any:
    return json.loads(json.dumps(schema).replace(', "logicalType": "timestamp-millis"', ""))


def test_subjects_are_the_usual_ones_and_apart_where_a_lane_is_shared() -> None:
    assert subject("credit.requests", "credit", "credit") == "credit.requests-value"
    assert subject("all.requests", "credit-north", "all") == "all.requests-tailrace.credit_north.Request"
    assert subject("all.shadow-predictions", "credit", "all").endswith("-tailrace.credit.Prediction")
    with pytest.raises(KeyError):
        subject("loans.dead-letters", "credit", "loans")


def test_lane_and_control_topics_have_schemas() -> None:
    lane = Lane("credit")
    assert set(lane_schemas(CONTRACT)) == set(lane.topics) - {lane.dead_letters, lane.rekeyed}
    without = {"tailrace.model-chunks", "tailrace.window-state"}
    assert set(CONTROL_RECORDS.values()) == set(CONTROL_TOPICS) - without
    for name in CONTROL_RECORDS:
        avro.schema.parse(json.dumps(control_schema(name)))


HARMLESS = {
    "a feature more": ("  age:", "  tenure: {type: number}\n  age:"),
    "a feature less": ("  employed: {type: boolean}\n", ""),
    "a category more": ("[car, home, other]", "[car, home, other, boat]"),
    "another unit": ("EUR/year", "EUR/month"),
    "another policy": ("score < 0.2", "score < 0.1"),
    "context less": ("  note: {type: string}\n", ""),
}
BREAKING = {
    "a number becomes an integer": ("income: {type: number", "income: {type: integer"),
    "an integer becomes a number": ("age: {type: integer", "age: {type: number"),
    "a boolean becomes text": ("employed: {type: boolean}", "employed: {categories: ['yes', 'no']}"),
    "the key becomes an integer": ("loan_id, type: string", "loan_id, type: integer"),
    "the target becomes a category": (
        "{name: defaulted, type: boolean}",
        "{name: defaulted, categories: ['yes', 'no'], positive: 'yes'}",
    ),
}


@pytest.mark.parametrize("change", HARMLESS)
def test_a_harmless_change_is_taken(change: str) -> None:
    registry = MemoryRegistry()
    register_schemas(registry, CONTRACT)
    changed = contract(CREDIT.replace(*HARMLESS[change]))
    assert incompatibilities(registry, changed) == []
    register_schemas(registry, changed)
    register_schemas(registry, CONTRACT)


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_refused_with_the_reason(change: str) -> None:
    old, new = BREAKING[change]
    assert old in CREDIT
    registry = MemoryRegistry()
    register_schemas(registry, CONTRACT)
    changed = contract(CREDIT.replace(old, new))
    reasons = incompatibilities(registry, changed)
    assert reasons
    assert all("credit." in reason and "cannot read" in reason for reason in reasons)
    with pytest.raises(IncompatibleSchema):
        register_schemas(registry, changed)


def test_a_name_is_never_used_again_for_another_type() -> None:
    registry = MemoryRegistry()
    register_schemas(registry, CONTRACT)
    register_schemas(registry, contract(CREDIT.replace("  employed: {type: boolean}\n", "")))
    again = contract(CREDIT.replace("employed: {type: boolean}", "employed: {type: number}"))
    assert incompatibilities(registry, again), "records of the first version are still there"


def _record(*fields: tuple[Any, ...]) -> str:
    of = [{"name": n, "type": t, **({"default": d[0]} if d else {})} for n, t, *d in fields]
    return json.dumps({"type": "record", "name": "R", "fields": of})


A = _record(("a", "long"))
AB = _record(("a", "long"), ("b", "long"))
AB_DEFAULT = _record(("a", "long"), ("b", "long", 1))


@pytest.mark.parametrize(
    ("level", "new", "earlier", "fits"),
    [
        ("BACKWARD", AB, [A], False),
        ("BACKWARD", AB_DEFAULT, [A], True),
        ("BACKWARD", A, [AB], True),
        ("FORWARD", AB, [A], True),
        ("FORWARD", A, [AB], False),
        ("FORWARD", A, [AB_DEFAULT], True),
        ("FULL", AB, [A], False),
        ("FULL", AB_DEFAULT, [A], True),
        ("BACKWARD", AB, [A, AB_DEFAULT], True),
        ("BACKWARD_TRANSITIVE", AB, [A, AB_DEFAULT], False),
        ("FORWARD", A, [AB, AB_DEFAULT], True),
        ("FORWARD_TRANSITIVE", A, [AB, AB_DEFAULT], False),
        ("FULL_TRANSITIVE", AB_DEFAULT, [A, AB_DEFAULT], True),
        ("FULL_TRANSITIVE", AB, [A, AB_DEFAULT], False),
        ("NONE", _record(("a", "string")), [A], True),
        ("BACKWARD", AB, [], True),
    ],
)  # fmt: skip
def test_levels_mean_what_confluent_says(level: str, new: str, earlier: list[str], fits: bool) -> None:
    assert (breaks(level, new, earlier) == []) is fits


VALUES = {"null": None, "boolean": True, "int": 1, "long": 2, "float": 1.5, "double": 2.5, "string": "x"}
KINDS: list[Any] = [*VALUES, ["null", "long"], ["null", "string"], ["double", "string"]]


@pytest.mark.parametrize("written", KINDS, ids=str)
@pytest.mark.parametrize("read", KINDS, ids=str)
def test_the_checker_and_the_codec_agree_on_what_can_be_read(written: Any, read: Any) -> None:
    writer, reader = (json.loads(_record(("f", kind))) for kind in (written, read))
    registry = MemoryRegistry()
    codec = Codec(registry)
    schema_id = registry.register("s", writer)
    readable = True
    for kind in written if isinstance(written, list) else [written]:
        value = codec.encode(schema_id, {"f": VALUES[kind]})
        try:
            codec.decode(value, reader)
        except BadRecord as error:
            assert error.code == "incompatible-schema"  # noqa: PT017
            readable = False
    assert readable is (breaks("BACKWARD", json.dumps(reader), [json.dumps(writer)]) == [])
