"""Formats change by addition: what a later version adds, as a nullable field, those who do not know it pass over."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from tests.support import models
from tests.support.drifting import DriftWorld, draw

from tailrace.avro.codec import Codec
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, ControlCodec, control_schema
from tailrace.contracts.records.schemas import outcome_schema, prediction_schema
from tailrace.models.manifest import Manifest, sha256
from tailrace.models.reference import Reference
from tailrace.signing.canonical import canonical_json
from tailrace.streaming.records import PlainMessage
from tailrace.testing.evaluated_lane import BINARY, MULTICLASS, REGRESSION, EvaluatedLane, written
from tailrace.testing.memory_registry import MemoryRegistry

LATER = {"name": "a_later_field", "type": ["null", "string"], "default": None}


def later(schema: Any) -> Any:
    """The schema with a new field at the end of it and of each record within it."""
    if isinstance(schema, list):
        return [later(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    grown = {key: later(value) for key, value in schema.items()}
    if grown.get("type") == "record":
        grown["fields"] = [*grown["fields"], copy.deepcopy(LATER)]
    return grown


def ended(schema: Any) -> Any:
    """The schema with a new field at its end."""
    return {**schema, "fields": [*schema["fields"], copy.deepcopy(LATER)]}


def example(schema: Any) -> Any:
    """A value of a schema without names."""
    match schema:
        case [first, *_]:
            return example(first)
        case {"type": "record", "fields": fields}:
            return {field["name"]: example(field["type"]) for field in fields}
        case {"type": "array", "items": items}:
            return [example(items)]
        case {"type": "map", "values": values}:
            return {"k": example(values)}
        case {"type": kind}:
            return example(kind)
    return {"null": None, "string": "s", "bytes": b"b", "boolean": True, "double": 1.0}.get(schema, 1)


def grown(value: Any) -> Any:
    """The value with the new field in it and in each record within it that a schema of `later` has."""
    if isinstance(value, list):
        return [grown(each) for each in value]
    if isinstance(value, dict) and value.keys() != {"k"}:
        return {name: grown(each) for name, each in value.items()} | {"a_later_field": "new"}
    return value


@pytest.mark.parametrize("name", sorted(CONTROL_RECORDS))
def test_a_control_record(name: str) -> None:
    registry = MemoryRegistry()
    schema = json.loads(json.dumps(control_schema(name)))
    record = example(schema)
    schema_id = registry.register(f"{CONTROL_RECORDS[name]}-value", later(schema))
    value = Codec(registry).encode(schema_id, grown(record))
    assert ControlCodec(registry).decode(name, value) == record


def extended(data: bytes) -> bytes:
    """JSON with a new field in each of its objects that has named fields."""

    def add(value: Any, inner: bool = True) -> Any:
        if isinstance(value, list):
            return [add(each) for each in value]
        if isinstance(value, dict):
            free = {"metrics", "libraries", "seeds", "impute", "parts", "features", "counts", "background"}
            fields = {name: add(each, name not in free) for name, each in value.items()}
            return {**fields, "a_later_field": None} if inner else fields
        return value

    return canonical_json(add(json.loads(data)))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_package(task: str) -> None:
    package = models.package("linear" if task == "regression" else "logistic", task)
    later_bytes = extended(package.manifest.to_bytes())
    assert later_bytes.count(b"a_later_field") > 5
    read = Manifest.from_bytes(later_bytes)
    assert (read.digest, read.model) == (sha256(later_bytes), package.manifest.model)
    assert read.conformal is not None
    reference = extended(package.parts["reference"])
    assert reference.count(b"a_later_field") > 2
    assert Reference.from_bytes(reference).rows == Reference.from_bytes(package.parts["reference"]).rows


def test_predictions_that_drift_counts() -> None:
    world = DriftWorld()
    rows = draw(20, np.random.default_rng(1))
    world.publish(1, rows)
    grown_id = world.registry.register("later", ended(prediction_schema(world.contract)))
    events = [world.event(row, at) for at, row in enumerate(rows)]
    plain = [world.codec.encode(world.schema_id, event) for event in events]
    new = [world.codec.encode(grown_id, event | {"a_later_field": "new"}) for event in events]

    def counted(values: list[bytes]) -> Any:
        windows = world.windows()
        windows.look_again()
        topic = next(iter(windows.topics() - {"credit.shadow-predictions"}))
        read = windows.read(
            topic, [PlainMessage(topic, 0, at, v, b"l", timestamp_ms=2**41) for at, v in enumerate(values)]
        )
        assert read.bad == {}
        return windows.count(topic, read, read.times - 1)

    assert counted(new) == counted(plain) != []


@pytest.mark.parametrize("text", [BINARY, MULTICLASS, REGRESSION])
def test_outcomes_that_the_evaluator_counts(text: str) -> None:
    lab = EvaluatedLane(text + "\nguardrails: {coverage: 90%}\n")
    schema = outcome_schema(lab.contract)
    nested = schema["fields"][-1]
    assert nested["name"] == "prediction"
    grown_schema = ended(
        {**schema, "fields": [*schema["fields"][:-1], {**nested, "type": ended(nested["type"])}]}
    )
    new_id = lab.registry.register("later", grown_schema)
    outcome = lab.outcome(lab.prediction(), label=None, state="unlabelled")
    later_one = {
        **outcome,
        "prediction": outcome["prediction"] | {"a_later_field": "new"},
        "a_later_field": "new",
    }
    topic = lab.lane.outcomes

    def read(value: bytes) -> Any:
        rows = lab.windows().read(topic, [written(topic, value)])
        assert not rows.bad
        return [(str(part.outcomes), part.plan.contract.digest) for part in rows.data]

    assert read(lab.codec.encode(new_id, later_one)) == read(lab.encode(topic, outcome)) != []
