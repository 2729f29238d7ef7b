"""A record that the sink cannot write: it is looked for once processes have died, and stored as unreadable.

Deaths are counted in the metadata of the committed offset (streaming/crash_history.py). After three the plan is not
repeated: one record is taken, then two, then four; what fails is halved, until one record fails by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from tailrace.alerts.alert import quarantine_alert
from tailrace.clickhouse.client import NOT_OF_A_ROW, QueryFailed
from tailrace.clickhouse.tables import UNREADABLE
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import TailraceError
from tailrace.shortages import shortage_of
from tailrace.sink.partition import BufferedPartition
from tailrace.streaming.backends.abstract import LogError
from tailrace.streaming.records import Message, Record, RecordRef

log = logging.getLogger(__name__)

Report = Callable[[Message, str], None]
"""Tells people of a record that was stored as unreadable, and why. Raises Unavailable where that has to wait."""


def narrow_down(partition: BufferedPartition, error: Exception) -> None:
    """After an error with what the partition is due to insert: takes less the next time, or knows the record.

    Raises:
        Exception: the error, where too few processes have died with it yet, or no record is to be blamed for it.
    """
    if not partition.history.alone or partition.unwritable is not None or not may_be_of_a_record(error):
        raise error
    plan, limit = partition.plan, partition.limit(len(partition.messages))
    taken = [m for m in partition.messages[:limit] if plan is None or m.offset() < plan.end]
    if len(taken) > 1:
        partition.at_most = len(taken) // 2
    else:
        partition.unwritable = f"{type(error).__name__}: {error}"
        log.error(
            "a record is stored as unreadable", extra={"at": str(RecordRef.of(taken[0]))}, exc_info=error
        )
    partition.plan = partition.blocks = None
    partition.stored.clear()  # some of the plan's tables may have their rows by now


def may_be_of_a_record(error: Exception) -> bool:
    """Whether another record might go well: not where rights, a disk or Kafka are wanting."""
    if isinstance(error, QueryFailed):
        return error.code not in NOT_OF_A_ROW
    if isinstance(error, OSError) and shortage_of(error) is not None:
        return False
    return not isinstance(error, TailraceError | LogError | MemoryError)


def unwritable_alert(records: ControlRecords, message: Message, reason: str) -> Record:
    """The alert about a record that was stored as unreadable; the same each time."""
    source = RecordRef.of(message)
    summary = (
        f"sink cannot write {source} into its table and has stored it in {UNREADABLE}, with its bytes: "
        f"{reason}. Correct whoever writes such records; those of code 'unwritable' are in {UNREADABLE}"
    )
    alert = quarantine_alert("sink", message, summary, reason)
    return records.record("Alert", alert, key=source.topic)
