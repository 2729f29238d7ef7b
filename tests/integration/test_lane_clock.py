"""Who tells a lane the time, on a real broker: the clock service, a replay, and never both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.lane import PARTITIONS, HandmadeLane
from tests.support.waiting import PATIENCE_S

from tailrace.avro.registry import RegistryClient
from tailrace.clock.loop import ClockLoop
from tailrace.clock.silence import SILENT_MS
from tailrace.connection import Connection
from tailrace.errors import UsageError
from tailrace.replay.claim import claimed_lane, clocks, set_clock
from tailrace.runtime.service import Service
from tailrace.settings import Settings
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.records import Message
from tailrace.streaming.time_source import SystemClock
from tailrace.streaming.watermark_records import watermark_time
from tailrace.testing.signed_records import home_with_keys

SPEED = 20


class Fast(SystemClock):
    """Time that passes faster, so that a silence is soon over."""

    def __init__(self) -> None:
        self.began = super().now_ms()

    def now_ms(self) -> int:
        return self.began + SPEED * (super().now_ms() - self.began)


@pytest.fixture
def running(stack: Connection, tmp_path: Path) -> Iterator[ClockLoop]:
    service = Service(
        "clock",
        Settings(home=home_with_keys(tmp_path)),
        stack,
        RegistryClient(stack.registry, stack.registry_auth),
    )
    loop = ClockLoop(service, Fast())
    thread = threading.Thread(target=loop.run)
    thread.start()
    yield loop
    service.stop.set()
    thread.join(20)
    assert not thread.is_alive()


def watermarks(connection: Connection, topics: list[str]) -> dict[tuple[str, int], list[int]]:
    by_partition: dict[tuple[str, int], list[int]] = {}

    def place(message: Message) -> tuple[str, int]:
        return message.topic(), message.partition()

    for message in read_all(connection, topics):
        at = watermark_time(message)
        if at is not None:
            by_partition.setdefault(place(message), []).append(at)
    return by_partition


def test_silent_partitions_of_a_lane_in_wall_time_are_told_the_time_and_no_others(
    stack: Connection, running: ClockLoop
) -> None:
    wall, replayed, without = (HandmadeLane(stack, f"clock-{name}") for name in ("wall", "replayed", "none"))
    began = SystemClock().now_ms()
    set_clock(stack, wall.lane.name, "wall", began)
    set_clock(stack, replayed.lane.name, "replay", 0)
    inputs = [wall.lane.requests, wall.lane.labels, wall.lane.actions]
    deadline = time.monotonic() + PATIENCE_S
    while len(times_of := watermarks(stack, inputs)) < 3 * PARTITIONS or min(map(len, times_of.values())) < 2:
        assert time.monotonic() < deadline, (times_of, running.waiting)
        time.sleep(0.1)
    for times in times_of.values():
        assert times == sorted(set(times))
        assert times[0] >= running._clock.began - SILENT_MS  # type: ignore[attr-defined]
    others = [topic for lane in (replayed, without) for topic in (lane.lane.requests, lane.lane.labels)]
    assert watermarks(stack, others) == {}
    assert running.waiting is None


def test_one_replay_holds_a_lane_until_it_is_over(stack: Connection) -> None:
    first, second = HandmadeLane(stack, "held-1"), HandmadeLane(stack, "held-2")
    with claimed_lane(stack, first.lane.name):
        with pytest.raises(UsageError, match="another replay"), claimed_lane(stack, first.lane.name):
            pass
        with claimed_lane(stack, second.lane.name):
            pass
    with claimed_lane(stack, first.lane.name):
        set_clock(stack, first.lane.name, "replay", 17)
    clock = clocks(stack).current[first.lane.name]
    assert (clock.owner, clock.at) == ("replay", 17)
