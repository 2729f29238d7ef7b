"""The log as services need it: what the Kafka backend and the in-memory backend both promise.

Everything that is exactly once rests on the few calls below. They raise the kinds of error that a caller can act on;
anything else that comes out of them is a bug. One conformance suite keeps both backends to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from tailrace.streaming.records import Message, Record, TopicPartition

MAX_METADATA_BYTES = 4095
"""What a broker stores with a committed offset, at most (``offset.metadata.max.bytes`` less one)."""

TRANSACTION_TIMEOUT_MS = 4_000
"""How long a transaction may be open. Then the log aborts it, and fences off who began it."""


class LogError(Exception):
    """A call to the log failed; the subclass says what the caller may do about it."""


class Retriable(LogError):
    """Nothing is wrong but the moment: the same call may be made again with the same arguments."""


class Abortable(LogError):
    """The transaction or commit did not go through: abort, go back to the committed offsets, begin again."""


class OutcomeUnknown(LogError):
    """It is not known whether the transaction was committed.

    The committed offsets say so, once ``init`` of a new producer with the same transactional id has returned.
    """


class RecordRejected(LogError):
    """The log will never take this record (too large, for example): a bug of whoever made it."""


class Fatal(LogError):
    """This client is of no further use: stop the process and start afresh."""


class Fenced(Fatal):
    """Another producer with the same transactional id has taken over, or its transaction was open for too long."""


class OutOfRange(LogError):
    """The offset to read from is not in the log: deleted by retention before it was read, or cut off at the end."""

    def __init__(self, partition: TopicPartition, offset: int) -> None:
        super().__init__(f"{partition.topic}/{partition.partition}: offset {offset} is not in the log")
        self.partition = partition
        self.offset = offset


class Committed(NamedTuple):
    """A committed offset: the next one to be processed, and the small facts stored with it."""

    offset: int
    metadata: str = ""


History = Mapping[TopicPartition, tuple[int, int | None]]
"""Stretches of partitions: from an offset up to, not including, another; None stands for the partition's end."""


class Membership(NamedTuple):
    """Who this consumer is in its group at one moment.

    ``member_id`` is empty when it is no member, which can be so while its assignment still lists partitions.
    ``token`` (member id and generation) is for ``TransactionalProducer.send_offsets`` alone.
    """

    member_id: str
    token: object


class RebalanceListener(Protocol):
    """Told of partitions that come and go, from within ``Consumer.consume`` (and ``close``)."""

    def on_assign(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Partitions that are new; returns the offset to read each from."""
        ...

    def on_revoke(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions that are to be given up; they are still this member's until this returns."""
        ...

    def on_lost(self, partitions: Collection[TopicPartition]) -> None:
        """Partitions that were taken away already; another member may be working on them."""
        ...


class Consumer(Protocol):
    """A member of a consumer group that reads what is committed and keeps its own account of offsets."""

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        """Replaces the subscription. The topics exist. None at all leaves the group."""
        ...

    def consume(self, limit: int, timeout_s: float) -> Sequence[Message]:
        """At most ``limit`` messages, each partition in order; fewer, or none, when ``timeout_s`` is over before.

        A timeout of 0 takes what has been fetched. Where the listener was called meanwhile, they may be from before or
        after.

        Raises:
            OutOfRange: the position of an assigned partition is not in the log.
        """
        ...

    def member_id(self) -> str:
        """This member's id, empty when it is none."""
        ...

    def membership(self) -> Membership: ...

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, Committed | None]:
        """What the group has committed, None where nothing yet.

        Raises:
            Retriable: among others, while a transaction that may change the answer is undecided.
        """
        ...

    def commit(self, offsets: Mapping[TopicPartition, Committed]) -> None:
        """Commits outside a transaction, and waits for it.

        Raises:
            Abortable: this consumer is no longer a member of the group's current generation.
        """
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Reads on from ``offset``. Raises ``Retriable`` while the partition is still being set up."""
        ...

    def pause(self, partitions: Collection[TopicPartition]) -> None: ...

    def resume(self, partitions: Collection[TopicPartition]) -> None: ...

    def earliest(self, partition: TopicPartition) -> int:
        """The first offset that the log still holds; asks the log."""
        ...

    def end(self, partition: TopicPartition) -> int | None:
        """The end of the partition as last heard of, without asking; None while nothing was heard."""
        ...

    def close(self) -> None:
        """Leaves the group (the listener is told)."""
        ...


class TransactionalProducer(Protocol):
    """Writes records and a group's offsets together, or not at all. Keys decide the partition by murmur2."""

    def init(self) -> None:
        """Ends whatever an earlier producer of this transactional id left unfinished, and fences it."""
        ...

    def begin(self) -> None: ...

    def produce(self, records: Sequence[Record]) -> None:
        """Raises `RecordRejected` where one of them cannot be written at all. Of what the log itself refuses, that may
        be said only when it is produced again after an abort; the first time the commit is ``Abortable`` then.
        """
        ...

    def send_offsets(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        """Makes the group's offsets part of the transaction.

        Raises:
            Abortable: the membership is not of the group's current generation. A membership without a
                member id is not checked at all, by any broker: the caller has to.
            OutcomeUnknown: nobody knows how far it came; only a new producer goes on.
        """
        ...

    def begin_commit(self, offsets: Mapping[TopicPartition, Committed], membership: Membership) -> None:
        """Begins to send the offsets and to commit. What comes of both ``commit`` says, which is the next call."""
        ...

    def commit(self) -> None:
        """Commits, or waits for what ``begin_commit`` began. ``Retriable`` while it is undecided: call it again."""
        ...

    def abort(self) -> None: ...

    def close(self) -> None:
        """Lets the client go, without a word about an open transaction."""
        ...


class LogReader(Protocol):
    """Reads whole topics from their start, outside any group, what is committed only, and follows them."""

    def poll(self, timeout_s: float) -> Sequence[Message]: ...

    def caught_up(self) -> bool:
        """Whether everything has been handed over that was in the topics when the reader was made."""
        ...

    def close(self) -> None: ...


def read_to_end(reader: LogReader) -> Iterator[Message]:
    """Everything that was in a reader's topics when it was made, each partition in order."""
    while not reader.caught_up():
        yield from reader.poll(0.2)


class Backend(Protocol):
    """One client's way to a log."""

    def topics(self) -> Mapping[str, int]:
        """The topics that exist, with their numbers of partitions."""
        ...

    def consumer(self, group: str, *, co_partitioned: bool = False) -> Consumer:
        """A consumer in ``group``. ``co_partitioned`` gives all partitions of one number to one member."""
        ...

    def producer(self, transactional_id: str) -> TransactionalProducer: ...

    def reader(self, topics: Sequence[str]) -> LogReader: ...

    def history(self, stretches: History) -> LogReader:
        """Reads what is committed in these stretches, and nothing beyond; caught up when all is handed over.

        Ends that are not given are the partitions' real ends at the time of the call, open transactions included. What
        retention has deleted of a stretch is passed over.

        Raises:
            OutOfRange: a stretch ends where the partition has not come to.
        """
        ...
