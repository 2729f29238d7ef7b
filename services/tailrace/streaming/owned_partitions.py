"""The partitions that one instance owns: positions, crash histories, pauses. Without IO.

As `TaskManager` in Kafka Streams, as far as it keeps account; the runner calls the consumer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tailrace.errors import TailraceError
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.consumer_loop import names
from tailrace.streaming.crash_history import MAX_FACTS_BYTES, CrashHistory, pack, unpack
from tailrace.streaming.processor import Output, Suspect
from tailrace.streaming.records import Message, PausedPartition, TopicPartition
from tailrace.telemetry.reasons import waiting_for

PAUSE_S = (0.05, 0.5)
"""How long a partition is paused before it is offered again: at first, and at most, doubling."""
FIRST_S = 5.0
"""How long the records that processes have died on come before all others, at most."""

LastMessages = Mapping[TopicPartition, Message]
Offsets = dict[TopicPartition, Committed]


@dataclass(slots=True)
class OwnedPartition:
    """A partition that this instance owns.

    Attributes:
        position: the next offset to process, which is also the committed one.
        metadata: the processor's facts, as committed.
        crash_history: see `crash_history`; what earlier processes left.
        announced: the position at which this process has announced a batch, or -1.
        first_until: until when it comes before others if processes have died on it, in ``perf_ns`` time.
        proven: this process has committed records of the partition.
        poison_reason: why the next record is not to be processed, where that is known.
        paused_for: why the partition is paused, where it is.
        offer_at: when a paused partition is offered again, in ``perf_ns`` time.
        wait_s: how long it waits the next time.
    """

    position: int
    metadata: str
    crash_history: CrashHistory
    first_until: int
    announced: int = -1
    proven: bool = False
    poison_reason: str | None = None
    paused_for: str | None = None
    offer_at: int = 0
    wait_s: float = PAUSE_S[0]

    @classmethod
    def of(cls, committed: Committed, now: int) -> OwnedPartition:
        """As a new owner finds it at ``now``, in ``perf_ns`` time."""
        history, metadata = unpack(committed.metadata)
        partition = cls(committed.offset, metadata, history, now + int(FIRST_S * 1e9))
        if history.has_poison_record:
            partition.poison_reason = f"{history.deaths} processes died on it, the last ones with it alone"
        return partition

    def advance(self, committed: Committed) -> None:
        self.proven |= committed.offset > self.position
        self.crash_history, self.metadata = unpack(committed.metadata)
        self.announced = -1
        if self.position != committed.offset:
            self.position = committed.offset
            self.poison_reason = None
            self.wait_s = PAUSE_S[0]

    def believe(self, committed: Committed) -> None:
        """What is committed, as found out after an unknown outcome."""
        if committed.offset != self.position:
            self.advance(committed)
            self.proven = True
        else:
            self.metadata = unpack(committed.metadata)[1]

    def pause(self, reason: str, now: int) -> None:
        self.paused_for = reason
        self.offer_at = now + int(self.wait_s * 1e9)
        self.wait_s = min(2 * self.wait_s, PAUSE_S[1])

    def commits(self, offset: int, facts: str) -> Committed:
        """What is committed where a batch has come to ``offset``."""
        # Where nothing was processed, nothing is known about it either.
        history = self.crash_history if offset == self.position else self.crash_history.after(offset)
        if len(facts.encode()) > MAX_FACTS_BYTES:
            raise ValueError(f"metadata of more than {MAX_FACTS_BYTES} bytes: {facts:.80}...")
        return Committed(offset, pack(history, facts))


class OwnedPartitions(dict[TopicPartition, OwnedPartition]):
    """Keeps account of them.

    Attributes:
        suspended: those that the consumer was told to pause for the sake of others, or of the group. A paused partition
            is paused at the consumer too, and is not among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.suspended: set[TopicPartition] = set()

    def assign(self, committed: Mapping[TopicPartition, Committed], now: int) -> None:
        self.update({tp: OwnedPartition.of(offset, now) for tp, offset in committed.items()})

    def revoke(self, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            self.pop(tp, None)
            self.suspended.discard(tp)

    def positions(self) -> dict[TopicPartition, int]:
        return {tp: partition.position for tp, partition in self.items()}

    def facts(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """What is committed of these partitions, without what is the runner's own."""
        return {tp: Committed(self[tp].position, self[tp].metadata) for tp in partitions}

    # Pauses ---

    def pause(self, paused: Mapping[TopicPartition, PausedPartition], now: int) -> None:
        for tp, (_, reason) in paused.items():
            self[tp].pause(reason, now)

    def offer_all(self) -> None:
        """Paused partitions are due at once, as after news on a control topic."""
        for partition in self.values():
            partition.offer_at = 0
            partition.wait_s = PAUSE_S[0]

    def take_due(self, now: int) -> list[TopicPartition]:
        """Paused partitions that are to be offered again; they are paused no more."""
        paused = {tp: p for tp, p in self.items() if p.paused_for is not None and tp not in self.suspended}
        due = [tp for tp, partition in paused.items() if partition.offer_at <= now]
        for tp in due:
            self[tp].paused_for = None
        return due

    def behind_first(self, now: int) -> set[TopicPartition]:
        """Those that wait while others come first, on which processes have died: each could die on another else."""
        died_on = {tp: p for tp, p in self.items() if p.crash_history.deaths and p.paused_for is None}
        first = {tp for tp, partition in died_on.items() if now < partition.first_until}
        return self.keys() - first if first else set()

    def takes(self, tp: TopicPartition) -> bool:
        """Whether messages of the partition are to be processed now."""
        return tp in self and tp not in self.suspended and self[tp].paused_for is None

    def paused_for(self, leaving_out: Collection[str] = ()) -> str | None:
        """Why partitions are paused, but for these reasons; None where none is."""
        paused = ((tp.topic, p.paused_for) for tp, p in self.items() if p.paused_for is not None)
        return waiting_for((topic, reason) for topic, reason in paused if reason not in leaving_out)

    # What waits ---

    def backlog(
        self,
        end: Callable[[TopicPartition], int | None],
        under_way: Mapping[TopicPartition, Committed],
        limit: int,
    ) -> int:
        """Records that wait, as far as is known without asking (markers count); ``limit`` at most."""
        backlog = 0
        for tp, partition in self.items():
            until = end(tp)
            if until is not None and partition.paused_for is None:
                start = under_way[tp].offset if tp in under_way else partition.position
                backlog += max(0, until - start)
                if backlog >= limit:
                    return limit
        return backlog

    # Crash histories ---

    def any_alone(self) -> bool:
        """Whether records are to be taken one by one."""
        return any(partition.crash_history.alone for partition in self.values())

    def taken_alone(self, messages: Sequence[Message]) -> OwnedPartition | None:
        """The partition of a batch of one record, where its records are taken one by one."""
        if len(messages) != 1:
            return None
        partition = self.get(TopicPartition(messages[0].topic(), messages[0].partition()))
        return partition if partition is not None and partition.crash_history.alone else None

    def are_plain(self, partitions: Iterable[TopicPartition]) -> bool:
        """Whether this process has committed records of each, and no process has died on one."""
        return all(p.proven and p.crash_history.deaths == 0 for p in map(self.__getitem__, partitions))

    def suspects(self) -> dict[TopicPartition, Suspect]:
        return {
            tp: Suspect(p.crash_history.suspect, p.crash_history.until)
            for tp, p in self.items()
            if p.crash_history.suspect is not None
        }

    def announcements(self, last: LastMessages, in_flight: Sequence[str], is_news: bool) -> Offsets:
        """What is committed before a batch, so that the next owner finds what this process has died on."""
        announcements = {}
        for tp, message in last.items():
            partition = self[tp]
            history = partition.crash_history
            is_due = history.deaths > 0 or not partition.proven
            if is_news or (is_due and partition.announced != partition.position):
                history = history.announced(message.offset(), in_flight)
                announcements[tp] = Committed(partition.position, pack(history, partition.metadata))
        return announcements

    def announced(self, partitions: Iterable[TopicPartition]) -> None:
        for tp in partitions:
            self[tp].announced = self[tp].position

    def retractions(self, partitions: Iterable[TopicPartition]) -> Offsets:
        """What takes the announcements of these partitions back."""
        return {
            tp: Committed(p.position, pack(p.crash_history, p.metadata))
            for tp in partitions
            if (p := self[tp]).announced == p.position
        }

    # What a batch commits ---

    def offsets(self, output: Output, last: LastMessages) -> Offsets:
        """What the batch commits: up to its end, or up to where a partition is paused."""
        if not output.paused.keys() <= last.keys():
            raise ValueError(f"paused, but not in the batch: {names(output.paused.keys() - last.keys())}")
        offsets = {
            tp: self[tp].commits(self[tp].position, output.metadata_of[tp])
            for tp in output.metadata_of.keys() - last.keys()
        }
        for tp, message in last.items():
            partition = self[tp]
            offset = output.paused[tp].offset if tp in output.paused else message.offset() + 1
            if not partition.position <= offset <= message.offset() + 1:
                raise ValueError(f"paused at {offset}, which is not in the batch of {names([tp])}")
            if offset == partition.position and partition.announced != offset and not output.records:
                continue
            facts = output.metadata_of.get(tp, output.metadata) or partition.metadata
            offsets[tp] = partition.commits(offset, facts)
        if not offsets and (output.records or output.dead_letters):
            raise ValueError("records without any fact to be committed with them")
        return offsets


def check_co_partitioned(owned: Collection[TopicPartition], topics: Collection[str]) -> None:
    """Stops the service unless it owns, of each partition number of a lane, either every topic's or none."""
    lanes: dict[str, set[str]] = {}
    for topic in topics:
        lanes.setdefault(topic.rpartition(".")[0], set()).add(topic)
    for tp in owned:
        for topic in lanes.get(tp.topic.rpartition(".")[0], ()):
            if TopicPartition(topic, tp.partition) not in owned:
                raise TailraceError(
                    f"{tp.topic}/{tp.partition} is this instance's, but {topic}/{tp.partition} is not: the "
                    f"topics of a lane need the same number of partitions, and all members of the group the "
                    f"same assignment strategy (range)"
                )
