"""History that is read again, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tailrace.errors import Unavailable
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import Bounds
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.restoration import Restoration

A, B = TopicPartition("requests", 0), TopicPartition("requests", 1)
STATE = TopicPartition("state", 0)


class Restored:
    """Takes history; ``more`` says how often it is to be called again with nothing."""

    def __init__(self) -> None:
        self.parts: list[list[bytes | None]] = []
        self.more = 0
        self.fails: list[Exception] = []

    def restore(self, messages: Sequence[Message]) -> bool:
        if self.fails:
            raise self.fails.pop()
        self.parts.append([m.value() for m in messages])
        self.more -= 1
        return self.more >= 0


def begun(records: int, size: int = 1_000) -> tuple[Restoration, Restored]:
    log, logic = MemoryLog(), Restored()
    log.create_topic("state")
    for number in range(records):
        log.append("state", b"%d" % number)
    restoration = Restoration(log.backend(), logic, Bounds(size=size))  # type: ignore[arg-type]
    restoration.add([A, B], {STATE: (0, None)})
    return restoration, logic


def finish(restoration: Restoration) -> None:
    for _ in range(20):
        if restoration.task is None:
            return
        restoration.step(restoration.task)
    raise AssertionError("history does not end")


def test_history_is_handed_over_within_bounds_and_ends() -> None:
    restoration, logic = begun(5, size=2)
    finish(restoration)
    assert logic.parts == [[b"0", b"1"], [b"2", b"3"], [b"4"]]


def test_where_more_is_due_nothing_is_read_until_it_is_done() -> None:
    restoration, logic = begun(2)
    logic.more = 2
    finish(restoration)
    assert logic.parts == [[b"0", b"1"], [], []]


def test_what_could_not_be_taken_is_handed_over_again() -> None:
    restoration, logic = begun(2)
    logic.fails = [Unavailable("the registry does not answer")]
    assert restoration.task is not None
    with pytest.raises(Unavailable):
        restoration.step(restoration.task)
    finish(restoration)
    assert logic.parts == [[b"0", b"1"]]


def test_a_task_is_given_up_with_one_of_its_partitions_and_says_for_which_others_it_was() -> None:
    restoration, _ = begun(2)
    other = TopicPartition("labels", 0)
    restoration.add([other], {STATE: (0, 1)})
    assert restoration.give_up([A]) == {B}
    assert restoration.task is not None
    assert restoration.task.partitions == {other}
    assert restoration.give_up([A, B]) == set()
    assert restoration.end() == [None]
    assert restoration.task is None


def test_progress_says_how_much_was_taken() -> None:
    restoration, _ = begun(2)
    task = restoration.task
    assert task is not None
    assert task.progress() == "reading again what requests/0, requests/1 stand for"
    restoration.step(task)
    assert task.progress().endswith("(records so far: 2)")
