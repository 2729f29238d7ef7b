"""A replay's hold on its lane: one at a time, and the lane's time is the replay's from now on.

Being the only member of a consumer group is the hold: it ends with the process, whatever ends it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

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


@contextmanager
def claimed_lane(connection: Connection, lane: str) -> Iterator[None]:
    """Holds a lane while it is open.

    Raises:
        UsageError: another replay sends into the lane.
        TailraceError: Kafka does not answer.
    """
    options = {
        "group.id": _group(lane),
        "enable.auto.commit": False,
        "session.timeout.ms": _SESSION_MS,
        "max.poll.interval.ms": _LONGEST_MS,
        "auto.offset.reset": "latest",
        "log_level": 0,
    }
    with closing(Consumer({**connection.kafka, **options})) as consumer:
        with AdminClient({**connection.kafka, "log_level": 0}) as admin:
            _require_members(admin, lane, 0)
            consumer.subscribe([lanes.CLOCKS])
            deadline = time.monotonic() + _JOIN_S
            while not consumer.assignment():
                if time.monotonic() > deadline:
                    raise _taken(lane)
                consumer.poll(0.05)
            _require_members(admin, lane, 1)  # two that began at the same moment both give up
            # Nothing of the topic is wanted: the membership is.
            consumer.pause(consumer.assignment())
        yield


def _group(lane: str) -> str:
    return f"tailrace.replay.{lane}"


def _require_members(admin: AdminClient, lane: str, most: int) -> None:
    group = _group(lane)
    try:
        description = admin.describe_consumer_groups([group], request_timeout=_JOIN_S)[group].result()
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return
        raise TailraceError(f"Kafka does not say who replays: {error.args[0].str()}") from error
    if len(description.members) > most:
        raise _taken(lane)


def _taken(lane: str) -> UsageError:
    return UsageError(
        f"another replay sends into lane {lane}: two clocks of one lane would contradict each other. "
        f"Wait for it, or {_SESSION_MS / 1000:.0f} s where it was killed"
    )


def clocks(connection: Connection) -> LaneClocks:
    """Who owns each lane's clock."""
    fold = LaneClocks()
    fold_all(connection, fold)
    return fold


def set_clock(connection: Connection, lane: str, owner: Owner, at: int) -> LaneClock:
    """Says who owns a lane's clock from ``at`` on, in ms by that one's clock.

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
