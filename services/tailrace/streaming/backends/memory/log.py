"""A log in memory with Kafka's semantics, for tests: deterministic, and hostile on demand.

What is modelled: partitions and murmur2, offsets, read_committed with the last stable offset, transaction
markers that take offsets and may come late, commits whose outcome the caller does not learn, fencing,
consumer groups with sessions that expire and generations (cooperative, or eager with ``range``), committed
offsets with metadata, deleted records. Time is the log's own: each client call takes a millisecond, waiting
takes what it says.

A ``hook`` is told of each client call before it takes effect. It may raise (a crash), return a ``Fault``,
or do something else with the log in the meantime, such as letting other instances run: to the caller that
is a stall.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tailrace.streaming.backends.abstract import (
    MAX_METADATA_BYTES,
    TRANSACTION_TIMEOUT_MS,
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
    RecordRejected,
    Retriable,
)
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.records import Headers, Message, PlainMessage, Record, RecordRef, TopicPartition


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with a call: ``error`` is raised, before the call takes effect or (``applied``) after
    it.

    ``marker_delay_ms`` lets the markers of a commit or abort come that much later; it needs no error.
    ``astray_ms`` raises the error and lets the request of a commit or abort arrive that much later, to end
    whatever transaction the same producer has open by then.
    """

    error: BaseException | None = None
    applied: bool = False
    marker_delay_ms: int = 0
    astray_ms: int = 0


Hook = Callable[[str, str], Fault | None]
"""Called with the client's name and the call's (``consume``, ``commit_transaction``, ...)."""


@dataclass(frozen=True, slots=True)
class LogLimits:
    """What no client of a bounded log may exceed: the records and bytes of a transaction, how long it is open, and how
    long a member of a group consumes nothing.
    """

    records: int
    size: int
    open_ms: int
    poll_ms: int


class Exceeded(AssertionError):
    """A client went beyond the log's limits."""


class _Transaction:
    """One transaction, from its first record to its last marker."""

    def __init__(self, started_ms: int) -> None:
        self.records = 0
        self.size = 0
        self.started_ms = started_ms
        self.committed: bool | None = None  # None: undecided
        self.partitions: dict[TopicPartition, int] = {}  # first offset of each that has no marker yet
        self.offsets: dict[str, dict[TopicPartition, Committed]] = {}  # by group; gone once its marker is in


class _Partition:
    def __init__(self) -> None:
        self.start = 0
        # A None stands for a transaction marker: it takes an offset and is never seen.
        self.entries: list[tuple[PlainMessage | None, _Transaction | None]] = []
        self.open: dict[_Transaction, int] = {}

    @property
    def end(self) -> int:
        return len(self.entries)

    @property
    def last_stable(self) -> int:
        return min(self.open.values()) if self.open else len(self.entries)


class _Identity:
    """What the transaction coordinator knows of one transactional id."""

    def __init__(self) -> None:
        self.epoch = 0
        self.transaction: _Transaction | None = None


class _Member:
    """A group member, as coordinator and client see it (``expired`` is what the client has yet to learn)."""

    def __init__(self, member_id: str, topics: frozenset[str], eager: bool) -> None:
        self.id = member_id
        self.topics = topics
        self.eager = eager
        self.held: set[TopicPartition] = set()
        self.target: set[TopicPartition] = set()
        self.seen_ms = 0
        self.expired = False
        self.joined = False  # eager: has given up its partitions and waits for the others to


class _Group:
    def __init__(self) -> None:
        self.generation = 0
        self.members: dict[str, _Member] = {}
        self.committed: dict[TopicPartition, Committed] = {}
        self.rebalancing = False  # eager: not all have joined


class MemoryLog:
    """The broker.

    Args:
        hook: see the module.
        rng: where the order of partitions, assignments and what a client notices when are left to chance;
        without
            it they are always the same.
        session_timeout_ms: a group member that made no call for so long is taken for dead.
        transaction_timeout_ms: a transaction that is undecided for so long is aborted and its producer
        fenced. max_message_bytes: what a partition takes, key and value together.
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
        self._topics: dict[str, list[_Partition]] = {}
        self._groups: dict[str, _Group] = {}
        self._identities: dict[str, _Identity] = {}
        self._open: dict[_Transaction, _Identity] = {}
        self._late: list[tuple[int, Callable[[], None]]] = []
        self._counter = 0

    # What tests do with it --------------------------------------------------------------------------------

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        if topic in self._topics:
            raise ValueError(f"topic {topic} exists")
        self._topics[topic] = [_Partition() for _ in range(partitions)]

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
        found: list[Message] = []
        for number, log in enumerate(self._topics[topic]):
            if partition in (None, number):
                found += [m for _, m in self._readable(log, log.start) if m is not None]
        return found

    def committed(self, group: str) -> dict[TopicPartition, Committed]:
        return dict(self._group(group).committed)

    def forget(self, group: str, said: Mapping[TopicPartition, Committed], until_ms: int) -> None:
        """What a broker does that answers before it has read everything again: it says this instead of what is
        committed. What is committed to it meanwhile counts.
        """
        self._forgotten[group] = said, until_ms

    def said_to_be_committed(self, group: str) -> Mapping[TopicPartition, Committed]:
        said, until_ms = self._forgotten.get(group, ({}, 0))
        return said if self.now_ms < until_ms else self._group(group).committed

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """What retention does: the partition starts at ``before`` from now on."""
        log = self._topics[topic][partition]
        log.start = max(log.start, min(before, log.end))

    def pass_time(self, ms: int) -> None:
        """Lets time go by: markers arrive, transactions time out, sessions expire."""
        self.now_ms += ms
        self._tick()

    def backend(self, name: str = "client") -> MemoryBackend:
        return MemoryBackend(self, name)

    def observe(self, **what: int) -> None:
        """Takes note of the largest that clients came to, and refuses what is beyond the limits."""
        for name, value in what.items():
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
        oldest = self.now_ms - self._session_timeout_ms
        for group in self._groups.values():
            for member in list(group.members.values()):
                if member.seen_ms < oldest:
                    self.remove(group, member)

    # Records ----------------------------------------------------------------------------------------------

    def partition(self, tp: TopicPartition) -> _Partition:
        return self._topics[tp.topic][tp.partition]

    def _append(self, record: Record, transaction: _Transaction | None) -> RecordRef:
        partitions = self._topics.get(record.topic)
        if partitions is None:
            raise Abortable(f"topic {record.topic} does not exist")
        if len(record.value or b"") + len(record.key or b"") > self._max_message_bytes:
            raise RecordRejected(f"a record for {record.topic} is too large")
        number = record.partition
        if number is None and record.key is not None:
            number = partition_of(record.key, len(partitions))
        if number is None:
            self._counter += 1
            number = self._counter % len(partitions)
        log = partitions[number]
        offset = log.end
        message = PlainMessage(
            record.topic, number, offset, record.value, record.key, record.headers, self.now_ms
        )
        if transaction is not None:
            transaction.partitions.setdefault(TopicPartition(record.topic, number), offset)
            log.open.setdefault(transaction, offset)
        log.entries.append((message, transaction))
        return RecordRef(record.topic, number, offset)

    def _readable(self, log: _Partition, position: int) -> Iterable[tuple[int, PlainMessage | None]]:
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
        found: list[Message] = []
        for offset, message in self._readable(log, position):
            if len(found) == limit:
                return found, offset
            if message is not None:
                found.append(message)
        return found, max(position, log.last_stable)

    def shuffled(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        order = sorted(partitions)
        if self._rng is not None:
            self._rng.shuffle(order)
        return order

    def by_chance(self) -> bool:
        return self._rng is not None and self._rng.random() < 0.5

    # Transactions -----------------------------------------------------------------------------------------

    def identity(self, transactional_id: str) -> _Identity:
        return self._identities.setdefault(transactional_id, _Identity())

    def start(self, identity: _Identity) -> None:
        identity.transaction = _Transaction(self.now_ms)
        self._open[identity.transaction] = identity

    def produce(self, identity: _Identity, record: Record) -> None:
        transaction = identity.transaction
        assert transaction is not None
        transaction.records += 1
        transaction.size += len(record.value or b"")
        self._append(record, transaction)
        self.observe(records=transaction.records, size=transaction.size)

    def decide(self, identity: _Identity, *, committed: bool, marker_delay_ms: int = 0) -> None:
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

    def end_transaction(self, identity: _Identity) -> None:
        """Waits for the markers of the last transaction of this id, as a broker lets the next one wait."""
        transaction = identity.transaction
        if transaction is not None:
            for tp in list(transaction.partitions):
                self._mark(transaction, tp)
            for group in list(transaction.offsets):
                self._mark_group(transaction, group)
        identity.transaction = None

    def _mark(self, transaction: _Transaction, tp: TopicPartition) -> None:
        if transaction.partitions.pop(tp, None) is not None:
            log = self.partition(tp)
            del log.open[transaction]
            log.entries.append((None, None))

    def _mark_group(self, transaction: _Transaction, group: str) -> None:
        offsets = transaction.offsets.pop(group, None)
        if offsets is not None and transaction.committed:
            self._group(group).committed.update(offsets)

    def undecided(self, group: str, partitions: Collection[TopicPartition]) -> bool:
        """Whether a transaction holds offsets for one of these partitions whose marker is not in."""
        return any(
            identity.transaction is not None
            and not identity.transaction.offsets.get(group, {}).keys().isdisjoint(partitions)
            for identity in self._identities.values()
        )

    # Groups -----------------------------------------------------------------------------------------------

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    group = _group

    def join(self, group: _Group, topics: frozenset[str], eager: bool) -> _Member:
        self._counter += 1
        member = _Member(f"member-{self._counter}", topics, eager)
        member.seen_ms = self.now_ms
        group.members[member.id] = member
        self.rebalance(group)
        return member

    def remove(self, group: _Group, member: _Member) -> None:
        member.expired = True
        if group.members.pop(member.id, None) is not None:
            self.rebalance(group)

    def rebalance(self, group: _Group) -> None:
        """Cooperative members rejoin at once, holding on to what they have; eager ones let go of everything
        first.
        """
        if any(m.eager for m in group.members.values()):
            group.rebalancing = True
            self.complete(group)
        else:
            group.generation += 1
            self._assign(group)

    def complete(self, group: _Group) -> None:
        """Ends an eager rebalance once every member has joined."""
        if group.rebalancing and all(m.joined for m in group.members.values()):
            group.generation += 1
            group.rebalancing = False
            for member in group.members.values():
                member.joined = False
            self._assign(group)

    def _assign(self, group: _Group) -> None:
        members = [group.members[name] for name in sorted(group.members)]
        before = {tp: m for m in members for tp in m.target}
        for member in members:
            member.target = set()
        eager = any(m.eager for m in members)
        for topic in sorted({topic for m in members for topic in m.topics if topic in self._topics}):
            takers = [m for m in members if topic in m.topics]
            count = len(self._topics[topic])
            if eager:
                for index, member in enumerate(takers):
                    first = -(-count * index // len(takers))
                    last = -(-count * (index + 1) // len(takers))
                    member.target |= {TopicPartition(topic, p) for p in range(first, last)}
                continue
            quota = -(-count // len(takers))
            has = {m.id: 0 for m in takers}
            homeless = []
            for tp in self.shuffled([TopicPartition(topic, p) for p in range(count)]):
                owner = before.get(tp)
                if owner in takers and has[owner.id] < quota:
                    owner.target.add(tp)
                    has[owner.id] += 1
                else:
                    homeless.append(tp)
            for tp in homeless:
                taker = min(takers, key=lambda m: (has[m.id], m.id))
                taker.target.add(tp)
                has[taker.id] += 1

    def free(self, group: _Group, tp: TopicPartition) -> bool:
        return all(tp not in m.held for m in group.members.values())


@dataclass
class MemoryBackend:
    """One client's way to the log; ``name`` is what the hook is told."""

    log: MemoryLog
    name: str

    def topics(self) -> Mapping[str, int]:
        self.log.call(self.name, "topics")
        return self.log.topics()

    def consumer(self, group: str, *, co_partitioned: bool = False) -> MemoryConsumer:
        return MemoryConsumer(self.log, self.name, group, eager=co_partitioned)

    def producer(self, transactional_id: str) -> MemoryProducer:
        return MemoryProducer(self.log, self.name, transactional_id)

    def reader(self, topics: Sequence[str]) -> MemoryReader:
        return MemoryReader(self.log, self.name, topics)

    def history(self, stretches: History) -> MemoryHistory:
        return MemoryHistory(self.log, self.name, stretches)


class MemoryConsumer:
    def __init__(self, log: MemoryLog, name: str, group: str, *, eager: bool) -> None:
        self._log = log
        self._name = name
        self._group_name = group
        self._group = log.group(group)
        self._eager = eager
        self._topics: frozenset[str] = frozenset()
        self._listener: RebalanceListener | None = None
        self._member: _Member | None = None
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
            self._log.rebalance(self._group)

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        fault = self._call("consume")
        if self._polled_ms is not None:
            self._log.observe(poll_ms=self._log.now_ms - self._polled_ms)
        self._polled_ms = self._log.now_ms
        # What was fetched before the group moved may be handed over in the same call as what came after.
        found = self._read(limit // 2) if self._log.by_chance() else []
        self._follow_group()
        found += self._read(limit - len(found))
        if not found and timeout_s:
            self._log.pass_time(int(timeout_s * 1000))
            self._polled_ms = self._log.now_ms
        # A client that fails in the middle of it has let go of what it had fetched.
        _raise(fault)
        return found

    def _read(self, limit: int) -> list[Message]:
        found: list[Message] = []
        for tp in self._log.shuffled(self._positions.keys() - self._paused):
            if len(found) == limit:
                break
            messages, self._positions[tp] = self._log.read(tp, self._positions[tp], limit - len(found))
            found += messages
        return found

    def _follow_group(self) -> None:
        """What the client library does with the group from within consume: joins, and calls the listener."""
        if self._listener is None:
            return
        if self._member is not None and self._member.expired:
            self._leave(self._member, self._listener.on_lost)
        if self._member is None:
            if not self._topics:
                return
            self._member = self._log.join(self._group, self._topics, self._eager)
            self._noticed = False
        member = self._member
        if self._eager and self._group.rebalancing and not member.joined:
            if member.held:
                self._drop(member, set(member.held), self._listener.on_revoke)
            member.joined = True
            self._log.complete(self._group)
        if member.joined:
            return
        revoked = member.held - member.target
        if revoked:
            self._drop(member, revoked, self._listener.on_revoke)
            self._log.rebalance(self._group)
        new = {tp for tp in member.target - member.held if self._log.free(self._group, tp)}
        if new and not member.expired:
            member.held |= new
            self._positions.update(self._listener.on_assign(sorted(new)))

    def _drop(
        self,
        member: _Member,
        partitions: set[TopicPartition],
        tell: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        tell(sorted(partitions))
        member.held -= partitions
        self._paused -= partitions
        for tp in partitions:
            self._positions.pop(tp, None)

    def _leave(self, member: _Member, tell: Callable[[Collection[TopicPartition]], None]) -> None:
        if member.held:
            self._drop(member, set(member.held), tell)
        self._log.remove(self._group, member)
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
        said = self._log.said_to_be_committed(self._group_name)
        return {tp: said.get(tp) for tp in partitions}

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
    def __init__(self, log: MemoryLog, name: str, transactional_id: str) -> None:
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
        group = self._log.group(name)
        # As on a broker: who names no member and no generation is not checked.
        if (member_id or generation >= 0) and (
            member_id not in group.members or generation != group.generation
        ):
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

    def _add(self) -> _Transaction:
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


@dataclass
class MemoryReader:
    log: MemoryLog
    name: str
    topics: Sequence[str]
    _positions: dict[TopicPartition, int] = field(init=False)
    _ends: dict[TopicPartition, int] = field(init=False)

    def __post_init__(self) -> None:
        counts = self.log.topics()
        missing = [topic for topic in self.topics if topic not in counts]
        if missing:
            raise Retriable(f"no such topic: {', '.join(missing)}")
        partitions = [TopicPartition(topic, p) for topic in self.topics for p in range(counts[topic])]
        self._positions = {tp: self.log.partition(tp).start for tp in partitions}
        self._ends = {tp: self.log.partition(tp).end for tp in partitions}

    def poll(self, timeout_s: float) -> Sequence[Message]:
        self.log.call(self.name, "poll")
        found: list[Message] = []
        for tp in self._positions:
            messages, self._positions[tp] = self.log.read(tp, self._positions[tp], 1_000_000)
            found += messages
        if not found and timeout_s:
            self.log.pass_time(int(timeout_s * 1000))
        return found

    def caught_up(self) -> bool:
        return all(self._positions[tp] >= end for tp, end in self._ends.items())

    def close(self) -> None:
        pass


class MemoryHistory:
    def __init__(self, log: MemoryLog, name: str, stretches: History) -> None:
        log.call(name, "history")
        self._log = log
        self._name = name
        self._left: dict[TopicPartition, tuple[int, int]] = {}
        for tp, (start, end) in stretches.items():
            last = log.partition(tp).end
            if end is not None and end > last:
                raise OutOfRange(tp, end)
            self._left[tp] = start, last if end is None else end

    def poll(self, timeout_s: float) -> Sequence[Message]:
        self._log.call(self._name, "poll")
        found: list[Message] = []
        for tp, (start, end) in list(self._left.items()):
            start = max(start, self._log.partition(tp).start)
            if start < end:
                messages, start = self._log.read(tp, start, 3 if self._log.by_chance() else 10_000)
                found += [message for message in messages if message.offset() < end]
            self._left[tp] = start, end
            if start >= end:
                del self._left[tp]
        if not found and timeout_s:
            self._log.pass_time(int(timeout_s * 1000))
        return found

    def caught_up(self) -> bool:
        return not self._left

    def close(self) -> None:
        pass


@dataclass
class MemoryClock:
    """The log's time as a clock, so that waiting costs nothing."""

    log: MemoryLog
    name: str = "client"

    def now_ms(self) -> int:
        return self.log.now_ms

    def perf_ns(self) -> int:
        return self.log.now_ms * 1_000_000

    def sleep(self, seconds: float) -> None:
        self.log.call(self.name, "sleep")
        self.log.pass_time(int(seconds * 1000))


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
