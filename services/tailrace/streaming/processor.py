"""A service's processor, as the exactly-once runner calls it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.records import DeadLetter, Message, PausedPartition, Record, TopicPartition


class Clock(Protocol):
    """Wall time; only for what describes the processing itself (latency), never for a decision."""

    def now_ms(self) -> int: ...
    def perf_ns(self) -> int: ...


def _nothing() -> None: ...


@dataclass(slots=True)
class Output:
    """What one batch came to. Committed as a whole with the batch's offsets, or not at all.

    ``paused`` names partitions whose messages from an offset on were not processed; the runner commits up to there,
    pauses the partition and offers the same messages again after the next control message or a short while.
    ``metadata`` is stored with the committed offset of each partition of the batch (at most ``MAX_FACTS_BYTES``) and
    handed to the partition's next owner; empty leaves what is stored there. ``metadata_of`` is that of single
    partitions, and goes before ``metadata``; they may be any that this instance owns.

    ``pipelined`` lets the runner offer the next batch before it knows that this one is committed. What later batches
    depend on has then been applied in ``process``; where nothing comes of the commit, all partitions are revoked and
    assigned again, with what is committed.

    ``on_committed`` is called once the transaction is known to be committed, and else never; of a pipelined output
    maybe after the next ``process``, never after the second.
    """

    records: Sequence[Record] = ()
    dead_letters: list[DeadLetter] = field(default_factory=list)
    paused: dict[TopicPartition, PausedPartition] = field(default_factory=dict)
    metadata: str = ""
    metadata_of: dict[TopicPartition, str] = field(default_factory=dict)
    pipelined: bool = False
    on_committed: Callable[[], None] = _nothing


class Processor(Protocol):
    """A service's logic: from (state, batch) to (records, dead letters). Imports no client library.

    The runner calls, from one thread: ``control`` with everything on the control topics before the first batch and with
    what is new before each batch; ``assigned``/``revoked`` as partitions come and go; ``restore`` with the history that
    ``assigned`` asked for, before anything is processed; ``process`` with a batch, and its output's ``on_committed``.
    ``process`` leaves the state that later batches depend on alone, unless its output is ``pipelined``: the batch may
    be aborted and come again; what it changes is applied in ``on_committed``.

    ``process`` raises ``errors.Unavailable`` when something that it needs is unavailable (a registry); the runner waits
    and offers the batch again. ``process``, ``restore`` and ``on_committed`` raise `errors.StateLost` when what the
    processor keeps turns out to be damaged: all partitions are revoked and assigned again, with what is committed. A
    `errors.DiskFailed` ends the process, and no record is blamed for it. Any other exception is a bug: the process
    stops, uncommitted.
    """

    def control_topics(self) -> Sequence[str]:
        """Topics that every instance reads whole, from their start, outside the consumer group."""
        ...

    def topics(self) -> frozenset[str]:
        """Topics consumed in the group. May change after ``control``; the runner then subscribes anew."""
        ...

    def control(self, messages: Sequence[Message]) -> None: ...

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History | None:
        """Partitions that are now this instance's, each with its committed offset and the metadata of it.

        What it returns is history to be read again, also of topics that are not consumed, such as a compacted one of
        state. Nothing is processed before all of it has been handed to ``restore``.
        """
        ...

    def restore(self, messages: Sequence[Message]) -> bool | None:
        """Some of the history, each partition in order. It may be over before the end, by ``revoked`` of the partitions
        for which it was asked for; those that stay are assigned once more. May raise ``Unavailable``.

        True where more follows from it than one step may be: it is then called again, with nothing, before any more.
        """
        ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None: ...

    def process(self, batch: Sequence[Message], clock: Clock) -> Output: ...

    def waiting(self) -> str | None:
        """Why the service is not ready, for /readyz; None when it is."""
        ...


@runtime_checkable
class HasDue(Protocol):
    """A processor of which what it has read may make more due than one step may be (`bounds`)."""

    def due(self) -> bool:
        """Whether something is due. Then ``process`` is called with an empty batch, again and again, and no new
        messages are fetched before nothing is. How far that has come is part of the metadata: each of these steps
        is committed by itself.
        """
        ...


@runtime_checkable
class TellsModelsApart(Protocol):
    """A processor whose models wait each for itself."""

    def by_model(self) -> Mapping[str, str | None]:
        """Of each model that it serves, why its requests wait; None where they do not. A partition that is paused for
        one of these reasons does not make the service unready: ``waiting`` says whether all do.
        """
        ...


class Suspect(NamedTuple):
    """What was in flight when processes died on the records of a partition up to, and including, ``until``."""

    name: str
    until: int


@runtime_checkable
class NamesInFlight(Protocol):
    """A processor that runs what may kill its process, and that can do without some of it."""

    def in_flight(self, topics: Collection[str], suspects: Mapping[TopicPartition, Suspect]) -> Sequence[str]:
        """Called before each batch, with the topics of its messages: what it will run that may kill the process and
        that can be done without, by name, the most suspicious first.

        ``suspects`` are, by partition that this instance owns, what the batch is to be worked off without, whatever
        partition its messages are of. Once the messages up to ``until`` are committed without it, it was to blame.
        """
        ...
