"""Batches that are processed while the ones before them are being committed: what the loop does in one given case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from tests.unit.streaming.test_runner import FIRST, REQUESTS, Bench, Passing, values

from tailrace.errors import Unavailable
from tailrace.streaming.backends.abstract import (
    Abortable,
    Committed,
    Fatal,
    History,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.memory.faults import Fault
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, PausedPartition, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner


class Ahead(Passing):
    """Says of every output that the next batch may be processed, and keeps account of the order of things."""

    def __init__(self, *, control: Sequence[str] = ()) -> None:
        super().__init__(control=control)
        self.story: list[str] = []

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self.story.append(f"{int(batch[0].value() or b'')}...")
        output = super().process(batch, clock)
        output.pipelined = True
        return output

    def committed(self, output: Output) -> None:
        super().committed(output)
        self.story.append(f"...{int(output.records[-1].value or b'')}")

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:
        self.story.append(f"from {min(committed.offset for committed in partitions.values())}")
        return super().assigned(partitions)


def fail(bench: Bench, call: str, *faults: Fault, after: int = 0) -> None:
    """Lets a call fail, from the one after some that do not."""
    left, calls = list(faults), iter(range(after))
    bench.log.hook = lambda _, made: (
        left.pop(0) if made == call and left and next(calls, None) is None else None
    )


def proven() -> tuple[Bench, Ahead, ExactlyOnceRunner]:
    """Of 45 numbers the first ten are committed, so that the partition is known to kill nobody."""
    bench = Bench(messages=45)
    logic = Ahead()
    loop = bench.loop(logic)
    bench.turn(loop, lambda: "...9" in logic.story)
    return bench, logic, loop


def test_a_batch_is_processed_while_the_one_before_it_is_committed_where_another_waits() -> None:
    bench = Bench(messages=45)
    logic = Ahead()
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    # The first one says whether the partition kills its process; after 30 no full batch is left.
    assert logic.story == [
        "from 0", *("0...", "...9"), "10...", "20...", "...19", "30...", "...29", "...39", "40...", "...44",
    ]  # fmt: skip
    assert bench.answers() == values(*range(45))


def test_what_does_not_allow_it_is_committed_before_the_next_batch() -> None:
    bench = Bench(messages=45)
    logic = Passing()
    bench.turn(bench.loop(logic), bench.all_done)
    assert len(logic.committed_outputs) == 5  # and the log would have minded another call in between


@pytest.mark.parametrize("call", ["send_offsets", "commit_transaction"])
def test_nothing_comes_of_a_commit_and_of_what_was_built_on_it(call: str) -> None:
    bench, logic, loop = proven()
    fail(bench, call, Fault(Abortable("not this time")))
    bench.turn(loop, bench.all_done)
    assert logic.story[3:9] == ["10...", "20...", "from 10", "10...", "20...", "...19"]
    assert bench.answers() == values(*range(45))


@pytest.mark.parametrize("applied", [True, False])
def test_what_came_of_an_unknown_commit_decides_where_it_goes_on(applied: bool) -> None:
    bench, logic, loop = proven()
    fail(bench, "commit_transaction", Fault(OutcomeUnknown("cut"), applied=applied))
    bench.turn(loop, bench.all_done)
    at = 20 if applied else 10
    assert logic.story[3:7] == ["10...", "20...", f"from {at}", f"{at}..."]
    assert bench.answers() == values(*range(45))


def test_a_commit_that_is_repeated_and_then_refused_may_have_gone_through() -> None:
    bench, logic, loop = proven()
    fail(
        bench,
        "commit_transaction",
        Fault(Retriable("no answer"), applied=True),
        Fault(Abortable("no such transaction")),
    )
    bench.turn(loop, bench.all_done)
    assert "from 20" in logic.story
    assert bench.answers() == values(*range(45))


def test_what_a_record_is_refused_for_ends_the_process_with_the_commit() -> None:
    bench, _, loop = proven()
    fail(bench, "commit_transaction", Fault(RecordRejected("too large")))
    with pytest.raises(RecordRejected):
        bench.turn(loop, bench.all_done)
    loop.close()
    assert bench.log.committed("group")[FIRST].offset == 10


def test_what_is_away_holds_the_batch_where_the_one_before_it_ended() -> None:
    bench = Bench(messages=45)
    logic = Ahead()
    away = [Unavailable("the registry does not answer")]

    def interfere(batch: Sequence[Message], output: Output) -> None:
        if batch[0].offset() == 20 and away:
            raise away.pop()

    logic.do = interfere
    bench.turn(bench.loop(logic), bench.all_done)
    assert logic.story[3:7] == ["10...", "20...", "...19", "20..."]
    assert bench.answers() == values(*range(45))


def test_a_batch_that_holds_is_committed_before_the_next() -> None:
    bench = Bench(messages=45)
    bench.log.create_topic("rules")
    logic = Ahead(control=["rules"])

    def hold_without_rule(batch: Sequence[Message], output: Output) -> None:
        if not logic.control_seen and batch[-1].offset() >= 25:
            output.records = [r for r in output.records if int(r.value or b"") < 25]
            output.paused[FIRST] = PausedPartition(25, "no rule")

    logic.do = hold_without_rule
    loop = bench.loop(logic)
    bench.turn(loop, lambda: bench.log.committed("group").get(FIRST, Committed(0)).offset == 25)
    bench.log.append("rules", b"a")
    bench.turn(loop, bench.all_done)
    assert logic.story[3:8] == ["10...", "20...", "...19", "...24", "25..."]
    assert bench.answers() == values(*range(45))


def test_control_records_that_cannot_be_taken_up_wait_for_the_commit_too() -> None:
    bench = Bench(messages=45)
    bench.log.create_topic("rules")
    logic = Ahead(control=["rules"])
    loop = bench.loop(logic)
    bench.turn(loop, lambda: "10..." in logic.story)
    logic.control_fails = Unavailable("the registry does not answer")
    bench.log.append("rules", b"a")
    bench.turn(loop, lambda: "...19" in logic.story)
    assert "20..." not in logic.story
    logic.control_fails = None
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(*range(45))


def test_a_partition_of_which_nothing_was_committed_yet_is_announced_after_the_commit() -> None:
    bench = Bench(partitions=2, messages=35)
    for number in range(35, 60):
        bench.append(number, partition=1)
    logic = Ahead()
    bench.turn(bench.loop(logic), bench.all_done)
    assert logic.story.index("...29") < logic.story.index("30...")
    assert bench.answers() == values(*range(60))


def test_a_commit_is_settled_before_partitions_move() -> None:
    bench = Bench(partitions=2, messages=80)
    logics = [Ahead(), Ahead()]
    first = bench.loop(logics[0])
    bench.turn(first, lambda: "10..." in logics[0].story)
    assert bench.log.committed("group")[FIRST].offset == 10
    second = bench.loop(logics[1], number=1)
    second.step()
    first.step()  # gives up one of its partitions; its commit is of a generation that is over
    assert logics[0].story[4:] == ["from 0"]
    assert len(logics[0].owned) == 1
    for loop in (second, first) * 50:
        loop.step()
    assert [len(logic.owned) for logic in logics] == [1, 1]
    assert bench.all_done()
    assert bench.answers() == values(*range(80))


def test_a_topic_that_comes_is_started_after_the_commit() -> None:
    bench = Bench(messages=80)
    logic = Ahead()
    logic.consumed = frozenset({REQUESTS, "later.requests"})
    loop = bench.loop(logic)
    bench.turn(loop, lambda: "10..." in logic.story)
    bench.log.create_topic("later.requests")
    bench.log.pass_time(500)
    bench.turn(loop, lambda: len(logic.owned) == 2)
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(*range(80))


def test_what_an_ending_process_has_begun_to_commit_is_committed() -> None:
    bench = Bench(messages=45)
    logic = Ahead()
    loop = bench.loop(logic)
    bench.turn(loop, lambda: "10..." in logic.story)
    assert bench.log.committed("group")[FIRST].offset == 10
    loop.close()
    assert bench.log.committed("group")[FIRST].offset == 20
    assert logic.story[-1] == "...19"
    assert bench.answers() == values(*range(20))


def test_a_fenced_commit_ends_the_process() -> None:
    bench = Bench(messages=45)
    logic = Ahead()
    old, new = bench.loop(logic), bench.loop(Ahead())
    bench.turn(old, lambda: "10..." in logic.story)
    new.step()
    with pytest.raises(Fatal):
        bench.turn(old, bench.all_done)
    old.close()
    bench.turn(new, bench.all_done)
    assert bench.answers() == values(*range(45))
