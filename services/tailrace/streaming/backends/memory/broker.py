"""The broker in memory: topics, offsets, transactions, time."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial

from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Committed,
    OutOfRange,
    RecordRejected,
)
from tailrace.streaming.backends.memory.faults import Exceeded, Fault, Hook, LogLimits
from tailrace.streaming.backends.memory.groups import GroupCoordinator
from tailrace.streaming.backends.memory.state import OpenTransaction, PartitionLog, ProducerIdentity
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Headers, Message, PlainMessage, Record, RecordRef, TopicPartition


class MemoryBroker:
    """What tests see of it, and what its clients call.

    Args:
        hook: is called before each client call (see faults.py).
        rng: draws the order of partitions, assignments, and what a client notices when; none: they are always the same.
        session_timeout_ms: a group member that made no call for so long is taken for dead.
        transaction_timeout_ms: a transaction that is undecided for so long is aborted and its producer fenced.
        max_message_bytes: what a partition takes, key and value together.
        limits: raises `Exceeded` where a client goes beyond them.
    """

    def __init__(
        self,
        *,
        hook: Hook | None = None,
        rng: random.Random | None = None,
        session_timeout_ms: int = 6_000,
        transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS,
        max_message_bytes: int = 4 * 1024 * 1024,
        start_ms: int = 1_700_000_000_000,
        limits: LogLimits | None = None,
    ) -> None:
        self._limits = limits
        self.largest = LogLimits(0, 0, 0, 0)
        self.hook = hook
        self.now_ms = start_ms
        self._forgotten: dict[str, tuple[Mapping[TopicPartition, Committed], int]] = {}
        self._rng = rng
        self._session_timeout_ms = session_timeout_ms
        self._transaction_timeout_ms = transaction_timeout_ms
        self._max_message_bytes = max_message_bytes
        self._topics: dict[str, list[PartitionLog]] = {}
        self._identities: dict[str, ProducerIdentity] = {}
        self._open: dict[OpenTransaction, ProducerIdentity] = {}
        self._late: list[tuple[int, Callable[[], None]]] = []
        self._counter = 0
        self.groups = GroupCoordinator(self._topics, self.shuffled, self._next_number)

    # What tests do with it ---

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        if topic in self._topics:
            raise ValueError(f"topic {topic} exists")
        self._topics[topic] = [PartitionLog() for _ in range(partitions)]

    def topics(self) -> dict[str, int]:
        return {topic: len(partitions) for topic, partitions in self._topics.items()}

    def append(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> RecordRef:
        """Writes one record outside any transaction."""
        return self._append(Record(topic, value, key, headers, partition), None)

    def messages(self, topic: str, partition: int | None = None) -> list[Message]:
        """What a read_committed reader that reads the topic now gets, partition by partition."""
        return [
            message
            for number, log in enumerate(self._topics[topic])
            if partition in (None, number)
            for _, message in self._readable(log, log.start)
            if message is not None
        ]

    def committed(self, group: str) -> dict[TopicPartition, Committed]:
        return dict(self.groups.group(group).committed)

    def forget(self, group: str, remembered: Mapping[TopicPartition, Committed], until_ms: int) -> None:
        """As a broker that answers before it has read everything again. What is committed meanwhile counts."""
        self._forgotten[group] = remembered, until_ms

    def remembered(self, group: str) -> Mapping[TopicPartition, Committed]:
        """What the broker answers when it is asked what is committed."""
        remembered, until_ms = self._forgotten.get(group, ({}, 0))
        return remembered if self.now_ms < until_ms else self.groups.group(group).committed

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """What retention does: the partition starts at ``before`` from now on."""
        log = self._topics[topic][partition]
        log.start = max(log.start, min(before, log.end))

    def pass_time(self, ms: int) -> None:
        """Lets time go by: markers arrive, transactions time out, sessions expire."""
        self.now_ms += ms
        self._tick()

    def observe(self, **values: int) -> None:
        """Takes note of the largest that clients came to, and refuses what is beyond the limits."""
        for name, value in values.items():
            if value > getattr(self.largest, name):
                self.largest = replace(self.largest, **{name: value})
            if self._limits is not None and value > getattr(self._limits, name):
                raise Exceeded(f"{name}: {value}, of at most {getattr(self._limits, name)}")

    # Time -------------------------------------------------------------------------------------------------

    def call(self, client: str, name: str) -> Fault | None:
        """Each client call passes here before it takes effect."""
        self.now_ms += 1
        self._tick()
        if self.hook is None:
            return None
        before = self.now_ms
        fault = self.hook(client, name)
        if self.now_ms != before:
            self._tick()
        if fault is not None and fault.error is not None and not fault.applied and not fault.astray_ms:
            raise fault.error
        return fault

    def later(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._late.append((self.now_ms + delay_ms, action))

    def _tick(self) -> None:
        if self._late:
            due = [action for at, action in self._late if at <= self.now_ms]
            self._late = [(at, action) for at, action in self._late if at > self.now_ms]
            for action in due:
                action()
        if self._open:
            oldest = self.now_ms - self._transaction_timeout_ms
            for transaction, identity in list(self._open.items()):
                if transaction.started_ms < oldest:
                    identity.epoch += 1
                    self.decide(identity, committed=False)
        self.groups.expire(self.now_ms - self._session_timeout_ms)

    # Records ----------------------------------------------------------------------------------------------

    def partition(self, tp: TopicPartition) -> PartitionLog:
        return self._topics[tp.topic][tp.partition]

    def _append(self, record: Record, transaction: OpenTransaction | None) -> RecordRef:
        partitions = self._topics.get(record.topic)
        if partitions is None:
            raise Abortable(f"topic {record.topic} does not exist")
        if len(record.value or b"") + len(record.key or b"") > self._max_message_bytes:
            raise RecordRejected(f"a record for {record.topic} is too large")
        number = record.partition
        if number is None and record.key is not None:
            number = partition_of(record.key, len(partitions))
        if number is None:
            number = self._next_number() % len(partitions)
        log = partitions[number]
        offset = log.end
        topic, value, key, headers, _ = record
        message = PlainMessage(topic, number, offset, value, key, headers, self.now_ms)
        if transaction is not None:
            transaction.partitions.setdefault(TopicPartition(record.topic, number), offset)
            log.open.setdefault(transaction, offset)
        log.entries.append((message, transaction))
        return RecordRef(record.topic, number, offset)

    def _readable(self, log: PartitionLog, position: int) -> Iterable[tuple[int, PlainMessage | None]]:
        """Offsets up to the last stable one, each with its message or None where there is nothing to see."""
        for offset in range(position, log.last_stable):
            message, transaction = log.entries[offset]
            visible = message is not None and (transaction is None or transaction.committed)
            yield offset, message if visible else None

    def read(self, tp: TopicPartition, position: int, limit: int) -> tuple[list[Message], int]:
        """At most ``limit`` messages from ``position`` on, and the position after them."""
        log = self.partition(tp)
        if not log.start <= position <= log.end:
            raise OutOfRange(tp, position)
        if position == log.last_stable:
            return [], position
        messages: list[Message] = []
        for offset, message in self._readable(log, position):
            if len(messages) == limit:
                return messages, offset
            if message is not None:
                messages.append(message)
        return messages, max(position, log.last_stable)

    def shuffled(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        order = sorted(partitions)
        if self._rng is not None:
            self._rng.shuffle(order)
        return order

    def _next_number(self) -> int:
        self._counter += 1
        return self._counter

    def by_chance(self) -> bool:
        return self._rng is not None and self._rng.random() < 0.5

    # Transactions -----------------------------------------------------------------------------------------

    def identity(self, transactional_id: str) -> ProducerIdentity:
        return self._identities.setdefault(transactional_id, ProducerIdentity())

    def start(self, identity: ProducerIdentity) -> None:
        identity.transaction = OpenTransaction(self.now_ms)
        self._open[identity.transaction] = identity

    def produce(self, identity: ProducerIdentity, record: Record) -> None:
        transaction = identity.transaction
        assert transaction is not None
        transaction.records += 1
        transaction.size += len(record.value or b"")
        self._append(record, transaction)
        self.observe(records=transaction.records, size=transaction.size)

    def decide(self, identity: ProducerIdentity, *, committed: bool, marker_delay_ms: int = 0) -> None:
        """Commits or aborts; the markers come in one by one, after the delay, and only then it shows."""
        transaction = identity.transaction
        assert transaction is not None
        transaction.committed = committed
        if committed:
            self.observe(open_ms=self.now_ms - transaction.started_ms)
        self._open.pop(transaction, None)
        markers: list[Callable[[], None]] = [
            *(partial(self._mark, transaction, tp) for tp in transaction.partitions),
            *(partial(self._mark_group, transaction, group) for group in transaction.offsets),
        ]
        for number, marker in enumerate(markers, 1):
            if marker_delay_ms:
                self.later(marker_delay_ms * number // len(markers), marker)
            else:
                marker()

    def end_transaction(self, identity: ProducerIdentity) -> None:
        """Waits for the markers of the last transaction of this id, as a broker lets the next one wait."""
        transaction = identity.transaction
        if transaction is not None:
            for tp in list(transaction.partitions):
                self._mark(transaction, tp)
            for group in list(transaction.offsets):
                self._mark_group(transaction, group)
        identity.transaction = None

    def _mark(self, transaction: OpenTransaction, tp: TopicPartition) -> None:
        if transaction.partitions.pop(tp, None) is not None:
            log = self.partition(tp)
            del log.open[transaction]
            log.entries.append((None, None))

    def _mark_group(self, transaction: OpenTransaction, group: str) -> None:
        offsets = transaction.offsets.pop(group, None)
        if offsets is not None and transaction.committed:
            self.groups.group(group).committed.update(offsets)

    def undecided(self, group: str, partitions: Collection[TopicPartition]) -> bool:
        """Whether a transaction holds offsets for one of these partitions whose marker is not in."""
        return any(
            identity.transaction is not None
            and not identity.transaction.offsets.get(group, {}).keys().isdisjoint(partitions)
            for identity in self._identities.values()
        )
