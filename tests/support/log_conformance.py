"""What every log backend has to do: one suite, run against the in-memory log and against Kafka.

A test class inherits ``LogConformance`` and gives it a ``world`` fixture.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
import pytest
from tests.support.simulation import quarantine
from tests.support.summing import Summing, expected_sums

from tailrace.avro.columns.bytes_column import NULL, BytesColumn
from tailrace.streaming.backends.abstract import (
    MAX_METADATA_BYTES,
    Abortable,
    Backend,
    Committed,
    Consumer,
    Fatal,
    History,
    OutOfRange,
    RecordRejected,
    Retriable,
    TransactionalProducer,
)
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.processor import Clock, Output, Processor
from tailrace.streaming.records import Message, Record, Records, Runs, TopicPartition
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import WaitingClock

Answer = TypeVar("Answer")

TURNS = 1_000


class World(Protocol):
    """A log, with what a test needs to arrange."""

    clock: WaitingClock
    max_message_bytes: int

    def backend(self) -> Backend: ...
    def create_topic(self, name: str, partitions: int) -> None: ...
    def append(self, topic: str, value: bytes, key: bytes | None = None, partition: int = 0) -> None:
        """Writes a record outside any transaction."""
        ...

    def delete_records(self, topic: str, partition: int, before: int) -> None: ...
    def flush(self, producer: TransactionalProducer) -> None:
        """Sees to it that what was produced has reached the log, though the transaction is open."""
        ...


class Listener:
    """Starts each partition where the group left it, or at its beginning, and keeps account."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.owned: set[TopicPartition] = set()
        self.revoked: list[TopicPartition] = []

    def on_assign(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.owned |= set(partitions)
        committed = patiently(lambda: self.consumer.committed(partitions))
        return {tp: found.offset if found else 0 for tp, found in committed.items()}

    def on_revoke(self, partitions: Collection[TopicPartition]) -> None:
        self.owned -= set(partitions)
        self.revoked += partitions

    on_lost = on_revoke


def patiently(call: Callable[[], Answer]) -> Answer:
    for _ in range(TURNS):
        try:
            return call()
        except Retriable:
            pass
    raise AssertionError("not in time")


class LogConformance:
    _names = itertools.count(1)

    @pytest.fixture(autouse=True)
    def _give_names(self, world: World) -> None:
        # A shared broker: every test uses names of its own.
        number = next(self._names)
        self.world = world
        self.group = f"conformance-{type(self).__name__}-{number}"
        self.topic = f"{self.group}.requests"
        self.other = f"{self.group}.answers"

    def joined(
        self, backend: Backend, *topics: str, co_partitioned: bool = False
    ) -> tuple[Consumer, Listener]:
        consumer = backend.consumer(self.group, co_partitioned=co_partitioned)
        listener = Listener(consumer)
        consumer.subscribe(topics or [self.topic], listener)
        self.until(lambda: (listener.owned and consumer.member_id()) or take(consumer, 0))
        return consumer, listener

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(TURNS):
            if condition():
                return
            self.world.clock.sleep(0.01)
        raise AssertionError("not in time")

    def started(self, name: str = "") -> TransactionalProducer:
        producer = self.world.backend().producer(f"{self.group}-{name}")
        patiently(producer.init)
        return producer

    def read(self, topic: str) -> list[Message]:
        """All that a reader of committed records finds, to the real end."""
        reader = self.world.backend().reader([topic])
        messages: list[Message] = []
        try:
            self.until(lambda: messages.extend(reader.poll(0.05)) or reader.caught_up())
        finally:
            reader.close()
        return messages

    # Records and transactions ---

    def test_keys_decide_the_partition_by_murmur2_and_partitions_keep_their_order(self) -> None:
        self.world.create_topic(self.topic, 5)
        producer = self.started()
        keys = [b"key-%d" % number for number in range(40)]
        producer.begin()
        producer.produce([Record(self.topic, b"first", key) for key in keys])
        producer.produce([Record(self.topic, b"second", key, [("h", b"x")]) for key in keys])
        producer.produce([Record(self.topic, b"there", None, (), 3)])
        producer.commit()
        messages = self.read(self.topic)
        assert all(m.partition() == partition_of(m.key(), 5) for m in messages if m.key() is not None)
        assert [m.partition() for m in messages if m.key() is None] == [3]
        for key in keys:
            assert [m.value() for m in messages if m.key() == key] == [b"first", b"second"]
        assert [m.headers() for m in messages if m.key() == keys[0]] == [None, [("h", b"x")]]
        assert all(m.timestamp()[0] == 2 and m.timestamp()[1] > 0 for m in messages)

    def test_columns_are_written_as_a_list_is(self) -> None:
        for topic in (self.topic, self.other):
            self.world.create_topic(topic, 5)
        chance = random.Random(3)
        rows = [(chance.randbytes(chance.choice((0, 1, 600))), b"key-%d" % (n % 40)) for n in range(3_000)]
        values, keys = (BytesColumn.of(column) for column in zip(*rows, strict=True))
        without = np.arange(0, 3_000, 100)
        values.begins[without] = NULL
        columns = Records(self.topic, values, keys)
        producer = self.started()
        producer.begin()
        producer.produce([record._replace(topic=self.other) for record in columns])
        producer.produce(Runs([columns[:1_000], list(columns[1_000:1_010]), columns[1_010:]]))
        producer.commit()

        def by_partition(topic: str) -> list[tuple[int, int, bytes | None, bytes | None]]:
            return sorted((m.partition(), m.offset(), m.key(), m.value()) for m in self.read(topic))

        written = by_partition(self.topic)
        assert written == by_partition(self.other)
        assert {number for number, *_ in written} == set(range(5))
        expected = [(key, None if n % 100 == 0 else value) for n, (value, key) in enumerate(rows)]
        for name in {key for _, key in rows}:
            assert [value for *_, key, value in written if key == name] == [
                v for k, v in expected if k == name
            ]

    def test_only_what_is_committed_is_read_and_markers_take_offsets(self) -> None:
        self.world.create_topic(self.topic, 1)
        producer = self.started()
        for value, end in ((b"a", producer.commit), (b"b", producer.abort), (b"c", producer.commit)):
            producer.begin()
            producer.produce([Record(self.topic, value)])
            self.world.flush(producer)
            end()
        assert [(m.value(), m.offset()) for m in self.read(self.topic)] == [(b"a", 0), (b"c", 4)]

    def test_an_open_transaction_holds_back_what_comes_after_it(self) -> None:
        self.world.create_topic(self.topic, 1)
        producer = self.started()
        self.world.append(self.topic, b"before")
        producer.begin()
        producer.produce([Record(self.topic, b"within")])
        self.world.flush(producer)
        self.world.append(self.topic, b"after")
        reader = self.world.backend().reader([self.topic])
        values: list[bytes | None] = []
        self.until(lambda: values.extend(m.value() for m in reader.poll(0.05)) or values)
        for _ in range(5):
            values += [m.value() for m in reader.poll(0.05)]
        assert values == [b"before"]
        assert not reader.caught_up()
        producer.commit()
        self.until(lambda: values.extend(m.value() for m in reader.poll(0.05)) or reader.caught_up())
        assert values == [b"before", b"within", b"after"]
        reader.close()

    def test_a_reader_has_caught_up_with_an_empty_topic(self) -> None:
        self.world.create_topic(self.topic, 3)
        assert self.read(self.topic) == []

    def test_a_newer_producer_fences_the_older_and_ends_its_transaction(self) -> None:
        self.world.create_topic(self.topic, 1)
        old = self.started()
        old.begin()
        old.produce([Record(self.topic, b"old")])
        new = self.started()
        new.begin()
        new.produce([Record(self.topic, b"new")])
        new.commit()
        with pytest.raises(Fatal):
            patiently(old.commit)
        assert [m.value() for m in self.read(self.topic)] == [b"new"]

    @pytest.mark.parametrize("limits", [1, 30])
    def test_one_that_is_too_large_among_columns_is_refused_the_second_time_at_the_latest(
        self, limits: int
    ) -> None:
        self.world.create_topic(self.topic, 1)
        producer = self.started()
        large = random.randbytes(limits * self.world.max_message_bytes + 1)
        columns = Records(self.topic, BytesColumn.of([b"a", large, b"c"]), BytesColumn.of([b"1", b"2", b"3"]))
        kinds: list[type[Exception]] = []
        while RecordRejected not in kinds and len(kinds) < 2:
            producer.begin()
            try:
                producer.produce(columns)
                patiently(producer.commit)
            except (RecordRejected, Abortable) as error:
                kinds.append(type(error))
            producer.abort()
        assert kinds[-1] is RecordRejected
        producer.begin()
        producer.produce(columns[::2])
        producer.commit()
        assert [m.value() for m in self.read(self.topic)] == [b"a", b"c"]

    def test_a_record_that_is_too_large_is_refused(self) -> None:
        self.world.create_topic(self.topic, 1)
        producer = self.started()
        producer.begin()

        def write() -> None:
            producer.produce([Record(self.topic, random.randbytes(self.world.max_message_bytes + 1))])
            patiently(producer.commit)

        with pytest.raises(RecordRejected):
            write()
        producer.abort()
        assert self.read(self.topic) == []

    # History ---

    def history(self, stretches: History) -> list[tuple[int, bytes | None]]:
        reader = self.world.backend().history(stretches)
        records: list[tuple[int, bytes | None]] = []
        try:
            self.until(lambda: records.extend(places(reader.poll(0.05))) or reader.caught_up())
            records.extend(places(reader.poll(0.05)))
        finally:
            reader.close()
        return records

    def write(self, producer: TransactionalProducer, *values: bytes, partition: int = 0) -> None:
        producer.begin()
        producer.produce([Record(self.topic, value, None, (), partition) for value in values])
        self.world.flush(producer)

    def test_history_is_what_was_committed_between_two_offsets(self) -> None:
        self.world.create_topic(self.topic, 2)
        producer = self.started()
        for values, end in (
            ([b"a", b"b"], producer.commit),  # 0, 1; marker 2
            ([b"not"], producer.abort),  # 3; marker 4
            ([b"c", b"d", b"e"], producer.commit),  # 5, 6, 7; marker 8
        ):
            self.write(producer, *values)
            end()
        self.world.append(self.topic, b"other", partition=1)
        first, second = TopicPartition(self.topic, 0), TopicPartition(self.topic, 1)
        assert self.history({first: (1, 7)}) == [(1, b"b"), (5, b"c"), (6, b"d")]
        assert sorted(self.history({first: (6, None), second: (0, None)})) == [
            (0, b"other"),
            (6, b"d"),
            (7, b"e"),
        ]
        assert self.history({first: (5, 6)}) == [(5, b"c")]

    def test_history_that_ends_with_no_message_comes_to_its_end(self) -> None:
        self.world.create_topic(self.topic, 1)
        tp = TopicPartition(self.topic, 0)
        assert self.history({tp: (0, None)}) == []
        assert self.history({tp: (0, 0)}) == []
        assert self.history({}) == []
        producer = self.started()
        self.write(producer, b"a")
        producer.commit()
        self.write(producer, b"b", b"c")
        producer.abort()  # ends at 5: a, marker, b, c, marker
        for start, end in ((0, 2), (0, 3), (0, 5), (0, None)):
            assert self.history({tp: (start, end)}) == [(0, b"a")]
        for start, end in ((1, 2), (2, 4), (3, 5), (4, None), (5, None), (5, 5)):
            assert self.history({tp: (start, end)}) == []

    def test_history_waits_for_what_is_undecided_and_stops_where_it_began_to_be_read(self) -> None:
        self.world.create_topic(self.topic, 1)
        self.world.append(self.topic, b"before")
        producer = self.started()
        self.write(producer, b"within")
        reader = self.world.backend().history({TopicPartition(self.topic, 0): (0, None)})
        self.world.append(self.topic, b"after")
        records: list[tuple[int, bytes | None]] = []
        self.until(lambda: records.extend(places(reader.poll(0.05))) or records)
        for _ in range(5):
            records += places(reader.poll(0.05))
        assert records == [(0, b"before")]
        assert not reader.caught_up()
        producer.commit()
        self.until(lambda: records.extend(places(reader.poll(0.05))) or reader.caught_up())
        assert records == [(0, b"before"), (1, b"within")]
        reader.close()

    def test_history_passes_over_what_retention_deleted(self) -> None:
        self.world.create_topic(self.topic, 2)
        for number in range(5):
            self.world.append(self.topic, b"%d" % number)
        self.world.append(self.topic, b"there", partition=1)
        self.world.delete_records(self.topic, 0, 3)
        tp = TopicPartition(self.topic, 0)
        assert self.history({tp: (1, 4)}) == [(3, b"3")]
        assert self.history({tp: (0, 2), TopicPartition(self.topic, 1): (0, 1)}) == [(0, b"there")]

    def test_history_that_never_was_is_said(self) -> None:
        self.world.create_topic(self.topic, 1)
        self.world.append(self.topic, b"x")
        with pytest.raises(OutOfRange):
            self.world.backend().history({TopicPartition(self.topic, 0): (0, 2)})

    # Groups and offsets ---

    def test_offsets_and_records_are_committed_together_or_not_at_all(self) -> None:
        self.world.create_topic(self.topic, 2)
        self.world.create_topic(self.other, 1)
        consumer, _ = self.joined(self.world.backend())
        first, second = TopicPartition(self.topic, 0), TopicPartition(self.topic, 1)
        assert patiently(lambda: consumer.committed([first, second])) == {first: None, second: None}
        producer = self.started()
        metadata = "m" * MAX_METADATA_BYTES
        for offset, end in ((1, producer.commit), (2, producer.abort)):
            producer.begin()
            producer.produce([Record(self.other, b"%d" % offset)])
            producer.send_offsets({first: Committed(offset, metadata)}, consumer.membership())
            end()
        assert patiently(lambda: consumer.committed([first, second])) == {
            first: Committed(1, metadata),
            second: None,
        }
        assert [m.value() for m in self.read(self.other)] == [b"1"]
        consumer.close()

    def test_a_commit_that_is_begun_is_waited_for(self) -> None:
        self.world.create_topic(self.topic, 1)
        self.world.create_topic(self.other, 1)
        consumer, _ = self.joined(self.world.backend())
        tp = TopicPartition(self.topic, 0)
        producer = self.started()
        for offset in (1, 2):
            producer.begin()
            producer.produce([Record(self.other, b"%d" % offset)])
            producer.begin_commit({tp: Committed(offset)}, consumer.membership())
            producer.commit()
        assert patiently(lambda: consumer.committed([tp])) == {tp: Committed(2)}
        assert [m.value() for m in self.read(self.other)] == [b"1", b"2"]
        consumer.close()

    def test_nothing_comes_of_a_commit_that_is_begun_by_a_former_member(self) -> None:
        self.world.create_topic(self.topic, 1)
        self.world.create_topic(self.other, 1)
        former, _ = self.joined(self.world.backend())
        stale = former.membership()
        former.close()
        tp = TopicPartition(self.topic, 0)
        producer = self.started()
        producer.begin()
        producer.produce([Record(self.other, b"never")])
        producer.begin_commit({tp: Committed(1)}, stale)
        with pytest.raises(Abortable):
            producer.commit()
        producer.abort()
        assert self.read(self.other) == []
        producer.begin()
        producer.produce([Record(self.other, b"next")])
        producer.commit()
        assert [m.value() for m in self.read(self.other)] == [b"next"]

    def test_who_was_fenced_off_is_told_by_the_commit_that_was_begun(self) -> None:
        self.world.create_topic(self.topic, 1)
        self.world.create_topic(self.other, 1)
        consumer, _ = self.joined(self.world.backend())
        old = self.started()
        old.begin()
        old.produce([Record(self.other, b"old")])
        new = self.started()
        old.begin_commit({TopicPartition(self.topic, 0): Committed(1)}, consumer.membership())
        with pytest.raises(Fatal):
            patiently(old.commit)
        new.begin()
        new.produce([Record(self.other, b"new")])
        new.commit()
        assert [m.value() for m in self.read(self.other)] == [b"new"]
        consumer.close()

    def test_what_an_undecided_transaction_may_change_is_not_answered(self) -> None:
        self.world.create_topic(self.topic, 1)
        consumer, _ = self.joined(self.world.backend())
        tp = TopicPartition(self.topic, 0)
        producer = self.started()
        producer.begin()
        producer.send_offsets({tp: Committed(7)}, consumer.membership())
        with pytest.raises(Retriable):
            consumer.committed([tp])
        producer.commit()
        assert patiently(lambda: consumer.committed([tp])) == {tp: Committed(7)}
        consumer.close()

    def test_a_commit_outside_a_transaction(self) -> None:
        self.world.create_topic(self.topic, 1)
        consumer, _ = self.joined(self.world.backend())
        tp = TopicPartition(self.topic, 0)
        consumer.commit({tp: Committed(3, "plan")})
        assert consumer.committed([tp]) == {tp: Committed(3, "plan")}
        consumer.close()

    def test_a_former_generation_commits_nothing(self) -> None:
        self.world.create_topic(self.topic, 2)
        first, listener = self.joined(self.world.backend())
        stale = first.membership()
        second = self.world.backend().consumer(self.group)
        others = Listener(second)
        second.subscribe([self.topic], others)
        self.until(lambda: take(first, 0) or take(second, 0) or (others.owned and len(listener.owned) == 1))
        assert listener.revoked == sorted(others.owned)
        producer = self.started()
        producer.begin()
        with pytest.raises(Abortable):
            producer.send_offsets({TopicPartition(self.topic, 0): Committed(1)}, stale)
        producer.abort()
        first.close()
        self.until(lambda: take(second, 0) or len(others.owned) == 2)
        second.close()

    def test_who_names_no_member_is_not_checked(self) -> None:
        """Not what anyone would wish for; the loop relies on knowing it."""
        self.world.create_topic(self.topic, 1)
        member, _ = self.joined(self.world.backend())
        stranger = self.world.backend().consumer(self.group).membership()
        assert stranger.member_id == ""
        producer = self.started()
        producer.begin()
        producer.send_offsets({TopicPartition(self.topic, 0): Committed(9)}, stranger)
        producer.commit()
        tp = TopicPartition(self.topic, 0)
        assert patiently(lambda: member.committed([tp])) == {tp: Committed(9)}
        member.close()

    def test_co_partitioned_topics_are_assigned_alike(self) -> None:
        self.world.create_topic(self.topic, 4)
        self.world.create_topic(self.other, 4)
        topics = [self.topic, self.other]
        consumers = [self.world.backend().consumer(self.group, co_partitioned=True) for _ in range(3)]
        listeners = [Listener(consumer) for consumer in consumers]
        for consumer, listener in zip(consumers, listeners, strict=True):
            consumer.subscribe(topics, listener)

        def assigned() -> bool:
            for consumer in consumers:
                take(consumer, 0)
            return all(one.owned for one in listeners) and sum(len(one.owned) for one in listeners) == 8

        self.until(assigned)
        for listener in listeners:
            numbers = [{tp.partition for tp in listener.owned if tp.topic == topic} for topic in topics]
            assert numbers[0] == numbers[1]
        for consumer in consumers:
            consumer.close()

    def test_what_a_listener_raises_comes_out_of_consume(self) -> None:
        self.world.create_topic(self.topic, 1)
        consumer = self.world.backend().consumer(self.group)

        class Refusing(Listener):
            def on_assign(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
                raise ZeroDivisionError

        consumer.subscribe([self.topic], Refusing(consumer))
        with pytest.raises(ZeroDivisionError):
            self.until(lambda: take(consumer, 0.05))
        consumer.close()

    # Reading in a group ---

    def test_seek_pause_and_resume(self) -> None:
        self.world.create_topic(self.topic, 2)
        for number in range(6):
            self.world.append(self.topic, b"%d" % number, partition=number % 2)
        consumer, _ = self.joined(self.world.backend())
        first, second = TopicPartition(self.topic, 0), TopicPartition(self.topic, 1)

        def values(count: int) -> list[bytes | None]:
            consumed: list[bytes | None] = []
            self.until(lambda: consumed.extend(take(consumer, 0.05)) or len(consumed) >= count)
            return sorted(consumed)  # type: ignore[type-var]

        assert consumer.earliest(first) == 0
        patiently(lambda: consumer.seek(first, 0))
        patiently(lambda: consumer.seek(second, 0))
        assert values(6) == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert (consumer.end(first), consumer.end(second)) == (3, 3)
        consumer.pause([first])
        patiently(lambda: consumer.seek(second, 1))
        self.world.append(self.topic, b"paused", partition=0)
        assert values(2) == [b"3", b"5"]
        assert take(consumer, 0.2) == []
        consumer.resume([first])
        patiently(lambda: consumer.seek(first, 2))
        assert values(2) == [b"4", b"paused"]
        consumer.close()

    def test_a_position_that_is_gone_is_said_and_not_skipped(self) -> None:
        self.world.create_topic(self.topic, 1)
        for _ in range(5):
            self.world.append(self.topic, b"x")
        self.world.delete_records(self.topic, 0, 3)
        consumer = self.world.backend().consumer(self.group)
        consumer.subscribe([self.topic], Listener(consumer))
        with pytest.raises(OutOfRange) as gone:
            self.until(lambda: take(consumer, 0.05))
        assert gone.value.partition == TopicPartition(self.topic, 0)
        assert consumer.earliest(TopicPartition(self.topic, 0)) == 3
        consumer.close()

    # The exactly-once runner ---

    def test_the_runner_echoes_everything_once_through_joining_and_leaving(self) -> None:
        self.world.create_topic(self.topic, 4)
        self.world.create_topic(self.other, 2)
        for number in range(500):
            self.world.append(self.topic, b"%d" % number, partition=number % 4)
        loops = [self.loop(number) for number in range(3)]
        answers = self.world.backend().reader([self.other])
        echoes: list[bytes | None] = []

        def answered(running: Sequence[ExactlyOnceRunner], count: int) -> bool:
            for loop in running:
                loop.step()
            echoes.extend(message.value() for message in answers.poll(0))
            return len(echoes) >= count

        self.until(lambda: answered(loops[:1], 1))
        self.until(lambda: answered(loops[:2], 100))
        for number in range(500, 700):
            self.world.append(self.topic, b"%d" % number, partition=number % 4)
        loops[0].close()
        self.until(lambda: answered(loops[1:], 700) and all(loop.waiting is None for loop in loops[1:]))
        for loop in loops[1:]:
            loop.close()
        answers.close()
        assert len(echoes) == 700
        assert set(echoes) == {b"%d" % number for number in range(700)}

    def test_the_runner_reads_again_what_the_last_owner_knew(self) -> None:
        counts = f"{self.group}.counts"
        for topic in (self.topic, self.other, counts):
            self.world.create_topic(topic, 3)
        loops = [self.loop(number, Summing(self.topic, self.other, counts)) for number in range(3)]
        answers = self.world.backend().reader([self.other])
        messages: list[Message] = []

        def answered(running: Sequence[ExactlyOnceRunner], count: int) -> bool:
            for loop in running:
                loop.step()
            messages.extend(answers.poll(0))
            return len(messages) >= count

        producer = self.started()
        for number in range(90):
            if number % 10 == 5:
                self.write(producer, b"7", partition=number % 3)
                producer.abort()
            self.world.append(self.topic, b"%d" % number, partition=number % 3)
            if number == 30:
                self.until(lambda: answered(loops[:1], 20))
            if number == 60:
                self.until(lambda: answered(loops, 61))
        loops[0].close()
        self.until(lambda: answered(loops[1:], 90) and all(loop.waiting is None for loop in loops[1:]))
        for loop in loops[1:]:
            loop.close()
        answers.close()
        fed = self.read(self.topic)
        for partition in range(3):
            sums = [json.loads(m.value() or b"") for m in messages if m.partition() == partition]
            assert sums == expected_sums([m for m in fed if m.partition() == partition])

    def loop(self, number: int, processor: Processor | None = None) -> ExactlyOnceRunner:
        return ExactlyOnceRunner(
            self.world.backend(),
            processor or Echo(self.topic, self.other),
            service="echo",
            group=self.group,
            transactional_id=f"{self.group}-{number}",
            clock=self.world.clock,
            quarantine=quarantine,
            stop=threading.Event(),
            max_batch=50,
        )


class Echo:
    """Passes values on from one topic to another."""

    def __init__(self, source: str, target: str) -> None:
        self.source = source
        self.target = target

    def control_topics(self) -> Sequence[str]:
        return ()

    def topics(self) -> frozenset[str]:
        return frozenset({self.source})

    def control(self, messages: Sequence[Message]) -> None: ...

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None: ...

    def restore(self, messages: Sequence[Message]) -> None: ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None: ...

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        return Output([Record(self.target, message.value(), message.key()) for message in batch])

    def waiting(self) -> str | None:
        return None


def places(messages: Sequence[Message]) -> list[tuple[int, bytes | None]]:
    return [(message.offset(), message.value()) for message in messages]


def take(consumer: Consumer, timeout_s: float) -> list[bytes | None]:
    return [message.value() for message in consumer.consume(100, timeout_s)]
