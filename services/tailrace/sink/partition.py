"""A partition that a sink owns: what was read of it, what is planned with it, and when that is due."""

from __future__ import annotations

from dataclasses import dataclass, field

from tailrace.errors import Unavailable
from tailrace.sink.plan import InsertPlan
from tailrace.sink.rows import Block
from tailrace.streaming import crash_history
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.crash_history import NO_DEATHS, CrashHistory
from tailrace.streaming.records import Message

MAX_ROWS = 20_000
"""Records in one block, at most: far below where ClickHouse would split it."""
MAX_BYTES = 32 * 1024 * 1024
RETRY_S = (0.2, 5.0)
"""How long is waited before what failed is tried again: at first, and at most, doubling."""


@dataclass(slots=True)
class BufferedPartition:
    """A partition that this instance owns.

    Attributes:
        start: the committed offset.
        plan: the plan committed with it, where one is pending.
        is_new: the group has not committed any offset yet.
        messages: what was read from ``start`` on.
        size: their bytes.
        since_ns: when the first of them was read.
        blocks: those of the plan that are still to be inserted, by table; None until they are made.
        is_repeat: some of the plan's blocks may have been inserted by somebody who did not learn of it.
        stored: of each table, the last offset that had a row in it when this instance first looked.
        trouble: why the partition waits, where it does.
        retry_at: when it is tried again.
        retry_s: how long it waits the next time.
        history: how often processes have died at ``start``.
        is_proven: this instance has inserted something of it.
        is_announced: what is committed says that this instance may die on what it does now.
        at_most: records in one plan, while the one is looked for that stops processes.
        unwritable: why the next record is stored as unreadable, where it is known to stop processes.
    """

    start: int
    plan: InsertPlan | None
    is_new: bool
    messages: list[Message] = field(default_factory=list)
    size: int = 0
    since_ns: int = 0
    blocks: dict[str, Block] | None = None
    is_repeat: bool = False
    stored: dict[str, int] = field(default_factory=dict)
    trouble: str | None = None
    retry_at: int = 0
    retry_s: float = RETRY_S[0]
    history: CrashHistory = NO_DEATHS
    is_proven: bool = False
    is_announced: bool = False
    at_most: int = 1
    unwritable: str | None = None

    @classmethod
    def of(cls, committed: Committed) -> BufferedPartition:
        """As whoever owned it last has left it."""
        history, metadata = crash_history.unpack(committed.metadata)
        # Whoever looks for the record that stops processes makes smaller plans.
        plan = None if history.alone else InsertPlan.unpack(committed.offset, metadata)
        unwritable = "processes of the sink died with it" if history.has_poison_record else None
        return cls(
            committed.offset,
            plan,
            is_new=False,
            is_repeat=plan is not None,
            history=history,
            unwritable=unwritable,
        )

    @property
    def next_offset(self) -> int:
        return self.messages[-1].offset() + 1 if self.messages else self.start

    def place(self) -> Committed:
        """What is to be committed: the start, the deaths there, and the pending plan."""
        history = self.history
        if self.is_announced:
            taken = self.messages[: self.limit(MAX_ROWS)]
            end = self.plan.end - 1 if self.plan is not None else taken[-1].offset()
            history = history.announced(end, ())
        return Committed(self.start, crash_history.pack(history, self.plan.pack() if self.plan else ""))

    def end(self, end: int) -> Committed:
        """What is to be committed once everything up to ``end`` is inserted."""
        return Committed(end, crash_history.pack(self.history.after(end), ""))

    def limit(self, most: int) -> int:
        """How many records the next plan may have."""
        return min(most, self.at_most) if self.history.alone else most

    def is_full(self) -> bool:
        return len(self.messages) >= MAX_ROWS or self.size >= MAX_BYTES

    def is_due(self, now_ns: int, linger_ns: int) -> bool:
        """Whether something can be inserted now."""
        if not self.messages or now_ns < self.retry_at:
            return False
        if self.plan is not None:
            return self.blocks is not None or self.messages[-1].offset() >= self.plan.end - 1
        return self.is_full() or now_ns - self.since_ns >= linger_ns

    def take(self, message: Message, now_ns: int) -> None:
        """Takes the next message in."""
        if not self.messages:
            self.since_ns = now_ns
        self.messages.append(message)
        self.size += len(message.value() or b"")

    def postpone(self, away: Unavailable, now_ns: int) -> None:
        """The partition waits for what is away for the moment; it is tried again later and later."""
        self.trouble = str(away)
        self.retry_at = now_ns + int(self.retry_s * 1e9)
        self.retry_s = min(2 * self.retry_s, RETRY_S[1])

    def after(self, end: int, now_ns: int) -> BufferedPartition:
        """As it is once ``end`` is committed."""
        rest = [message for message in self.messages if message.offset() >= end]
        size = sum(len(message.value() or b"") for message in rest)
        return BufferedPartition(
            end,
            None,
            False,
            rest,
            size,
            since_ns=now_ns,
            stored=self.stored,
            history=self.history.after(end),
            is_proven=True,
            at_most=min(2 * self.at_most, MAX_ROWS),
        )
