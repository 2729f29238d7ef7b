"""How many of refused records people are told of, and that a restart and another instance tell the same."""

from __future__ import annotations

import json

from tests.unit.rollout.test_rollout_logic import desk

from tailrace.contracts.records import lanes
from tailrace.rollout.refusals import EACH, HOUR_MS, RefusalCount, Refusals
from tailrace.streaming.records import Record

BAD = Record(lanes.CLOCKS, b"rubbish", b"credit")


def told(refusals: Refusals, records: int, at: int = 0) -> list[int]:
    counts = [refusals.count(lanes.CLOCKS, at) for _ in range(records)]
    return [count.records for count in counts if count.has_alert]


def test_each_of_the_first_is_told_and_then_fewer_and_fewer() -> None:
    assert told(Refusals(), 1_000) == [*range(1, EACH + 1), 16, 32, 64, 128, 256, 512]


def test_another_hour_and_another_topic_begin_anew() -> None:
    refusals = Refusals()
    told(refusals, 100)
    assert refusals.count(lanes.ALERTS, 0).records == 1
    assert told(refusals, 3, HOUR_MS) == [1, 2, 3]
    assert refusals.count(lanes.CLOCKS, 0) == RefusalCount(1, 4), "an hour that is past does not come again"


def test_what_was_committed_last_is_taken_up() -> None:
    before, after = Refusals(), Refusals()
    told(before, 12)
    early = before.facts()
    told(before, 2)
    for facts in (before.facts(), early):
        after.restore(json.loads(json.dumps(facts)))
    assert told(after, 3) == [16]


def test_a_flood_of_bad_records_is_no_flood_of_alerts() -> None:
    rollout = desk(1)
    output = rollout.happens(*[BAD] * 500)
    alerts = rollout.alerts(output)
    assert len(alerts) == EACH + 5
    assert "number 256 of its topic within the hour; number 512 is told of next" in alerts[-1]["summary"]
    assert json.loads(output.metadata)["refused"][lanes.CLOCKS][1] == 500
