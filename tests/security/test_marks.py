"""Door: whoever may write to a lane. A watermark record ahead of its append time, or a false one, moves no time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.memory_key_value_store import MemoryKeyValueStore
from tests.support.small_loop import LANE, SmallLoop

from tailrace.contracts.state.contracts import AppliedContract
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition import LanePartition
from tailrace.joiner.partition_state import INPUTS
from tailrace.joiner.step import StepResult
from tailrace.streaming import watermark_records as marks
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import Message, PlainMessage, Record, RecordRef
from tailrace.streaming.watermark_records import (
    watermark_offset,
    watermark_record,
    watermark_stream,
    watermark_time,
)
from tailrace.testing.joined_lane import JoinedLane

MADE = JoinedLane()
NOW, MINUTE, DAY = 1_700_000_000_000, 60_000, 86_400_000
SKEW = 5 * MINUTE
LATENESS = 5_000


def partition(partitions: int = 1) -> LanePartition:
    contract = MADE.contract
    lane = LaneContracts(MADE.lane, MADE.codec)
    applied = AppliedContract(contract.model, 1, contract.digest, contract.resolved_json, "", "", 0)
    lane.take(JoiningPlan(applied, MADE.codec, MADE.registry))
    return LanePartition(lane, 0, partitions, MemoryKeyValueStore(), {name: Committed(0) for name in INPUTS})


def appended(records: Sequence[Record], at: int = NOW, start: int = 0) -> list[Message]:
    return [PlainMessage(r.topic, 0, start + n, r.value, r.key, r.headers, at) for n, r in enumerate(records)]


def take(own: LanePartition, **inputs: list[Message]) -> StepResult:
    result = own.process(inputs, Budget())
    assert result is not None
    own.apply(result)
    return result


@pytest.mark.parametrize("name", ["labels", "actions", "predictions", "shadow-predictions"])
def test_a_mark_of_tomorrow_moves_no_clock_of_the_joiner(name: str) -> None:
    own = partition()
    topic = f"credit.{name}"
    ahead = [watermark_record(topic, 0, NOW + DAY), watermark_record(topic, 0, NOW + SKEW + LATENESS + 1)]
    result = take(own, **{name: appended(ahead)})
    assert [letter.code for letter in result.letters] == ["event-time-ahead"] * 2
    assert result.state.stream_times[name] < 0
    result = take(own, **{name: appended([watermark_record(topic, 0, NOW + SKEW + LATENESS)], start=2)})
    assert result.letters == []
    assert result.state.stream_times[name] == NOW + SKEW + LATENESS


def test_joining_goes_on_after_a_mark_of_tomorrow() -> None:
    own = partition()
    take(own, labels=appended([watermark_record("credit.labels", 0, NOW + DAY)]))
    source = RecordRef("credit.requests", 0, 0)
    predicted = appended([MADE.prediction(source, "r", "k", NOW)])
    label = appended([MADE.label(request_id="r", loan_id="k", at=NOW + 1, bad=True)], start=1)
    later = [
        appended([watermark_record(f"credit.{name}", 0, NOW + 2_000)], start=5)
        for name in ("labels", "actions")
    ]
    take(own, predictions=predicted, labels=label)
    result = take(own, labels=later[0], actions=later[1])
    outcomes = [MADE.outcome(r) for r in result.records if r.value and r.topic == MADE.lane.outcomes]
    assert [(o["state"], o["late"]) for o in outcomes] == [("labelled", False)]


@pytest.mark.parametrize("stream", ["labels/0", "labels/7", "actions/x", "", None, "labels/1 "])
def test_a_forwarded_mark_of_no_other_partition_is_none(stream: str | None) -> None:
    own = partition(2)
    result = take(own, rekeyed=appended([watermark_record("credit.rekeyed", 0, NOW, stream=stream)]))
    assert [letter.code for letter in result.letters] == ["unknown-stream"]
    assert result.state.others == {}


def test_a_forwarded_mark_of_tomorrow_is_none() -> None:
    own = partition(2)
    result = take(
        own, rekeyed=appended([watermark_record("credit.rekeyed", 0, NOW + DAY, stream="labels/1")])
    )
    assert [letter.code for letter in result.letters] == ["event-time-ahead"]
    assert result.state.others == {}


@pytest.mark.parametrize(
    "content", [b"", b"x", b" 5", b"1_0", b"+5", b"9" * 19, b"5" * 9_000, b"\xff", b"5.0", None]
)
def test_what_is_no_decimal_number_is_no_watermark(content: Any) -> None:
    message = PlainMessage("t", 0, 0, None, None, [(marks.HEADER, content), (marks.OFFSET_HEADER, content)])
    assert (watermark_time(message), watermark_offset(message)) == (None, None)
    for name in ("labels", "predictions", "rekeyed"):
        result = take(partition(2), **{name: [message]})
        assert [letter.code for letter in result.letters] == ["empty"]


def test_a_mark_that_says_it_twice_says_nothing() -> None:
    twice = [(marks.HEADER, b"5"), (marks.HEADER, b"6"), (marks.STREAM_HEADER, None)]
    message = PlainMessage("t", 0, 0, None, None, twice)
    assert (watermark_time(message), watermark_stream(message)) == (None, None)


@pytest.mark.parametrize("field", ["time", "partition", "offset"])
def test_a_prediction_of_a_time_or_place_that_cannot_be_is_a_dead_letter(field: str) -> None:
    for hostile in (2**31 - 1, -1) if field == "partition" else (2**62, 2**63 - 1, -(2**63)):
        values = {"time": NOW, "partition": 0, "offset": 0} | {field: hostile}
        source = RecordRef("credit.requests", values["partition"], values["offset"])
        result = take(partition(), predictions=appended([MADE.prediction(source, "r", "k", values["time"])]))
        assert [letter.code for letter in result.letters] == [
            "event-time-ahead" if field == "time" else "wrong-source"
        ]
        assert result.state.sources == {}


def test_marks_of_tomorrow_close_no_window() -> None:
    loop = SmallLoop(1)
    loop.label(loop.ask(30))
    loop.run(8)
    now = loop.log.now_ms
    for topic in (LANE.requests, LANE.predictions, LANE.shadow_predictions, LANE.labels, LANE.actions):
        for number in (0, 1):
            loop.write(watermark_record(topic, number, now + DAY))
    for stream in ("predictions", "shadow-predictions"):
        for number in (0, 1):
            loop.write(watermark_record(LANE.outcomes, number, now + DAY, stream=stream))
    loop.run(8)
    assert not loop.ended
    for topic in ("tailrace.drift-reports", "tailrace.performance-reports"):
        assert loop.log.messages(topic) == []
    codes = {dict(m.headers() or ())["tailrace-code"] for m in loop.log.messages(LANE.dead_letters)}
    assert codes == {b"event-time-ahead"}
