"""What the broker in memory knows: partitions, transactions, producers, groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.records import PlainMessage, TopicPartition


class OpenTransaction:
    """One transaction, from its first record to its last marker."""

    def __init__(self, started_ms: int) -> None:
        self.records = 0
        self.size = 0
        self.started_ms = started_ms
        self.committed: bool | None = None  # None: undecided
        self.partitions: dict[TopicPartition, int] = {}  # first offset of each that has no marker yet
        self.offsets: dict[str, dict[TopicPartition, Committed]] = {}  # by group; gone once its marker is in


class PartitionLog:
    def __init__(self) -> None:
        self.start = 0
        # A None stands for a transaction marker: it takes an offset and is never seen.
        self.entries: list[tuple[PlainMessage | None, OpenTransaction | None]] = []
        self.open: dict[OpenTransaction, int] = {}

    @property
    def end(self) -> int:
        return len(self.entries)

    @property
    def last_stable(self) -> int:
        return min(self.open.values()) if self.open else len(self.entries)


class ProducerIdentity:
    """What the transaction coordinator knows of one transactional id."""

    def __init__(self) -> None:
        self.epoch = 0
        self.transaction: OpenTransaction | None = None


@dataclass(eq=False)
class GroupMember:
    """A group member, as coordinator and client see it (``expired`` is what the client has yet to learn)."""

    id: str
    topics: frozenset[str]
    eager: bool
    seen_ms: int
    owned: set[TopicPartition] = field(default_factory=set)
    target: set[TopicPartition] = field(default_factory=set)
    expired: bool = False
    joined: bool = False  # eager: has given up its partitions and waits for the others to


class GroupState:
    def __init__(self) -> None:
        self.generation = 0
        self.members: dict[str, GroupMember] = {}
        self.committed: dict[TopicPartition, Committed] = {}
        self.rebalancing = False  # eager: not all have joined
