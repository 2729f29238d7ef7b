"""The seam between a service's logic and the batch loop that runs it exactly once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tailrace.kit.messages import DeadLetter, Hold, Message, Record, TopicPartition


class Clock(Protocol):
    """Wall time; only for what describes the processing itself (latency), never for a decision."""

    def now_ms(self) -> int: ...
    def perf_ns(self) -> int: ...


@dataclass(slots=True)
class Output:
    """What one batch came to. Committed as a whole with the batch's offsets, or not at all.

    ``holds`` names partitions whose messages from an offset on were not processed; the loop commits up to there,
    pauses the partition and offers the same messages again after the next control message or a short while.
    ``metadata`` is stored with the committed offset of each partition of the batch (at most 4,095 bytes) and handed
    to the partition's next owner; empty leaves what is stored there.
    """

    records: list[Record] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    holds: dict[TopicPartition, Hold] = field(default_factory=dict)
    metadata: str = ""


class Logic(Protocol):
    """A service's logic: from (state, batch) to (records, dead letters). Imports no client library.

    The loop calls, from one thread: ``control`` with everything on the control topics before the first batch and
    with what is new before each batch; ``assigned``/``revoked`` as partitions come and go; ``process`` with a batch;
    ``committed`` once that batch's transaction is known to be committed (also with outputs of the loop's own, such as
    a quarantined record, which ``process`` did not make). ``process`` leaves the state that later
    batches depend on alone: the batch may be aborted and come again; what it changes is applied in ``committed``.

    ``process`` raises ``kit.errors.Retry`` when something that it needs is away for the moment (a registry); the
    loop waits and offers the batch again. Any other exception is a bug: the process stops, uncommitted.
    """

    def control_topics(self) -> Sequence[str]:
        """Topics that every instance reads whole, from their start, outside the consumer group."""
        ...

    def topics(self) -> frozenset[str]:
        """Topics consumed in the group. May change after ``control``; the loop then subscribes anew."""
        ...

    def control(self, messages: Sequence[Message]) -> None: ...

    def assigned(self, partitions: Mapping[TopicPartition, str]) -> None:
        """Partitions that are now this instance's, each with the metadata of its last committed offset."""
        ...

    def revoked(self, partitions: Collection[TopicPartition]) -> None: ...

    def process(self, batch: Sequence[Message], clock: Clock) -> Output: ...

    def committed(self, output: Output) -> None: ...

    def waiting(self) -> str | None:
        """Why the service is not ready, for /readyz; None when it is."""
        ...
