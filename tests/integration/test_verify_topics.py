"""Lanes rebuilt with one event missing, doubled or altered: `verify` reports each, and nothing on a lane
in order.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from tests.support.lane import PARTITIONS, HandmadeLane

from tailrace.kit import dead_letters
from tailrace.kit.connection import Connection
from tailrace.kit.marks import mark
from tailrace.kit.messages import DeadLetter, Record, Source
from tailrace.verify.report import Report
from tailrace.verify.verify import Verification

REQUESTS, REFUSED, IN_FLIGHT = 60, 5, 4


@dataclass(frozen=True)
class Asked:
    """A request as the scorer would have read it."""

    record: Record
    source: Source

    def topic(self) -> str:
        return self.source.topic

    def partition(self) -> int:
        return self.source.partition

    def offset(self) -> int:
        return self.source.offset

    def key(self) -> bytes | None:
        return self.record.key

    def value(self) -> bytes | None:
        return self.record.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return (2, 0)


Change = Callable[[HandmadeLane, list[Record], Sequence[Source]], list[Record]]


def _settle(stack: Connection, change: Change = lambda lane, answers, sources: answers) -> Report:
    """Builds a lane of its own whose answers are changed, and verifies it."""
    name = f"v{uuid.uuid4().hex[:10]}"
    lane = HandmadeLane(stack, name)
    requests = [lane.request(n) for n in range(REQUESTS)]
    sources = lane.write(requests)
    lane.write(mark(lane.lane.requests, p, 1_000) for p in range(PARTITIONS))
    done = sources[:-IN_FLIGHT]
    predictions = [lane.prediction(source) for source in done[REFUSED:]]
    letters = [
        dead_letters.to_record(
            DeadLetter(lane.lane.dead_letters, Asked(r, s), "out-of-range", "too high", "income"), "scorer"
        )
        for r, s in zip(requests[:REFUSED], sources[:REFUSED], strict=True)
    ]
    lane.write(change(lane, predictions + letters, done), transactional_id=f"{name}-scorer")
    lane.write((mark(lane.lane.predictions, p, 1_000) for p in range(PARTITIONS)), f"{name}-scorer")
    lane.commit(f"{name}-scorer", done)
    return Verification(replace(stack, clickhouse=None), name, group=f"{name}-scorer").run()


def _check(report: Report, check: str) -> list[tuple[str, int, int]]:
    assert not report.ok
    assert {p.check for p in report.problems} == {check}
    return [(p.topic, p.partition, p.offset) for p in report.problems]


def test_a_lane_in_order(stack: Connection) -> None:
    report = _settle(stack)
    found = report.as_dict()
    assert report.ok, report.problems
    assert {k: found[k] for k in ("requests", "predictions", "dead_letters", "in_flight")} == {
        "requests": REQUESTS,
        "predictions": REQUESTS - REFUSED - IN_FLIGHT,
        "dead_letters": REFUSED,
        "in_flight": IN_FLIGHT,
    }
    assert (found["lost"], found["duplicated"]) == (0, 0)


def test_a_prediction_is_missing(stack: Connection) -> None:
    gone: list[Source] = []

    def without_one(lane: HandmadeLane, answers: list[Record], sources: Sequence[Source]) -> list[Record]:
        gone.append(sources[REFUSED + 7])
        return answers[:7] + answers[8:]

    report = _settle(stack, without_one)
    assert _check(report, "lost") == [tuple(gone[0])]
    assert report.total("lost") == 1


def test_a_dead_letter_is_missing(stack: Connection) -> None:
    report = _settle(stack, lambda lane, answers, sources: answers[:-1])
    assert len(_check(report, "lost")) == 1


def test_a_prediction_is_there_twice(stack: Connection) -> None:
    report = _settle(stack, lambda lane, answers, sources: [*answers, answers[3]])
    assert len(_check(report, "duplicated")) == 1
    assert report.total("duplicated") == 1


def test_a_request_is_both_answered_and_refused(stack: Connection) -> None:
    report = _settle(stack, lambda lane, answers, sources: [*answers, lane.prediction(sources[0])])
    assert len(_check(report, "duplicated")) == 1


def test_an_answer_to_nothing(stack: Connection) -> None:
    def more(lane: HandmadeLane, answers: list[Record], sources: Sequence[Source]) -> list[Record]:
        return [*answers, lane.prediction(Source(lane.lane.requests, 0, 100_000))]

    assert [offset for *_, offset in _check(_settle(stack, more), "unasked")] == [100_000]


@pytest.mark.parametrize(
    ("altered", "check"),
    [
        ({"version": 2}, "unpublished"),
        ({"artifact_digest": "e" * 64}, "unpublished"),
        ({"contract_digest": "e" * 64}, "unapplied"),
        ({"rollout_revision": 7}, "unrolled"),
        ({"prediction_id": "0" * 32}, "misnamed"),
    ],
)
def test_a_prediction_names_what_does_not_exist(
    stack: Connection, altered: dict[str, object], check: str
) -> None:
    def alter(lane: HandmadeLane, answers: list[Record], sources: Sequence[Source]) -> list[Record]:
        return [lane.prediction(sources[REFUSED], **altered), *answers[1:]]

    assert len(_check(_settle(stack, alter), check)) == 1


def test_a_prediction_that_cannot_be_read(stack: Connection) -> None:
    def garble(lane: HandmadeLane, answers: list[Record], sources: Sequence[Source]) -> list[Record]:
        return [*answers, Record(lane.lane.predictions, b"\x00\x00", b"r")]

    assert len(_check(_settle(stack, garble), "unreadable")) == 1


def test_a_shadow_prediction_twice(stack: Connection) -> None:
    def twice(lane: HandmadeLane, answers: list[Record], sources: Sequence[Source]) -> list[Record]:
        shadow = lane.prediction(sources[9], topic=lane.lane.shadow_predictions)
        return [*answers, shadow, shadow]

    assert len(_check(_settle(stack, twice), "shadow-duplicated")) == 1
