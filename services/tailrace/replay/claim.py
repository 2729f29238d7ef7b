"""A replay's hold on its lane: one at a time, and the lane's time is the replay's from now on.

Being the only member of a consumer group is the hold: it ends with the process, whatever ends it.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.state.lane_clocks import LaneClock, LaneClocks, Owner, record_of
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.apply import applied_by
from tailrace.control.deliver import deliver
from tailrace.errors import TailraceError, UsageError
from tailrace.signing.signers import OWNER

_JOIN_S = 15.0
_SESSION_MS = 6_000
_LONGEST_MS = 24 * 3_600_000  # the client hands nothing over that would have to be taken in time


class LaneClaim:
    """Holds a lane while it is open; use it with ``with``.

    Raises:
        UsageError: another replay sends into the lane.
        TailraceError: Kafka does not answer.
    """

    def __init__(self, connection: Connection, lane: str) -> None:
        self._connection, self._lane = connection, lane
        self._group = f"tailrace.replay.{lane}"
        self._consumer: Any = None

    def __enter__(self) -> LaneClaim:
        with AdminClient({**self._connection.kafka, "log_level": 0}) as admin:
            self._only(admin, 0)
            self._join(admin)
        return self

    def _join(self, admin: AdminClient) -> None:
        self._consumer = Consumer(
            {
                **self._connection.kafka,
                "group.id": self._group,
                "enable.auto.commit": False,
                "session.timeout.ms": _SESSION_MS,
                "max.poll.interval.ms": _LONGEST_MS,
                "auto.offset.reset": "latest",
                "log_level": 0,
            }
        )
        try:
            self._consumer.subscribe([lanes.CLOCKS])
            deadline = time.monotonic() + _JOIN_S
            while not self._consumer.assignment():
                if time.monotonic() > deadline:
                    raise self._taken()
                self._consumer.poll(0.05)
            self._only(admin, 1)  # two that began at the same moment both give up
            # Nothing of the topic is wanted: the membership is.
            self._consumer.pause(self._consumer.assignment())
        except BaseException:
            self._consumer.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def _only(self, admin: AdminClient, most: int) -> None:
        try:
            found = admin.describe_consumer_groups([self._group], request_timeout=_JOIN_S)[
                self._group
            ].result()
        except KafkaException as error:
            if error.args[0].name() == "GROUP_ID_NOT_FOUND":
                return
            raise TailraceError(f"Kafka does not say who replays: {error.args[0].str()}") from error
        if len(found.members) > most:
            raise self._taken()

    def _taken(self) -> UsageError:
        return UsageError(
            f"another replay sends into lane {self._lane}: two clocks of one lane would contradict each other. "
            f"Wait for it, or {_SESSION_MS / 1000:.0f} s where it was killed"
        )


def clocks(connection: Connection) -> LaneClocks:
    """Who tells each lane the time."""
    fold = LaneClocks()
    fold_all(connection, fold)
    return fold


def tell(connection: Connection, lane: str, owner: Owner, at: int) -> LaneClock:
    """Says who tells a lane the time from ``at`` on, in ms by that one's clock.

    Raises:
        TailraceError: Kafka does not take it.
    """
    clock = LaneClock(owner, applied_by(), at, clocks(connection).revision(lane) + 1)
    records = ControlRecords.of(connection, OWNER)
    record = records.record("Clock", record_of(lane, clock), key=lane)
    deliver(connection, [record], "the lane's clock", _JOIN_S)
    if clocks(connection).current.get(lane) != clock:
        raise TailraceError(
            f"somebody else told lane {lane} the time at the same moment and was first: try again"
        )
    return clock
