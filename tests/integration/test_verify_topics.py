"""Lanes rebuilt with one event missing, doubled or altered: `verify` reports each, and nothing on a lane
in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.support.lane import PARTITIONS, HandmadeLane

from tailrace.connection import Connection
from tailrace.streaming import dead_letters
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import DeadLetter, PlainMessage, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record
from tailrace.verify.report import VerifyReport
from tailrace.verify.verify import Verification

REQUESTS, REFUSED, IN_FLIGHT = 60, 5, 4


Change = Callable[[HandmadeLane, list[Record], Sequence[RecordRef]], list[Record]]


def _verified(stack: Connection, change: Change = lambda lane, answers, sources: answers) -> VerifyReport:
    """Builds a lane of its own whose answers are changed, and verifies it."""
    name = f"v{uuid.uuid4().hex[:10]}"
    lane = HandmadeLane(stack, name)
    requests = [lane.request(n) for n in range(REQUESTS)]
    sources = lane.write(requests)
    lane.write(watermark_record(lane.lane.requests, p, 1_000) for p in range(PARTITIONS))
    done = sources[:-IN_FLIGHT]
    predictions = [lane.prediction(source) for source in done[REFUSED:]]
    letters = [
        dead_letters.to_record(
            DeadLetter(
                lane.lane.dead_letters, PlainMessage(*s, r.value, r.key), "out-of-range", "too high", "income"
            ),
            "scorer",
        )
        for r, s in zip(requests[:REFUSED], sources[:REFUSED], strict=True)
    ]
    lane.write(change(lane, predictions + letters, done), transactional_id=f"{name}-scorer")
    lane.write(
        (watermark_record(lane.lane.predictions, p, 1_000) for p in range(PARTITIONS)), f"{name}-scorer"
    )
    lane.commit(f"{name}-scorer", done)
    return Verification(replace(stack, clickhouse=None), name, group=f"{name}-scorer").run()


def _problems(report: VerifyReport) -> set[tuple[str, int, int]]:
    assert not report.ok
    return {(p.check, p.partition, p.offset) for p in report.problems}


def test_a_lane_in_order(stack: Connection) -> None:
    report = _verified(stack)
    figures = report.as_dict()
    assert report.ok, report.problems
    assert {k: figures[k] for k in ("requests", "predictions", "dead_letters", "in_flight")} == {
        "requests": REQUESTS,
        "predictions": REQUESTS - REFUSED - IN_FLIGHT,
        "dead_letters": REFUSED,
        "in_flight": IN_FLIGHT,
    }
    assert (figures["lost"], figures["duplicated"]) == (0, 0)


def test_one_prediction_missing(stack: Connection) -> None:
    gone: list[RecordRef] = []

    def change(lane: HandmadeLane, answers: list[Record], sources: Sequence[RecordRef]) -> list[Record]:
        gone.append(sources[REFUSED + 7])
        return answers[:7] + answers[8:]

    report = _verified(stack, change)
    assert _problems(report) == {("lost", gone[0].partition, gone[0].offset)}
    assert (report.total("lost"), report.total("in_flight")) == (1, IN_FLIGHT)


def test_each_kind_of_trouble_is_named_where_it_is(stack: Connection) -> None:
    expected: set[tuple[str, int, int]] = set()

    def change(lane: HandmadeLane, answers: list[Record], sources: Sequence[RecordRef]) -> list[Record]:
        def at(check: str, source: RecordRef) -> None:
            expected.add((check, source.partition, source.offset))

        twice, both, shadowed = sources[REFUSED + 3], sources[0], sources[9]
        nothing = RecordRef(lane.lane.requests, 0, 100_000)
        shadow = lane.prediction(shadowed, topic=lane.lane.shadow_predictions)
        at("lost", sources[REFUSED - 1])
        at("duplicated", twice)
        at("duplicated", both)
        at("unasked", nothing)
        at("shadow-duplicated", shadowed)
        del answers[-1]  # the last dead letter
        return [*answers, answers[3], lane.prediction(both), lane.prediction(nothing), shadow, shadow]

    report = _verified(stack, change)
    assert _problems(report) == expected
    assert (report.total("lost"), report.total("duplicated")) == (1, 2)


def test_predictions_that_name_what_does_not_exist(stack: Connection) -> None:
    altered = {
        "unpublished": {"artifact_digest": "e" * 64},
        "unapplied": {"contract_digest": "e" * 64},
        "unrolled": {"rollout_revision": 7},
        "misnamed": {"prediction_id": "0" * 32},
    }

    def change(lane: HandmadeLane, answers: list[Record], sources: Sequence[RecordRef]) -> list[Record]:
        others = [lane.prediction(s, **c) for s, c in zip(sources[REFUSED:], altered.values(), strict=False)]
        return [*others, *answers[len(others) :], Record(lane.lane.predictions, b"\x00\x00", b"r")]

    report = _verified(stack, change)
    assert sorted(p.check for p in report.problems) == sorted([*altered, "unreadable"])


def test_outcomes_reports_and_runs_are_verified_too(stack: Connection) -> None:
    """A lane with outcomes in order; then one of each kind that is not."""
    name = f"v{uuid.uuid4().hex[:10]}"
    lane = HandmadeLane(stack, name)
    sources = lane.write(lane.request(n) for n in range(12))
    events = [lane.predicted(s, lane.lane.predictions, request_id=f"r{n}") for n, s in enumerate(sources)]
    lane.write(lane.prediction(s, request_id=f"r{n}") for n, s in enumerate(sources))
    labels = lane.write(lane.label(n, n % 2 == 0) for n in range(12))
    lane.commit(name, sources)
    lane.write(
        [
            *(lane.outcome(events[n], labels[n], n % 2 == 0) for n in range(8)),
            *(watermark_record(lane.lane.outcomes, p, 1_000) for p in range(PARTITIONS)),
            lane.control("DriftReport", _report(lane)),
            lane.control("TrainingRun", _run(lane, "planned")),
            lane.control("TrainingRun", _run(lane, "rejected")),
        ]
    )
    without_rows = replace(stack, clickhouse=None)
    report = Verification(without_rows, name, group=name).run()
    assert report.ok, report.problems
    assert report.topics[lane.lane.outcomes].events == 8

    places = lane.write(
        [
            lane.outcome(events[8] | {"score": 0.75}, labels[8], True),
            lane.outcome(events[9], labels[9], True),
            lane.outcome(events[10], RecordRef(lane.lane.labels, 0, 10_000), True),
            lane.outcome(events[0] | {"prediction_id": "0" * 32}, labels[0], True),
            # Not the same to the byte: of copies the first counts, and the others are passed over.
            lane.control("DriftReport", _report(lane) | {"late": 1}),
            lane.control("TrainingRun", _run(lane, "planned") | {"at": 2}),
            lane.prediction(sources[0], lane.lane.shadow_predictions, version=1),
        ]
    )
    report = Verification(without_rows, name, group=name).run()
    checks = (
        "outcome-differs",
        "outcome-mislabel",
        "outcome-without-label",
        "outcome-without-prediction",
        "report-twice",
        "run-ended-twice",
        "unrolled",
    )
    expected = [(check, at.partition, at.offset) for check, at in zip(checks, places, strict=True)]
    problems = [(p.check, p.partition, p.offset) for p in report.problems]
    assert sorted(problems) == sorted([*expected, ("run-planned-twice", *places[5][1:])])


def _report(lane: HandmadeLane) -> dict[str, Any]:
    return {
        "report_id": f"report-{lane.model}", "model": lane.model, "version": 1, "role": "champion",
        "segment": "", "window_start": 0, "window_end": 1, "contract_digest": lane.contract.digest,
        "artifact_digest": lane.digests[1], "rows": 0, "late": 0, "alpha": 0.01, "verdict": "quiet", "tests": [],
    }  # fmt: skip


def _run(lane: HandmadeLane, state: str) -> dict[str, Any]:
    return {
        "run_id": record_id(lane.model), "model": lane.model, "state": state, "at": 1, "trigger": "drift",
        "triggers": [], "changed_at": 0, "window_start": 0, "window_end": 1, "known_before": 1, "offsets": [],
        "labels": 1, "seed": 1, "contract_digest": lane.contract.digest, "templates": [],
    }  # fmt: skip


def _delete(stack: Connection, ends: dict[tuple[str, int], int]) -> None:
    """Deletes what is before these offsets, as retention would."""
    admin = AdminClient(dict(stack.kafka))
    for done in admin.delete_records([TopicPartition(*p, end) for p, end in ends.items()]).values():
        done.result(30)


@pytest.mark.parametrize("cut", ["answers", "requests"])
def test_what_retention_deleted_on_one_side_is_not_missed_on_the_other(stack: Connection, cut: str) -> None:
    name = f"v{uuid.uuid4().hex[:10]}"
    lane = HandmadeLane(stack, name)
    sources: list[RecordRef] = []
    ends: dict[tuple[str, int], int] = {}
    for round_ in range(3):
        asked = lane.write(lane.request(n, partition=n % PARTITIONS) for n in range(12))
        missing = asked[:1] if round_ == 2 else []
        answered = lane.write(
            (lane.prediction(s)._replace(partition=s.partition) for s in asked if s not in missing), name
        )
        if round_ == 0:
            for place in asked if cut == "requests" else answered:
                ends[place.topic, place.partition] = max(ends.get(place[:2], 0), place.offset + 1)
        sources += asked
    lane.commit(name, sources)
    _delete(stack, ends)
    report = Verification(replace(stack, clickhouse=None), name, group=name).run()
    assert _problems(report) == {("lost", sources[24].partition, sources[24].offset)}
    figures = report.as_dict()
    assert figures["requests"] == figures["predictions"] + 1
    assert 12 <= figures["requests"] <= 24
