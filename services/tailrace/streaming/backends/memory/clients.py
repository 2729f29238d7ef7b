"""Clients of the broker in memory: what the Kafka backend promises, and what goes wrong with it on demand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tailrace.streaming.backends.abstract import (
    MAX_METADATA_BYTES,
    Abortable,
    Committed,
    Fatal,
    Fenced,
    History,
    LogError,
    Membership,
    OutcomeUnknown,
    OutOfRange,
    RebalanceListener,
    Retriable,
)
from tailrace.streaming.backends.memory.broker import MemoryBroker
from tailrace.streaming.backends.memory.faults import Fault
from tailrace.streaming.backends.memory.state import GroupMember, OpenTransaction
from tailrace.streaming.records import Message, Record, TopicPartition

_Callback = Callable[[Collection[TopicPartition]], None]
_Places = Mapping[TopicPartition, int]


@dataclass
class MemoryBackend:
    """One client's way to the log, under the name that the hook is given."""

    log: MemoryBroker
    name: str

    def topics(self) -> Mapping[str, int]:
        self.log.call(self.name, "topics")
        return self.log.topics()

    def consumer(self, group: str, *, co_partitioned: bool = False) -> MemoryConsumer:
        return MemoryConsumer(self.log, self.name, group, eager=co_partitioned)

    def producer(self, transactional_id: str) -> MemoryProducer:
        return MemoryProducer(self.log, self.name, transactional_id)

    def reader(self, topics: Sequence[str]) -> MemoryReader:
        counts = self.log.topics()
        missing = [topic for topic in topics if topic not in counts]
        if missing:
            raise Retriable(f"no such topic: {', '.join(missing)}")
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]
        starts = {tp: self.log.partition(tp).start for tp in partitions}
        ends = {tp: self.log.partition(tp).end for tp in partitions}
        return MemoryReader(self.log, self.name, starts, ends, follow=True)

    def history(self, stretches: History) -> MemoryReader:
        self.log.call(self.name, "history")
        starts = {tp: start for tp, (start, _) in stretches.items()}
        real_ends = {tp: self.log.partition(tp).end for tp in stretches}
        ends = {tp: real_ends[tp] if end is None else end for tp, (_, end) in stretches.items()}
        for tp, end in ends.items():
            if end > real_ends[tp]:
                raise OutOfRange(tp, end)
        return MemoryReader(self.log, self.name, starts, ends, follow=False)


class MemoryConsumer:
    def __init__(self, log: MemoryBroker, name: str, group: str, *, eager: bool) -> None:
        self._log = log
        self._name = name
        self._group_name = group
        self._group = log.groups.group(group)
        self._eager = eager
        self._topics: frozenset[str] = frozenset()
        self._listener: RebalanceListener | None = None
        self._member: GroupMember | None = None
        self._noticed = False
        self._polled_ms: int | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        self._call("subscribe")
        self._topics = frozenset(topics)
        self._listener = listener
        if self._member is not None and not self._member.expired:
            self._member.topics = self._topics
            self._log.groups.rebalance(self._group)

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        fault = self._call("consume")
        if self._polled_ms is not None:
            self._log.observe(poll_ms=self._log.now_ms - self._polled_ms)
        self._polled_ms = self._log.now_ms
        # What was fetched before the group moved may be handed over in the same call as what came after.
        messages = self._read(limit // 2) if self._log.by_chance() else []
        self._follow_group()
        messages += self._read(limit - len(messages))
        if not messages and timeout_s:
            self._log.pass_time(int(timeout_s * 1000))
            self._polled_ms = self._log.now_ms
        # A client that fails in the middle of it has let go of what it had fetched.
        _raise(fault)
        return messages

    def _read(self, limit: int) -> list[Message]:
        messages: list[Message] = []
        for tp in self._log.shuffled(self._positions.keys() - self._paused):
            if len(messages) == limit:
                break
            new, self._positions[tp] = self._log.read(tp, self._positions[tp], limit - len(messages))
            messages += new
        return messages

    def _follow_group(self) -> None:
        """What the client library does with the group from within consume: joins, and calls the listener."""
        if self._listener is None:
            return
        if self._member is not None and self._member.expired:
            self._leave(self._member, self._listener.on_lost)
        if self._member is None:
            if not self._topics:
                return
            self._member = self._log.groups.join(self._group, self._topics, self._eager, self._log.now_ms)
            self._noticed = False
        member = self._member
        if self._eager and self._group.rebalancing and not member.joined:
            if member.owned:
                self._drop(member, set(member.owned), self._listener.on_revoke)
            member.joined = True
            self._log.groups.complete(self._group)
        if member.joined:
            return
        revoked = member.owned - member.target
        if revoked:
            self._drop(member, revoked, self._listener.on_revoke)
            self._log.groups.rebalance(self._group)
        new = {tp for tp in member.target - member.owned if self._log.groups.free(self._group, tp)}
        if new and not member.expired:
            member.owned |= new
            self._positions.update(self._listener.on_assign(sorted(new)))

    def _drop(self, member: GroupMember, partitions: set[TopicPartition], callback: _Callback) -> None:
        callback(sorted(partitions))
        member.owned -= partitions
        self._paused -= partitions
        for tp in partitions:
            self._positions.pop(tp, None)

    def _leave(self, member: GroupMember, callback: _Callback) -> None:
        if member.owned:
            self._drop(member, set(member.owned), callback)
        self._log.groups.remove(self._group, member)
        self._member = None

    def member_id(self) -> str:
        self._call("member_id")
        return self._identity()[0]

    def membership(self) -> Membership:
        self._call("membership")
        member_id, generation = self._identity()
        return Membership(member_id, (self._group_name, member_id, generation))

    def _identity(self) -> tuple[str, int]:
        """A client learns that it is no member by a heartbeat, some time after it is so."""
        member = self._member
        if member is None:
            return "", -1
        if member.expired and not self._noticed:
            self._noticed = self._log.by_chance()
        return ("", -1) if self._noticed else (member.id, self._group.generation)

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        self._call("committed")
        if self._log.undecided(self._group_name, partitions):
            raise Retriable("a transaction with offsets for these partitions is undecided")
        committed = self._log.remembered(self._group_name)
        return {tp: committed.get(tp) for tp in partitions}

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        fault = self._call("commit")
        _check(offsets)
        member_id, generation = self._identity()
        # As on a broker: who is no member may commit while there is none.
        stranger = not member_id and not self._group.members
        if not stranger and (member_id not in self._group.members or generation != self._group.generation):
            raise Abortable("not a member of the group's current generation")
        self._group.committed.update(offsets)
        _raise(fault)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._call("seek")
        if partition not in self._positions:
            raise Retriable(f"{partition} is not assigned")
        self._positions[partition] = offset

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused |= self._positions.keys() & set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused -= set(partitions)

    def earliest(self, partition: TopicPartition) -> int:
        self._call("earliest")
        return self._log.partition(partition).start

    def end(self, partition: TopicPartition) -> int | None:
        return self._log.partition(partition).end

    def close(self) -> None:
        self._call("close")
        if self._member is not None and self._listener is not None:
            lost = self._member.expired
            self._leave(self._member, self._listener.on_lost if lost else self._listener.on_revoke)

    def _call(self, name: str) -> Fault | None:
        fault = self._log.call(self._name, name)
        if self._member is not None:
            self._member.seen_ms = self._log.now_ms
        return fault


class MemoryProducer:
    def __init__(self, log: MemoryBroker, name: str, transactional_id: str) -> None:
        self._log = log
        self._name = name
        self._identity = log.identity(transactional_id)
        self._epoch: int | None = None
        self._in_transaction = False
        self._unsure = False
        self._begun: Callable[[], None] | None = None

    def init(self) -> None:
        fault = self._log.call(self._name, "init")
        identity = self._identity
        identity.epoch += 1
        if identity.transaction is not None and identity.transaction.committed is None:
            self._log.decide(identity, committed=False)
        self._log.end_transaction(identity)
        self._epoch = identity.epoch
        _raise(fault)

    def begin(self) -> None:
        self._call("begin")
        if self._in_transaction and not self._unsure:
            raise Fatal("a transaction is open")
        self._unsure = False
        self._in_transaction = True

    def produce(self, records: Sequence[Record]) -> None:
        fault = self._call("produce")
        for record in records:
            self._add()
            self._log.produce(self._identity, record)
        _raise(fault)

    def send_offsets(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        fault = self._call("send_offsets")
        _check(offsets)
        assert isinstance(membership.token, tuple)
        name, member_id, generation = membership.token
        group = self._log.groups.group(name)
        # As on a broker: who names no member and no generation is not checked.
        is_checked = bool(member_id) or generation >= 0
        if is_checked and (member_id not in group.members or generation != group.generation):
            raise Abortable("not a member of the group's current generation")
        self._add().offsets.setdefault(name, {}).update(offsets)
        _raise(fault)

    def begin_commit(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        # What is begun may arrive at any time until it is waited for.
        begun = partial(self._send_and_commit, offsets, membership)
        self._begun = partial(_raise, Fault(_outcome(begun))) if self._log.by_chance() else begun

    def _send_and_commit(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        try:
            self.send_offsets(offsets, membership)
        except Retriable as error:
            raise Abortable(str(error)) from error
        self.commit()

    def commit(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun()
        else:
            self._end("commit_transaction", committed=True)

    def abort(self) -> None:
        self._end("abort_transaction", committed=False)

    def close(self) -> None:
        pass

    def _end(self, name: str, *, committed: bool) -> None:
        if not self._in_transaction:
            raise Fatal("no transaction is open")
        try:
            fault = self._call(name) or Fault()
        except OutcomeUnknown:
            self._unsure = True
            raise
        # Nothing keeps a client from its next transaction when it does not know of its last; it had better not.
        self._unsure = isinstance(fault.error, OutcomeUnknown)
        if fault.astray_ms:
            self._log.later(fault.astray_ms, partial(self._arrive, self._epoch, committed, 0))
        else:
            self._arrive(self._epoch, committed, fault.marker_delay_ms)
        _raise(fault)
        self._in_transaction = False

    def _arrive(self, epoch: int | None, committed: bool, marker_delay_ms: int) -> None:
        transaction = self._identity.transaction
        if epoch == self._identity.epoch and transaction is not None and transaction.committed is None:
            self._log.decide(self._identity, committed=committed, marker_delay_ms=marker_delay_ms)

    def _add(self) -> OpenTransaction:
        """The broker's transaction, which begins with what is first added to it."""
        if not self._in_transaction:
            raise Fatal("no transaction is open")
        transaction = self._identity.transaction
        if transaction is None or transaction.committed is not None:
            self._log.end_transaction(self._identity)
            self._log.start(self._identity)
        assert self._identity.transaction is not None
        return self._identity.transaction

    def _call(self, name: str) -> Fault | None:
        assert self._begun is None, f"{name} while a commit is under way"
        fault = self._log.call(self._name, name)
        if self._epoch != self._identity.epoch:
            raise Fenced("another producer with this transactional id has taken over")
        return fault


class MemoryReader:
    """Reads partitions from ``starts`` on, each in order, up to ``ends`` and, with ``follow``, onwards."""

    def __init__(self, log: MemoryBroker, name: str, starts: _Places, ends: _Places, *, follow: bool) -> None:
        self._log = log
        self._name = name
        self._positions = dict(starts)
        self._ends = ends
        self._follow = follow

    def poll(self, timeout_s: float) -> Sequence[Message]:
        self._log.call(self._name, "poll")
        messages: list[Message] = []
        for tp, position in self._positions.items():
            start, end = max(position, self._log.partition(tp).start), self._ends[tp]
            if self._follow or start < end:
                limit = 3 if not self._follow and self._log.by_chance() else 1_000_000
                new, start = self._log.read(tp, start, limit)
                messages += [message for message in new if self._follow or message.offset() < end]
            self._positions[tp] = start
        if not messages and timeout_s:
            self._log.pass_time(int(timeout_s * 1000))
        return messages

    def caught_up(self) -> bool:
        return all(self._positions[tp] >= end for tp, end in self._ends.items())

    def close(self) -> None:
        pass


def _check(offsets: Mapping[TopicPartition, Committed]) -> None:
    for tp, committed in offsets.items():
        if len(committed.metadata.encode()) > MAX_METADATA_BYTES:
            raise Abortable(f"{tp}: the metadata is too large")


def _outcome(call: Callable[[], None]) -> LogError | None:
    try:
        call()
    except LogError as error:
        return error
    return None


def _raise(fault: Fault | None) -> None:
    if fault is not None and fault.error is not None:
        raise fault.error
