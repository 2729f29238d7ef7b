"""What every loop of a service has in common: it takes turns, follows control topics, and is a member of a group."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import Event
from typing import Protocol, TypeVar

from tailrace.errors import TailraceError
from tailrace.streaming.backends.abstract import (
    Backend,
    Committed,
    Consumer,
    LogReader,
    OutOfRange,
    RebalanceListener,
    Retriable,
)
from tailrace.streaming.records import Message, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics
from tailrace.telemetry.reasons import listed, plain

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LOOK_FOR_TOPICS_S = 0.5
MEASURE_S = 0.5
WARN_S = 30.0
"""How often the log says again that Kafka does not remember what was committed."""


class Stopping(Exception):
    """The process is to end while something was being waited for."""


class _Closable(Protocol):
    def close(self) -> None: ...


class ConsumerLoop(RebalanceListener):
    """A loop; what it does in a turn is its subclass's.

    Args:
        group: consumer group.
        stop: set when the process is to end; whatever waits then gives up.
        co_partitioned: the partitions of one number, of all topics of a lane, belong to one instance.

    Attributes:
        alive_ns: when the loop last gave a sign of life, in ``clock.perf_ns`` time.
        waiting: why the service is not ready; None when it is.
        models: of each model that the service tells apart, why its requests wait; None where they do not.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        group: str,
        clock: WaitingClock,
        stop: Event | None,
        co_partitioned: bool = False,
    ) -> None:
        self._backend = backend
        self._group = group
        self._clock = clock
        self._stop = stop or Event()
        self._co_partitioned = co_partitioned
        self._reader: LogReader | None = None
        self._control: list[Message] = []
        self._primed = False
        self._consumer: Consumer | None = None
        self._wanted: frozenset[str] = frozenset()
        self._subscribed: frozenset[str] = frozenset()
        self._look_at = 0
        self._measure_at = 0
        self._member = ""
        self._rebalanced = False
        self._rewinding: set[TopicPartition] = set()
        # What this process knows to be committed at least, also of partitions that others own by now.
        self._reached: dict[TopicPartition, int] = {}
        self.alive_ns = clock.perf_ns()
        self.waiting: str | None = "starting"
        self.models: Mapping[str, str | None] = {}

    def _turn(self) -> None:
        raise NotImplementedError

    def _positions(self) -> Mapping[TopicPartition, int]:
        """Where reading goes on in each partition that this instance owns."""
        raise NotImplementedError

    def _committed(self) -> Mapping[TopicPartition, int]:
        """What the group has committed of them; where that is what is read next, there is nothing to say."""
        return self._positions()

    def run(self) -> None:
        """Turns until ``stop`` is set, then leaves the group.

        Raises:
            TailraceError: the service cannot go on, and a person has to do something.
            Fatal: the process is to be started afresh.
            Exception: a bug in the service. Nothing of its batch is committed.
        """
        try:
            while not self._stop.is_set():
                self.step()
        finally:
            self.close()

    def step(self) -> None:
        """One turn; with nothing to do it takes some milliseconds. Raises what ``run`` raises."""
        self.alive_ns = self._clock.perf_ns()
        try:
            self._turn()
        except Retriable as error:
            self._wait(f"waiting for Kafka: {plain(str(error))}", 0.1)
        except Stopping:
            pass
        except OutOfRange as gone:
            raise TailraceError(
                f"{gone}, but group {self._group} has only read up to there: retention deleted records "
                f"before they were processed, or the topic was made anew. Stop the service, set the group "
                f"to an offset that is there (kafka-consumer-groups.sh --group {self._group} --topic "
                f"{gone.partition.topic} --reset-offsets --to-earliest --execute), and start it again"
            ) from gone

    def close(self) -> None:
        """Leaves the group, so that others take over at once."""
        self._close(self._consumer, self._reader)

    def _close(self, *clients: _Closable | None) -> None:
        for client in clients:
            if client is not None:
                try:
                    client.close()
                except Exception:
                    log.exception("closing a client failed")

    # Waiting ---

    def _wait(self, reason: str | None, seconds: float) -> None:
        self.waiting = reason
        self._clock.sleep(seconds)

    def _patiently(
        self, call: Callable[..., Answer], *arguments: object, limit_s: float = float("inf")
    ) -> Answer:
        """Repeats a call while it may be repeated; ``Retriable`` comes out only after ``limit_s``."""
        give_up = self._clock.perf_ns() + limit_s * 1e9
        pause = 0.005
        while True:
            try:
                return call(*arguments)
            except Retriable as error:
                if self._stop.is_set():
                    raise Stopping from error
                self.alive_ns = self._clock.perf_ns()
                if self.alive_ns >= give_up:
                    raise
                self._wait(f"waiting for Kafka: {plain(str(error))}", pause)
                pause = min(2 * pause, 0.5)

    # What is committed ---

    def _ask_committed(
        self, consumer: Consumer, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, Committed | None]:
        """What the group has committed of these partitions, None where nothing yet.

        A broker that comes back has been seen to answer with old offsets, or with none, while it reads what it had
        stored. Whoever believes that processes everything again. So where it says less than this process knows to be
        committed, it is asked again, for as long as it takes: a process that ended would start anew and believe it.
        """
        warn_at = self._clock.perf_ns()
        while True:
            committed = self._patiently(consumer.committed, partitions)
            offsets = {tp: 0 if place is None else place.offset for tp, place in committed.items()}
            behind = sorted(tp for tp, offset in offsets.items() if offset < self._reached.get(tp, 0))
            if not behind:
                self._note_committed(committed)
                return committed
            if self._stop.is_set():
                raise Stopping
            tp, self.alive_ns = behind[0], self._clock.perf_ns()
            reason = (
                f"Kafka says {offsets[tp]} is committed of {names([tp])[0]}, where it was {self._reached[tp]}. If "
                f"group {self._group} was set back on purpose, restart this service, and it goes on from there"
            )
            if self.alive_ns >= warn_at:
                log.warning("asking again what is committed", extra={"reason": reason})
                warn_at = self.alive_ns + int(WARN_S * 1e9)
            self._wait(reason, 0.5)

    def _note_committed(self, offsets: Mapping[TopicPartition, Committed | None]) -> None:
        for tp, committed in offsets.items():
            if committed is not None:
                self._reached[tp] = max(committed.offset, self._reached.get(tp, 0))

    # Topics and partitions ---

    def _read_control(self, topics: Sequence[str]) -> bool:
        """Adds what is new on the control topics to ``_control``; False until all that there was is there."""
        if self._reader is None:
            missing = sorted(set(topics) - self._backend.topics().keys())
            if missing:
                self._wait(f"waiting for the topics {listed(missing)}", LOOK_FOR_TOPICS_S)
                return False
            self._reader = self._backend.reader(topics)
        self._control += self._reader.poll(0 if self._primed else 0.1)
        if not self._primed and not self._reader.caught_up():
            self.waiting = "reading the control topics" + so_far(len(self._control))
            return False
        return True

    def _subscribe(self, wanted: frozenset[str]) -> None:
        now = self._clock.perf_ns()
        if wanted == self._subscribed or (wanted == self._wanted and now < self._look_at):
            return
        present = wanted & self._backend.topics().keys()
        if present != self._subscribed:
            if self._consumer is None:
                self._consumer = self._backend.consumer(self._group, co_partitioned=self._co_partitioned)
            self._consumer.subscribe(present, self)
            self._subscribed = present
        self._wanted = wanted
        self._look_at = now + int(LOOK_FOR_TOPICS_S * 1e9)

    def _not_in_place(self, wanted: frozenset[str]) -> str | None:
        """Why the group does not read yet; None when it does."""
        missing = wanted - self._subscribed
        if missing:
            return f"waiting for the topics {listed(sorted(missing))}"
        return "joining the consumer group" if self._subscribed and not self._member else None

    def _rewind(self, consumer: Consumer) -> None:
        """Goes back to the positions. Until that is done, messages of the partition are not taken."""
        if not self._rewinding:
            return
        positions = self._positions()
        for tp in sorted(self._rewinding):
            try:
                consumer.seek(tp, positions[tp])
            except Retriable:
                continue
            self._rewinding.discard(tp)

    # What others see of it ---

    def _measure(self, consumer: Consumer) -> None:
        now = self._clock.perf_ns()
        if now < self._measure_at:
            return
        self._measure_at = now + int(MEASURE_S * 1e9)
        for tp, offset in self._committed().items():
            end = consumer.end(tp)
            if end is not None:
                metrics.POSITION.labels(self._group, *map(str, tp)).set(offset)
                metrics.LAG.labels(self._group, *map(str, tp)).set(max(0, end - offset))

    def _measure_no_more(self, partitions: Iterable[TopicPartition]) -> None:
        """What another instance says of them from now on is not to be contradicted."""
        for tp in partitions:
            for gauge in (metrics.POSITION, metrics.LAG):
                with suppress(KeyError):
                    gauge.remove(self._group, *map(str, tp))
            with suppress(KeyError):
                metrics.WATERMARK.remove(*map(str, tp))


def so_far(records: int) -> str:
    """How much has been read, for a reason to wait, so that it is seen whether it goes on."""
    return f" (records so far: {records:,})" if records else ""


def names(partitions: Collection[TopicPartition]) -> list[str]:
    """Partitions for logs and messages."""
    return [f"{topic}/{partition}" for topic, partition in sorted(partitions)]
