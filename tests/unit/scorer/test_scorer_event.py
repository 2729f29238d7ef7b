"""Prediction events against fastavro: byte for byte what the plain codec writes."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.avro.columns.bytes_column import BytesColumn
from tailrace.avro.columns.splice import Splice
from tailrace.avro.encoding import long, sized
from tailrace.avro.strict_types import plain
from tailrace.contracts.language.guards.guard import Finding
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.schemas import prediction_schema, request_schema
from tailrace.models.guards.prediction_sets import PredictionIntervals, PredictionSets
from tailrace.models.predictions import Predictions
from tailrace.scorer.answers import AnswerIdentity, Choice, Contribution, ScoredAnswers
from tailrace.scorer.rows import Findings, Replaced
from tailrace.scorer.steps.event import encode_events
from tailrace.streaming.ids import id_role, prediction_id
from tailrace.streaming.records import RecordRef

FIELDS = [
    "prediction_id",
    "request_id",
    "key",
    "event_time",
    "source",
    "model",
    "version",
    "artifact_digest",
    "contract_digest",
    "rollout_revision",
    "runtime",
    "role",
    "arm",
    "served_by",
    "served_cause",
    "request",
    "replaced",
    "score",
    "probabilities",
    "predicted_class",
    "value",
    "action",
    "rule",
    "action_propensity",
    "arm_propensity",
    "guardrails",
    "guarded",
    "coverage",
    "prediction_set",
    "interval_low",
    "interval_high",
    "explanation",
    "latency_ms",
]
"""The fields of the prediction schema in the order in which they are written."""

TARGETS = {
    "binary": "{name: bad, type: boolean}",
    "multiclass": "{name: grade, categories: [a, bö, c]}",
    "regression": "{name: loss, type: number}",
}
CLASSES = {"binary": ("false", "true"), "multiclass": ("a", "bö", "c"), "regression": ()}
CONTRACTS = {
    task: load_contract(
        f"{{model: m, owner: {{team: t}}, features: {{x: {{type: number}}, s: {{categories: [a]}}}}, target: {target}}}"
    )
    for task, target in TARGETS.items()
}
REQUESTS = {task: fastavro.parse_schema(plain(request_schema(c))) for task, c in CONTRACTS.items()}
PREDICTIONS = {task: fastavro.parse_schema(plain(prediction_schema(c))) for task, c in CONTRACTS.items()}

TEXT = st.text(max_size=12)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
LONG = st.integers(-(2**63), 2**63 - 1)
OFFSET = st.integers(0, 2**62)
DOUBLE = st.floats(allow_nan=False)
FINDING = st.builds(Finding, TEXT, st.none() | TEXT, TEXT)
CONTRIBUTION = st.builds(Contribution, TEXT, DOUBLE)
REQUEST = st.fixed_dictionaries(
    {
        "request_id": st.none() | TEXT,
        "model": st.none() | TEXT,
        "event_time": st.none() | LONG,
        "x": st.none() | st.floats(),
        "s": st.none() | TEXT,
    }
)


def written(schema: Any, record: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, record)
    return buffer.getvalue()


def outputs(task: str, numbers: list[list[float]]) -> Predictions:
    values = np.array(numbers)
    if task == "regression":
        return Predictions(None, None, values[:, 0], ())
    return Predictions(values, values[:, 1] if task == "binary" else None, None, CLASSES[task])


@st.composite
def noted(draw: st.DrawFn, task: str, rows: int) -> Findings:
    findings = Findings(rows)
    for step in draw(st.lists(st.dictionaries(st.integers(0, rows - 1), FINDING), max_size=3)):
        findings.add(step, draw(st.sampled_from([None, "guarded"])))
    if draw(st.booleans()):
        return findings
    coverage = draw(st.floats(0, 1))
    if task == "regression":
        low, high = (draw(st.lists(DOUBLE, min_size=rows, max_size=rows)) for _ in range(2))
        findings.uncertainty = PredictionIntervals(coverage, np.array(low), np.array(high))
        return findings
    sets = draw(st.lists(st.lists(TEXT, max_size=3).map(tuple), min_size=1, max_size=3))
    which = draw(st.lists(st.integers(0, len(sets) - 1), min_size=rows, max_size=rows))
    findings.uncertainty = PredictionSets(
        coverage, tuple(sets), np.array(which), np.zeros(rows, dtype=np.bool_)
    )
    return findings


@st.composite
def batches(draw: st.DrawFn) -> tuple[str, AnswerIdentity, ScoredAnswers, list[dict[str, Any]]]:
    task = draw(st.sampled_from(sorted(TARGETS)))
    rows = draw(st.integers(1, 4))
    role = draw(st.sampled_from(["champion", "canary", "shadow"]))
    version = draw(st.integers(1, 2**40))
    identity = AnswerIdentity(
        schema_id=draw(st.integers(1, 2**31)),
        topic="m.predictions",
        model=draw(TEXT),
        version=version,
        artifact_digest=draw(DIGEST),
        contract_digest=draw(DIGEST),
        rollout_revision=draw(st.integers(0, 2**40)),
        runtime=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        role=role,
        id_role=id_role(role, version),
        arm_propensity=draw(st.floats(0, 1)),
    )
    width = max(1, len(CLASSES[task]))
    numbers = draw(st.lists(st.lists(DOUBLE, min_size=width, max_size=width), min_size=rows, max_size=rows))
    options = draw(st.lists(st.builds(Choice, TEXT, st.none() | TEXT), min_size=1, max_size=3))
    if task != "regression":
        options.append(Choice(None, None))
    requests = draw(st.lists(REQUEST, min_size=rows, max_size=rows))
    replaced = st.lists(st.builds(Replaced, TEXT, st.none() | TEXT, TEXT), min_size=1, max_size=2)
    texts = st.lists(TEXT.map(str.encode), min_size=rows, max_size=rows)
    answers = ScoredAnswers(
        topic=draw(st.text(max_size=200)),
        partitions=np.array(
            draw(st.lists(st.integers(0, 200), min_size=rows, max_size=rows)), dtype=np.int64
        ),
        offsets=np.array(draw(st.lists(OFFSET, min_size=rows, max_size=rows)), dtype=np.int64),
        request_ids=BytesColumn.of(draw(texts)),
        keys=BytesColumn.of(draw(texts)),
        event_times=np.array(draw(st.lists(LONG, min_size=rows, max_size=rows)), dtype=np.int64),
        bodies=BytesColumn.of([b"\0\0\0\0\1" + written(REQUESTS[task], request) for request in requests]),
        outputs=outputs(task, numbers),
        choices=np.array(
            draw(st.lists(st.integers(0, len(options) - 1), min_size=rows, max_size=rows)), dtype=np.int64
        ),
        options=options,
        latency_ms=draw(DOUBLE),
        replaced=draw(st.dictionaries(st.integers(0, rows - 1), replaced)),
        findings=draw(noted(task, rows)),
        explanations=draw(st.dictionaries(st.integers(0, rows - 1), st.lists(CONTRIBUTION, max_size=2))),
        propensities=draw(
            st.just([]) | st.lists(st.floats(0, 1), min_size=len(options), max_size=len(options))
        ),
    )
    return task, identity, answers, requests


def uncertainty_of(notes: Findings, row: int) -> dict[str, Any]:
    match notes.uncertainty:
        case None:
            return {}
        case PredictionSets(coverage, sets, which):
            return {"coverage": coverage, "prediction_set": list(sets[which[row]])}
        case PredictionIntervals(coverage, low, high):
            return {"coverage": coverage, "interval_low": low[row], "interval_high": high[row]}


def expected(
    task: str, of: AnswerIdentity, answers: ScoredAnswers, request: dict[str, Any], row: int
) -> dict[str, Any]:
    """The event as a record, put together the plain way."""
    source = RecordRef(answers.topic, int(answers.partitions[row]), int(answers.offsets[row]))
    choice = answers.options[int(answers.choices[row])]
    numbers = answers.outputs
    probabilities, predicted = None, None
    if numbers.probabilities is not None:
        probabilities = [float(p) for p in numbers.probabilities[row]]
        predicted = CLASSES[task][probabilities.index(max(probabilities))]
    return {
        "prediction_id": prediction_id(of.role, source, of.version),
        "request_id": answers.request_ids[row].decode(),
        "key": answers.keys[row].decode(),
        "event_time": int(answers.event_times[row]),
        "source": source._asdict(),
        "model": of.model,
        "version": of.version,
        "artifact_digest": of.artifact_digest,
        "contract_digest": of.contract_digest,
        "rollout_revision": of.rollout_revision,
        "runtime": dict(of.runtime),
        "role": of.role,
        "arm": None,
        "served_by": "model",
        "served_cause": None,
        "request": request,
        "replaced": [r._asdict() for r in answers.replaced.get(row, ())],
        "score": probabilities[1] if task == "binary" and probabilities else None,
        "probabilities": dict(zip(CLASSES[task], probabilities, strict=True))
        if task == "multiclass" and probabilities
        else {},
        "predicted_class": predicted,
        "value": None if numbers.value is None else float(numbers.value[row]),
        "action": predicted if choice.action is None else choice.action,
        "rule": choice.rule,
        "action_propensity": answers.propensities[int(answers.choices[row])] if answers.propensities else 1.0,
        "arm_propensity": of.arm_propensity,
        "guardrails": [f._asdict() for f in answers.findings.kinds[answers.findings.which[row]]],
        "guarded": "guarded" in answers.findings.flags and bool(answers.findings.flags["guarded"][row]),
        **uncertainty_of(answers.findings, row),
        "explanation": [c._asdict() for c in answers.explanations[row]]
        if row in answers.explanations
        else None,
        "latency_ms": answers.latency_ms,
    }


@given(batches())
@settings(max_examples=80)
def test_an_event_is_what_fastavro_writes(
    case: tuple[str, AnswerIdentity, ScoredAnswers, list[dict[str, Any]]],
) -> None:
    task, identity, answers, requests = case
    records = encode_events(identity, answers)
    assert len(records) == len(requests)
    for row, (record, request) in enumerate(zip(records, requests, strict=True)):
        header = b"\0" + identity.schema_id.to_bytes(4, "big")
        assert record.value == header + written(
            PREDICTIONS[task], expected(task, identity, answers, request, row)
        )
        assert (record.topic, record.key) == (identity.topic, answers.keys[row])


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_the_fields_are_those_of_the_schema(task: str) -> None:
    assert [field["name"] for field in prediction_schema(CONTRACTS[task])["fields"]] == FIELDS


@given(LONG)
def test_numbers_are_zig_zag(number: int) -> None:
    assert long(number) == written("long", number)  # type: ignore[arg-type]


def test_ids_are_texts_whatever_their_length() -> None:
    lengths, offsets = range(200), (0, 9, 10, 99, 2**62, 2**63 - 1)
    leads = [b"l" * length for length in lengths]
    which = np.repeat(np.arange(len(leads)), len(offsets))
    rows = Splice(len(which))
    rows.numbered(leads, which, np.array(offsets * len(leads), dtype=np.int64))
    assert [bytes(row) for row in rows.finish()] == [
        sized(b"l" * length + b"%d" % offset) for length in lengths for offset in offsets
    ]
