"""The alert about a record that the sink cannot write, and what no record is to be blamed for."""

from __future__ import annotations

import errno

import pytest

from tailrace.clickhouse.client import QueryFailed
from tailrace.errors import TailraceError
from tailrace.sink.partition import BufferedPartition
from tailrace.sink.plan import InsertPlan
from tailrace.sink.unwritable import may_be_of_a_record, narrow_down, unwritable_alert
from tailrace.streaming.backends.abstract import Committed, Retriable
from tailrace.streaming.crash_history import CrashHistory, pack
from tailrace.streaming.records import Message, PlainMessage
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control


def message(offset: int) -> Message:
    return PlainMessage("credit.requests", 3, offset, b"v", b"k", (), 1_700_000_000_000)


def test_the_alert_is_signed_by_the_sink_and_says_what_to_do() -> None:
    control = Control(MemoryRegistry())
    record = unwritable_alert(control.by("sink"), message(7), "TypeError: no bytes for it")
    written = PlainMessage(record.topic, 0, 0, record.value, record.key, record.headers)
    alert = control.by("rollout").read(written)
    assert (alert["kind"], alert["service"], alert["severity"]) == ("quarantined", "sink", "severe")
    assert alert["source"] == {"topic": "credit.requests", "partition": 3, "offset": 7}
    assert "credit.requests/3/7" in alert["summary"]
    assert "TypeError: no bytes for it" in alert["summary"]
    again = unwritable_alert(control.by("sink"), message(7), "another reason")
    assert control.codec.decode("Alert", again.value)["alert_id"] == alert["alert_id"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TypeError("x"), True),
        (QueryFailed("x", 53, None), True),
        (QueryFailed("x", 497, None), False),
        (OSError(errno.ENOSPC, "x"), False),
        (OSError(errno.EINVAL, "x"), True),
        (MemoryError(), False),
        (TailraceError("x"), False),
        (Retriable("x"), False),
    ],
)
def test_what_may_be_a_records_fault(error: Exception, expected: bool) -> None:
    assert may_be_of_a_record(error) is expected


def test_after_three_deaths_the_plan_is_given_up_and_what_fails_is_halved() -> None:
    plan = InsertPlan(5, 25).pack()
    before = BufferedPartition.of(Committed(5, pack(CrashHistory(2, 24), plan)))
    assert before.plan is not None
    partition = BufferedPartition.of(Committed(5, pack(CrashHistory(3, 24), plan)))
    assert partition.plan is None
    partition.messages = [message(offset) for offset in range(5, 25)]
    partition.at_most = 8
    for size in (4, 2, 1):
        partition.plan, partition.blocks, partition.stored = InsertPlan(5, 5 + 2 * size), {}, {"requests": 4}
        narrow_down(partition, TypeError("x"))
        assert (partition.at_most, partition.unwritable) == (size, None)
        # What a plan that is given up has stored is looked for again, lest it is stored twice.
        assert (partition.plan, partition.blocks, partition.stored) == (None, None, {})
    narrow_down(partition, TypeError("x"))
    assert partition.unwritable == "TypeError: x"
    with pytest.raises(TypeError):
        narrow_down(partition, TypeError("not even as unreadable"))


def test_a_death_more_with_a_single_record_and_it_is_known() -> None:
    assert BufferedPartition.of(Committed(5, pack(CrashHistory(4, 24), ""))).unwritable is None
    assert BufferedPartition.of(Committed(5, pack(CrashHistory(5, 24), ""))).unwritable is not None
