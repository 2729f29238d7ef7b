"""What the exactly-once runner does in one given case; what it survives in all is searched in tests/simulation."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

import pytest
from tests.support.simulation import Crash, drained, quarantine

from tailrace.errors import DiskFailed, StateLost, TailraceError, Unavailable
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.abstract import (
    Abortable,
    Committed,
    Fenced,
    History,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
)
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.faults import Fault
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.bounds import STEP, Bounds
from tailrace.streaming.crash_history import (
    ALONE_AFTER,
    MAX_FACTS_BYTES,
    NO_DEATHS,
    CrashHistory,
    pack,
    unpack,
)
from tailrace.streaming.owned_partitions import PAUSE_S
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, PausedPartition, Record, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.transactions import DECIDE_S

REQUESTS, ANSWERS, LETTERS = "lane.requests", "lane.answers", "lane.dead-letters"
FIRST = TopicPartition(REQUESTS, 0)


class Passing:
    """Passes values on; ``do`` may interfere."""

    def __init__(self, *, topics: Collection[str] = (REQUESTS,), control: Sequence[str] = ()) -> None:
        self.consumed = frozenset(topics)
        self.controls = control
        self.control_seen: list[bytes | None] = []
        self.owned: dict[TopicPartition, Committed] = {}
        self.history: History = {}
        self.restored: list[bytes | None] = []
        self.restore_fails: Exception | None = None
        self.batches: list[list[bytes | None]] = []
        self.committed_outputs: list[Output] = []
        self.do: Callable[[Sequence[Message], Output], None] = lambda batch, output: None
        self.control_fails: Exception | None = None

    def control_topics(self) -> Sequence[str]:
        return self.controls

    def topics(self) -> frozenset[str]:
        return self.consumed

    def control(self, messages: Sequence[Message]) -> None:
        if self.control_fails:
            raise self.control_fails
        self.control_seen += [m.value() for m in messages]

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:
        self.owned.update(partitions)
        return self.history

    def restore(self, messages: Sequence[Message]) -> None:
        if self.restore_fails:
            raise self.restore_fails
        self.restored += [m.value() for m in messages]

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for tp in partitions:
            del self.owned[tp]

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self.batches.append([m.value() for m in batch])
        output = Output([Record(ANSWERS, m.value(), m.key()) for m in batch])
        output.on_committed = lambda: self.committed(output)
        self.do(batch, output)
        return output

    def committed(self, output: Output) -> None:
        self.committed_outputs.append(output)

    def waiting(self) -> str | None:
        return None


class Bench:
    """A log, and a loop on it that the test turns by hand."""

    def __init__(self, partitions: int = 1, messages: int = 0) -> None:
        self.log = MemoryLog()
        for topic in (REQUESTS, ANSWERS, LETTERS):
            self.log.create_topic(topic, partitions)
        for number in range(messages):
            self.append(number)
        self.stop = threading.Event()

    def append(self, number: int, partition: int = 0) -> None:
        self.log.append(REQUESTS, b"%d" % number, partition=partition)

    def loop(
        self,
        logic: Passing,
        *,
        max_batch: int = 10,
        co_partitioned: bool = False,
        linger_s: float = 0.0,
        number: int = 0,
        bounds: Bounds = STEP,
    ) -> ExactlyOnceRunner:
        return ExactlyOnceRunner(
            self.log.backend(),
            logic,
            service="service",
            group="group",
            transactional_id=f"service-{number}",
            clock=MemoryClock(self.log),
            quarantine=quarantine,
            stop=self.stop,
            max_batch=max_batch,
            co_partitioned=co_partitioned,
            linger_s=linger_s,
            bounds=bounds,
        )

    def turn(self, loop: ExactlyOnceRunner, until: Callable[[], object], turns: int = 200) -> None:
        for _ in range(turns):
            if until():
                return
            loop.step()
        raise AssertionError(f"not in {turns} turns; the loop says: {loop.waiting}")

    def answers(self) -> list[bytes]:
        """In the order of their numbers."""
        return sorted([m.value() or b"" for m in self.log.messages(ANSWERS)], key=int)

    def all_done(self) -> bool:
        return drained(self.log, "group", [REQUESTS])


def values(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


# Reading ---


def test_a_backlog_goes_in_full_batches_and_a_single_record_at_once() -> None:
    bench = Bench(messages=25)
    logic = Passing()
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    assert [len(batch) for batch in logic.batches] == [10, 10, 5]
    bench.append(25)
    before = bench.log.now_ms
    bench.turn(loop, bench.all_done)
    assert bench.log.now_ms - before < 25
    assert loop.waiting is None
    assert len(logic.committed_outputs) == 4


def test_the_first_start_of_a_group_is_at_the_earliest_record_and_is_committed() -> None:
    bench = Bench(partitions=3, messages=5)
    bench.log.delete_records(REQUESTS, 0, 3)
    loop = bench.loop(Passing())
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(3, 4)
    committed = bench.log.committed("group")
    assert [committed[TopicPartition(REQUESTS, p)].offset for p in range(3)] == [5, 0, 0]


def test_a_committed_offset_that_is_gone_stops_the_service_and_says_what_to_do() -> None:
    bench = Bench(messages=5)
    first = bench.loop(Passing())
    bench.turn(first, bench.all_done)
    first.close()
    for number in range(5, 9):
        bench.append(number)
    bench.log.delete_records(REQUESTS, 0, 7)
    second = bench.loop(Passing())
    with pytest.raises(TailraceError, match=r"lane.requests/0: offset 5 is not in the log.*--reset-offsets"):
        bench.turn(second, bench.all_done)


def test_a_topic_that_does_not_exist_yet_is_waited_for() -> None:
    bench = Bench(messages=1)
    logic = Passing(topics=[REQUESTS, "later.requests"])
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    assert loop.waiting == "waiting for the topics later.requests"
    bench.log.create_topic("later.requests", 2)
    bench.log.append("later.requests", b"x")
    bench.turn(loop, lambda: drained(bench.log, "group", ["later.requests"]))
    loop.step()
    assert loop.waiting is None


def test_control_topics_are_waited_for_and_read_before_the_first_batch() -> None:
    bench = Bench(messages=1)
    logic = Passing(control=["rules"])
    loop = bench.loop(logic)
    for _ in range(5):
        loop.step()
    assert loop.waiting == "waiting for the topics rules"
    bench.log.create_topic("rules")
    bench.log.append("rules", b"a")
    producer = bench.log.backend().producer("rules")
    producer.init()
    producer.begin()
    producer.produce([Record("rules", b"b")])
    for _ in range(5):
        loop.step()
    assert loop.waiting == "reading the control topics (records so far: 1)"
    assert logic.batches == []
    producer.commit()
    bench.turn(loop, bench.all_done)
    assert logic.control_seen == [b"a", b"b"]


def test_topics_that_the_logic_gives_up_are_left() -> None:
    bench = Bench(messages=1)
    logic = Passing(control=["rules"])
    bench.log.create_topic("rules")
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    logic.consumed = frozenset()
    bench.turn(loop, lambda: not logic.owned)
    bench.append(1)
    for _ in range(20):
        loop.step()
    assert bench.answers() == values(0)


def test_what_was_fetched_before_a_failing_call_is_fetched_again() -> None:
    bench = Bench()
    logic = Passing()
    loop = bench.loop(logic)
    bench.turn(loop, lambda: logic.owned)
    calls: list[str] = []

    def fail_third(client: str, call: str) -> Fault | None:
        calls.append(call)
        if call == "consume" and calls.count("consume") == 2:
            bench.append(0)
            bench.append(1)
        return Fault(Retriable("away")) if call == "consume" and calls.count("consume") == 3 else None

    bench.log.hook = fail_third
    bench.turn(loop, lambda: len(bench.answers()) == 2)
    assert bench.answers() == values(0, 1)


# Waiting ---


def test_a_held_partition_is_offered_again_and_again_and_others_go_on() -> None:
    bench = Bench(partitions=2, messages=4)
    logic = Passing()

    def hold_from_two(batch: Sequence[Message], output: Output) -> None:
        for message in batch:
            if message.partition() == 0 and message.offset() == 2:
                output.paused[FIRST] = PausedPartition(2, "no model")
                output.records = [r for r in output.records if r.value not in values(2, 3)]

    logic.do = hold_from_two
    loop = bench.loop(logic)
    bench.turn(loop, lambda: len(logic.batches) > 3)
    assert loop.waiting == "lane.requests waits: no model"
    assert bench.answers() == values(0, 1)
    assert bench.log.committed("group")[FIRST].offset == 2
    bench.append(100, partition=1)
    bench.turn(loop, lambda: b"100" in bench.answers())
    assert bench.answers() == values(0, 1, 100)
    logic.do = lambda batch, output: None
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(0, 1, 2, 3, 100)
    loop.step()
    assert loop.waiting is None


def test_a_control_record_ends_the_wait_at_once() -> None:
    bench = Bench(messages=1)
    bench.log.create_topic("rules")
    logic = Passing(control=["rules"])

    def hold_without_rule(batch: Sequence[Message], output: Output) -> None:
        if not logic.control_seen:
            output.records = []
            output.paused[FIRST] = PausedPartition(0, "no rule")

    logic.do = hold_without_rule
    loop = bench.loop(logic)
    bench.turn(loop, lambda: len(logic.batches) > 4)  # by now it is offered every half second
    bench.log.append("rules", b"a")
    before = bench.log.now_ms
    bench.turn(loop, bench.all_done)
    assert bench.log.now_ms - before < 50


def test_what_is_away_is_waited_for_and_said() -> None:
    bench = Bench(messages=3)
    logic = Passing()

    def away(batch: Sequence[Message], output: Output) -> None:
        raise Unavailable("the registry does not answer")

    logic.do = away
    loop = bench.loop(logic)
    bench.turn(loop, lambda: len(logic.batches) > 3)
    assert loop.waiting == "lane.requests waits: the registry does not answer"
    assert bench.log.now_ms - 1_700_000_000_000 > 300
    logic.do = lambda batch, output: None
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(0, 1, 2)


def test_nothing_is_processed_before_the_control_records_are_taken_up() -> None:
    bench = Bench(messages=3)
    bench.log.create_topic("rules")
    logic = Passing(control=["rules"])
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    logic.control_fails = Unavailable("the registry does not answer")
    bench.log.append("rules", b"a")
    bench.append(3)
    for _ in range(20):
        loop.step()
    assert bench.answers() == values(0, 1, 2)
    assert loop.waiting == "the registry does not answer"
    logic.control_fails = None
    bench.turn(loop, bench.all_done)
    assert logic.control_seen == [b"a"]
    assert loop.waiting is None


# History ---


def test_history_is_read_before_anything_is_processed_and_only_then() -> None:
    bench = Bench(partitions=2, messages=3)
    bench.log.create_topic("state")
    for value in (b"a", b"b", b"c"):
        bench.log.append("state", value)
    logic = Passing()
    logic.history = {TopicPartition("state", 0): (1, None), FIRST: (0, 2)}
    logic.do = lambda batch, output: logic.restored.append(b"then")
    bench.turn(bench.loop(logic), bench.all_done)
    assert sorted(logic.restored[:4]) == [b"0", b"1", b"b", b"c"]
    assert logic.restored[4:] == [b"then"]


def test_who_reads_history_stays_a_member_of_the_group() -> None:
    bench = Bench(messages=3)
    bench.log.create_topic("state")
    for number in range(9):
        bench.log.append("state", b"%d" % number)
    logic = Passing()
    logic.history = {TopicPartition("state", 0): (0, None)}
    other, loop = Passing(), bench.loop(logic)
    calls: list[str] = []

    def slow(client: str, call: str) -> Fault | None:
        calls.append(call)
        if call == "poll" and len(logic.restored) < 9:
            bench.log.now_ms += 4_000  # of six after which a member is taken for dead
            return Fault(Retriable("no answer")) if calls.count("poll") < 20 else None
        return None

    bench.log.hook = slow
    bench.turn(loop, bench.all_done)
    assert bench.log.now_ms - 1_700_000_000_000 > 60_000
    assert len(logic.batches) == 1
    assert not other.owned


def test_history_is_dropped_with_its_partitions_and_begun_anew_for_those_that_stay() -> None:
    bench = Bench(partitions=2)
    for partition in (0, 1):
        bench.append(partition, partition)
    bench.log.create_topic("state")
    producer = bench.log.backend().producer("state")
    producer.init()
    producer.begin()
    producer.produce([Record("state", b"a")])  # so that history does not come to its end
    logic = Passing()
    logic.history = {TopicPartition("state", 0): (0, None)}
    first, second = bench.loop(logic), bench.loop(Passing(), number=1)
    bench.turn(first, lambda: len(logic.owned) == 2)
    while len(logic.owned) == 2:
        first.step()
        second.step()
    assert logic.batches == []
    producer.commit()
    while not bench.all_done():
        first.step()
        second.step()
    assert bench.answers() == values(0, 1)
    assert logic.restored == [b"a"]


def test_what_is_away_while_history_is_read_is_waited_for() -> None:
    bench = Bench(messages=3)
    bench.log.create_topic("state")
    bench.log.append("state", b"a")
    logic = Passing()
    logic.history = {TopicPartition("state", 0): (0, None)}
    logic.restore_fails = Unavailable("the registry does not answer")
    loop = bench.loop(logic)
    for _ in range(20):
        loop.step()
    assert loop.waiting == "the registry does not answer"
    assert logic.batches == []
    logic.restore_fails = None
    bench.turn(loop, bench.all_done)
    assert logic.restored == [b"a"]


# Facts of partitions, and company ---


def test_facts_of_single_partitions_are_kept_also_of_those_that_have_no_message() -> None:
    bench = Bench(partitions=2, messages=1)
    logic = Passing()

    def note(batch: Sequence[Message], output: Output) -> None:
        output.metadata = "all"
        output.metadata_of = {TopicPartition(REQUESTS, 1): "one"}

    logic.do = note
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    loop.close()
    other = Passing()
    bench.turn(bench.loop(other), lambda: len(other.owned) == 2)
    assert other.owned == {FIRST: Committed(1, "all"), TopicPartition(REQUESTS, 1): Committed(0, "one")}


def test_facts_that_would_not_fit_stop_the_service() -> None:
    bench = Bench(messages=1)
    logic = Passing()
    logic.do = lambda batch, output: setattr(output, "metadata", "m" * (MAX_FACTS_BYTES + 1))
    with pytest.raises(ValueError, match="metadata of more than"):
        bench.turn(bench.loop(logic), bench.all_done)


@pytest.mark.parametrize("linger_s", [0.0, 0.2])
def test_a_batch_lingers_for_company_where_it_may(linger_s: float) -> None:
    bench = Bench()
    logic = Passing()
    loop = bench.loop(logic, linger_s=linger_s)
    bench.turn(loop, lambda: logic.owned)
    waits: list[float] = []
    consumer = loop._consumer
    assert consumer is not None
    consume = consumer.consume

    def watched(limit: int, timeout_s: float) -> Sequence[Message]:
        waits.append(timeout_s)
        return consume(limit, timeout_s)

    consumer.consume = watched  # type: ignore[method-assign]
    bench.append(0)
    bench.turn(loop, bench.all_done)
    assert (0.2 in waits) == (linger_s > 0)


# Failing ---


@pytest.mark.parametrize("when", ["process", "committed", "restore"])
def test_a_logic_that_has_lost_its_state_is_given_its_partitions_anew(when: str) -> None:
    bench = Bench(partitions=2, messages=5)
    logic = Passing()
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)
    taken_over: list[Mapping[TopicPartition, Committed]] = []
    lost = [StateLost("a file is damaged")]

    def assigned(partitions: Mapping[TopicPartition, Committed]) -> History:
        assert not logic.owned.keys() & partitions.keys()
        logic.owned.update(partitions)
        taken_over.append(partitions)
        return {FIRST: (0, 3)}

    def fail_once(*_: object) -> None:
        if lost:
            raise lost.pop()

    logic.assigned = assigned  # type: ignore[method-assign]
    if when == "restore":
        lost.append(StateLost("another is, too"))
    if when == "committed":
        logic.committed = fail_once  # type: ignore[method-assign]
    else:
        logic.do = fail_once
        restore = logic.restore

        def restoring(messages: Sequence[Message]) -> None:
            fail_once()
            restore(messages)

        logic.restore = restoring  # type: ignore[method-assign]
    bench.append(5)
    bench.turn(loop, bench.all_done)
    bench.turn(loop, lambda: len(logic.restored) >= 3)
    assert bench.answers() == values(*range(6))
    assert logic.restored == values(0, 1, 2)
    assert len(taken_over) == (2 if when == "restore" else 1)
    assert taken_over[-1][FIRST].offset == (6 if when == "committed" else 5)
    assert logic.owned.keys() == {FIRST, TopicPartition(REQUESTS, 1)}


def test_where_a_person_has_to_see_to_it_no_record_is_blamed() -> None:
    bench = Bench(messages=3)

    def fail(batch: Sequence[Message], output: Output) -> None:
        raise DiskFailed("the disk cannot be read: look at it")

    for _ in range(7):
        logic = Passing()
        logic.do = fail
        loop = bench.loop(logic)
        with pytest.raises(DiskFailed, match="look at it"):
            bench.turn(loop, bench.all_done)
        loop.close()
    last = bench.loop(Passing())
    bench.turn(last, bench.all_done)
    assert bench.answers() == values(0, 1, 2)
    assert bench.log.messages(LETTERS) == []


def test_a_bug_in_the_logic_stops_the_service_with_nothing_committed() -> None:
    bench = Bench(messages=3)
    logic = Passing()

    def bug(batch: Sequence[Message], output: Output) -> None:
        raise ZeroDivisionError

    logic.do = bug
    loop = bench.loop(logic)
    with pytest.raises(ZeroDivisionError):
        bench.turn(loop, bench.all_done)
    loop.close()
    assert bench.answers() == []
    assert bench.log.committed("group")[FIRST].offset == 0


@pytest.mark.parametrize("applied", [True, False])
def test_a_commit_of_unknown_outcome_is_found_out(applied: bool) -> None:
    bench = Bench()
    logic = Passing()
    loop = bench.loop(logic)
    bench.append(0)
    bench.turn(loop, bench.all_done)
    bench.append(1)
    once = [Fault(OutcomeUnknown("cut"), applied=applied)]
    bench.log.hook = lambda client, call: once.pop() if call == "commit_transaction" and once else None
    bench.turn(loop, bench.all_done)
    loop.step()
    assert bench.answers() == values(0, 1)
    assert len(logic.committed_outputs) == (1 if applied else 2)


def lose_the_session(bench: Bench, loop: ExactlyOnceRunner) -> None:
    bench.log.pass_time(10_000)
    bench.turn(loop, lambda: loop.waiting is None)


def lose_the_producer(bench: Bench, loop: ExactlyOnceRunner) -> None:
    once = [Fault(OutcomeUnknown("cut"), applied=True)]
    bench.log.hook = lambda client, call: once.pop() if call == "commit_transaction" and once else None
    bench.append(5)
    bench.turn(loop, lambda: not once)


@pytest.mark.parametrize("lose", [lose_the_session, lose_the_producer])
@pytest.mark.parametrize("remembered", [{}, {FIRST: Committed(0)}, {FIRST: Committed(2)}])
def test_what_the_log_has_forgotten_is_not_done_again(
    lose: Callable[[Bench, ExactlyOnceRunner], None], remembered: dict[TopicPartition, Committed]
) -> None:
    bench = Bench(messages=5)
    loop = bench.loop(Passing())
    bench.turn(loop, bench.all_done)
    remembered_ms = bench.log.now_ms + 30_000
    bench.log.forget("group", remembered, remembered_ms)
    lose(bench, loop)
    bench.append(6)
    bench.turn(loop, bench.all_done)
    assert bench.log.now_ms >= remembered_ms
    before = values(0, 1, 2, 3, 4)
    assert bench.answers() == before + (values(5, 6) if lose is lose_the_producer else values(6))


def test_a_group_that_was_set_back_is_waited_for_and_believed_at_the_next_start() -> None:
    bench = Bench(messages=5)
    loop = bench.loop(Passing())
    bench.turn(loop, bench.all_done)
    bench.log.forget("group", {FIRST: Committed(2)}, bench.log.now_ms + 10_000_000)
    bench.log.pass_time(10_000)
    until_ms = bench.log.now_ms + 600_000

    def told_to_end(client: str, call: str) -> None:
        if bench.log.now_ms >= until_ms:
            bench.stop.set()

    bench.log.hook = told_to_end
    bench.turn(loop, bench.stop.is_set)
    assert loop.waiting is not None
    assert re.match(r"Kafka says 2 is committed of lane.requests/0, where it was 5. .*restart", loop.waiting)
    assert bench.answers() == values(0, 1, 2, 3, 4)
    bench.stop.clear()
    bench.log.pass_time(10_000)
    after = bench.loop(Passing())
    bench.turn(after, lambda: len(bench.answers()) > 5)
    assert bench.answers() == values(0, 1, 2, 2, 3, 3, 4, 4)


def test_a_commit_that_stays_undecided_is_not_taken_for_done() -> None:
    bench = Bench(messages=1)
    loop = bench.loop(Passing())
    bench.turn(loop, bench.all_done)
    bench.append(1)
    until = bench.log.now_ms + int(DECIDE_S * 1000) + 2_000

    def cut_off(client: str, call: str) -> Fault | None:
        cut = call in ("commit_transaction", "init") and bench.log.now_ms < until
        return Fault(Retriable("no answer")) if cut else None

    bench.log.hook = cut_off
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(0, 1)


def test_a_commit_that_is_repeated_and_then_refused_may_have_gone_through() -> None:
    bench = Bench(messages=1)
    loop = bench.loop(Passing())
    bench.turn(loop, bench.all_done)
    bench.append(1)
    faults = [Fault(Abortable("no such transaction")), Fault(Retriable("no answer"), applied=True)]
    bench.log.hook = lambda client, call: faults.pop() if call == "commit_transaction" and faults else None
    for _ in range(20):
        loop.step()
    assert bench.answers() == values(0, 1)


@pytest.mark.parametrize("late", ["send_offsets", "commit_transaction", "abort_transaction"])
def test_a_transaction_that_was_open_for_too_long_ends_no_process(late: str) -> None:
    bench = Bench(messages=2)
    logic = Passing()
    loop = bench.loop(logic, max_batch=1)
    bench.turn(loop, bench.answers)
    stalled: list[str] = []

    def stall(_: str, call: str) -> Fault | None:
        if call == late and not stalled:
            stalled.append(call)
            bench.log.pass_time(5_000)
        elif call == "send_offsets" and late == "abort_transaction" and not stalled:
            return Fault(Abortable("a reason to give it up"))
        return None

    bench.log.hook = stall
    bench.turn(loop, bench.all_done)
    assert stalled
    assert bench.answers() == values(0, 1)
    assert len(logic.batches) == 3


def test_a_fenced_instance_ends_and_its_successor_goes_on() -> None:
    bench = Bench(messages=2)
    old, new = bench.loop(Passing(), max_batch=1), bench.loop(Passing(), max_batch=1)
    bench.turn(old, lambda: bench.answers())
    bench.turn(new, lambda: new.waiting is None or new.waiting.startswith("joining"))
    with pytest.raises(Fenced):
        bench.turn(old, bench.all_done)
    old.close()
    bench.turn(new, bench.all_done)
    assert bench.answers() == values(0, 1)


def test_topics_of_a_lane_that_are_not_assigned_alike_stop_the_service() -> None:
    bench = Bench(partitions=2)
    bench.log.create_topic("lane.labels", 3)
    loop = bench.loop(Passing(topics=[REQUESTS, "lane.labels"]), co_partitioned=True)
    with pytest.raises(TailraceError, match="need the same number of partitions"):
        bench.turn(loop, lambda: False)


# Records that kill ---


class Host:
    """Restarts the service whenever it dies, as a supervisor does."""

    def __init__(self, bench: Bench, poison: Callable[[Sequence[Message], Output], None]) -> None:
        self.bench = bench
        self.poison = poison
        self.lives = 0

    def run(self) -> None:
        for _ in range(12):
            self.lives += 1
            logic = Passing()
            logic.do = self.poison
            loop = self.bench.loop(logic)
            try:
                self.bench.turn(loop, self.bench.all_done, turns=2_000)
            except (ZeroDivisionError, RecordRejected):
                loop.close()
            except Crash:
                self.bench.log.pass_time(10_000)
            else:
                loop.close()
                return
        raise AssertionError("the service does not get past it")


def letters_of(bench: Bench) -> list[tuple[bytes | None, str, str]]:
    letters = [dead_letters.parse(m) for m in bench.log.messages(LETTERS)]
    return [(info.value, info.code, info.reason) for info in letters]


def test_a_record_that_raises_is_quarantined_after_three_restarts() -> None:
    bench = Bench(messages=30)

    def poison(batch: Sequence[Message], output: Output) -> None:
        if any(m.value() == b"13" for m in batch):
            raise ZeroDivisionError("no such thing")

    host = Host(bench, poison)
    host.run()
    assert host.lives == 5  # the first had got beyond its first batch, and so had announced nothing
    assert letters_of(bench) == [(b"13", "quarantined", "ZeroDivisionError: no such thing")]
    assert bench.answers() == values(*(n for n in range(30) if n != 13))
    assert bench.log.committed("group")[FIRST].metadata == ""


def test_a_record_that_kills_the_process_is_quarantined_after_two_deaths_alone() -> None:
    bench = Bench(messages=30)

    def poison(batch: Sequence[Message], output: Output) -> None:
        output.metadata = "facts"
        if any(m.value() == b"13" for m in batch):
            raise Crash

    host = Host(bench, poison)
    host.run()
    assert host.lives == 7
    assert letters_of(bench) == [
        (b"13", "quarantined", "5 processes died on it, the last ones with it alone")
    ]
    assert bench.answers() == values(*(n for n in range(30) if n != 13))
    assert bench.log.committed("group")[FIRST].metadata == "facts"


def test_a_full_disk_is_waited_for_and_no_record_is_blamed_for_it() -> None:
    bench = Bench(messages=30)

    def full(batch: Sequence[Message], output: Output) -> None:
        if any(m.value() == b"13" for m in batch):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def poison(batch: Sequence[Message], output: Output) -> None:
        if any(m.value() == b"13" for m in batch):
            raise ZeroDivisionError

    for _ in range(4):  # one more death, and the record that is then taken alone would be quarantined
        logic = Passing()
        logic.do = poison
        loop = bench.loop(logic)
        with pytest.raises(ZeroDivisionError):
            bench.turn(loop, bench.all_done, turns=2_000)
        loop.close()
    logic = Passing()
    logic.do = full
    loop = bench.loop(logic)
    bench.turn(loop, lambda: logic.batches.count([b"13"]) > 3, turns=2_000)
    assert loop.waiting == "lane.requests waits: No space left on device: free some of the disk or the quota"
    logic.do = lambda batch, output: None
    bench.turn(loop, bench.all_done)
    assert bench.answers() == values(*range(30))
    assert letters_of(bench) == []


def test_a_record_that_only_speaks_of_a_full_disk_is_left_out() -> None:
    bench = Bench(messages=3)

    def quote(batch: Sequence[Message], output: Output) -> None:
        if any(m.value() == b"1" for m in batch):
            raise ValueError("no number: 'No space left on device'")

    done = False
    for _ in range(7):
        logic = Passing()
        logic.do = quote
        loop = bench.loop(logic)
        try:
            bench.turn(loop, bench.all_done)
            done = True
        except ValueError:
            pass
        loop.close()
        if done:
            break
    assert letters_of(bench) != []


def test_a_record_whose_output_is_refused_is_quarantined() -> None:
    bench = Bench(messages=12)

    def inflate(batch: Sequence[Message], output: Output) -> None:
        output.records = [
            Record(ANSWERS, bytes(5_000_000) if r.value == b"4" else r.value) for r in output.records
        ]

    host = Host(bench, inflate)
    host.run()
    assert host.lives == 4
    [(value, code, reason)] = letters_of(bench)
    assert (value, code) == (b"4", "quarantined")
    assert "too large" in reason
    assert bench.answers() == values(*(n for n in range(12) if n != 4))


@pytest.mark.parametrize(("held", "waited_ms"), [(False, (4_900, 5_500)), (True, (0, 1_000))])
def test_no_partition_waits_long_for_one_that_processes_have_died_on(
    held: bool, waited_ms: tuple[int, int]
) -> None:
    """As where nothing comes of that one, or where it has to wait itself."""
    bench = Bench(partitions=2, messages=1)
    dead = TopicPartition(REQUESTS, 1)
    logic = Passing()

    def hold(batch: Sequence[Message], output: Output) -> None:
        if any(m.partition() == 1 for m in batch):
            output.paused[dead] = PausedPartition(0, "no model")
            output.records = [record for record in output.records if record.value != b"100"]

    if held:
        bench.append(100, partition=1)
        logic.do = hold
    stranger = bench.log.backend("stranger").consumer("group")
    stranger.commit({dead: Committed(0, pack(CrashHistory(1, 7), ""))})
    began = bench.log.now_ms
    bench.turn(bench.loop(logic), lambda: bench.answers() == values(0), turns=2_000)
    least, most = waited_ms
    assert least <= bench.log.now_ms - began <= most


def test_deaths_without_a_culprit_cost_no_record() -> None:
    bench = Bench(messages=20)

    def die(batch: Sequence[Message], output: Output) -> None:
        raise Crash

    for _ in range(4):
        logic = Passing()
        logic.do = die
        loop = bench.loop(logic)
        with pytest.raises(Crash):
            bench.turn(loop, bench.all_done)
        bench.log.pass_time(10_000)
    bench.turn(bench.loop(Passing()), bench.all_done, turns=2_000)
    assert bench.answers() == values(*range(20))
    assert letters_of(bench) == []


class Naming(Passing):
    """Says what is in flight, and holds everything for as long as it is to."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.waits = False
        self.announced: list[str] = []
        self.log: MemoryLog | None = None

    def in_flight(self, topics: Collection[str], suspects: Mapping[TopicPartition, object]) -> Sequence[str]:
        return self.names

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        assert self.log is not None
        self.announced.append(self.log.committed("group")[FIRST].metadata)
        if self.waits:
            return Output(paused={FIRST: PausedPartition(batch[0].offset(), "the package is not there yet")})
        return super().process(batch, clock)


def test_what_was_in_flight_while_a_batch_waited_is_announced_again_when_it_runs() -> None:
    bench, logic = Bench(messages=1), Naming()
    logic.log = bench.log
    loop = bench.loop(logic)
    bench.turn(loop, bench.all_done)  # the partition is known to be worked off, with nothing in flight
    logic.names, logic.waits = ["credit/2"], True
    bench.append(1)
    bench.turn(loop, lambda: len(logic.announced) > 1)
    logic.waits = False
    bench.turn(loop, bench.all_done, turns=2_000)
    bench.append(2)
    bench.turn(loop, bench.all_done)
    before, *held, ran, after = ["credit/2" in announced for announced in logic.announced]
    assert (before, all(held), ran, after) == (False, True, True, False)
    assert bench.answers() == values(0, 1, 2)


def test_a_partition_that_waits_for_long_is_offered_as_often_as_at_first_it_was_not() -> None:
    bench = Bench(messages=1)
    logic, offered = Passing(), []

    def wait(batch: Sequence[Message], output: Output) -> None:
        offered.append(bench.log.now_ms)
        output.records = []
        output.paused[FIRST] = PausedPartition(0, "not yet")

    logic.do = wait
    loop = bench.loop(logic)
    bench.turn(loop, lambda: len(offered) >= 20, turns=5_000)
    waits = [after - before for before, after in pairwise(offered)]
    assert waits[0] < waits[2] < waits[-1]
    assert max(waits) < 1_000 * PAUSE_S[1] + 200


def test_a_batch_that_comes_to_too_much_is_taken_in_halves() -> None:
    bench, logic = Bench(messages=64), Passing()
    loop = bench.loop(logic, max_batch=64, bounds=STEP._replace(records=10))
    bench.turn(loop, bench.all_done)
    assert [len(batch) for batch in logic.batches[:5]] == [64, 32, 16, 8, 8]
    assert max(map(len, logic.batches[3:])) <= 10
    assert bench.answers() == values(*range(64))


def test_a_batch_that_only_waited_leaves_what_processes_died_on_as_it_was() -> None:
    bench, logic = Bench(messages=3), Passing()

    def wait(batch: Sequence[Message], output: Output) -> None:
        output.records = []
        output.paused[FIRST] = PausedPartition(0, "not yet")

    logic.do = wait
    stranger = bench.log.backend().consumer("group")
    stranger.commit({FIRST: Committed(0, pack(CrashHistory(2, 1), "facts"))})
    stranger.close()
    loop = bench.loop(logic)
    bench.turn(loop, lambda: logic.batches)
    bench.turn(
        loop, lambda: bench.log.committed("group")[FIRST].metadata == pack(CrashHistory(2, 1), "facts")
    )
    logic.do = lambda batch, output: None
    bench.turn(loop, bench.all_done, turns=2_000)
    assert unpack(bench.log.committed("group")[FIRST].metadata) == (NO_DEATHS, "facts")


def test_a_trial_is_over_when_the_last_record_of_it_is_committed_and_no_sooner() -> None:
    crash_history = CrashHistory(ALONE_AFTER, 9)
    assert crash_history.after(9) == crash_history, "record 9 is still to come"
    assert crash_history.after(10) == NO_DEATHS
    # A shorter batch that is announced later does not shorten it.
    assert CrashHistory(1, 9).announced(4, ()) == CrashHistory(2, 9)
    assert CrashHistory(1, 9).announced(12, ()) == CrashHistory(2, 12)
