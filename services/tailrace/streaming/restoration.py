"""History that a processor reads again when it is assigned partitions, as `StoreChangelogReader` in Kafka Streams."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from tailrace.streaming.backends.abstract import Backend, History, LogReader
from tailrace.streaming.bounds import Bounds, prefix
from tailrace.streaming.consumer_loop import names, so_far
from tailrace.streaming.processor import Processor
from tailrace.streaming.records import Message, TopicPartition
from tailrace.telemetry.reasons import listed

log = logging.getLogger(__name__)

POLL_S = 0.01


@dataclass(slots=True, eq=False)
class RestoreTask:
    """History that the processor asked for when it was assigned some partitions.

    Attributes:
        partitions: those partitions.
        reader: where reading has begun.
        messages: what was read and the processor has not taken yet.
        taken: how many it has taken.
        more: what it has taken makes more due than one step may be.
    """

    partitions: frozenset[TopicPartition]
    history: History
    reader: LogReader | None = None
    messages: list[Message] = field(default_factory=list)
    taken: int = 0
    more: bool = False

    def progress(self) -> str:
        return f"reading again what {listed(names(self.partitions))} stand for{so_far(self.taken)}"


class Restoration:
    """What has to be read again before anything is processed, one task after the other."""

    def __init__(self, backend: Backend, processor: Processor, bounds: Bounds) -> None:
        self._backend = backend
        self._processor = processor
        self._bounds = bounds
        self._tasks: list[RestoreTask] = []

    @property
    def task(self) -> RestoreTask | None:
        """The one that is under way."""
        return self._tasks[0] if self._tasks else None

    def add(self, partitions: Collection[TopicPartition], history: History) -> None:
        self._tasks.append(RestoreTask(frozenset(partitions), history))

    def give_up(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        """Ends the tasks of these partitions; and says for which others they were, too."""
        given_up = [task for task in self._tasks if not task.partitions.isdisjoint(partitions)]
        self._tasks = [task for task in self._tasks if task.partitions.isdisjoint(partitions)]
        for task in given_up:
            if task.reader is not None:
                task.reader.close()
        return {tp for task in given_up for tp in task.partitions} - set(partitions)

    def step(self, task: RestoreTask) -> None:
        """Reads some history, or hands some to the processor, within the bounds.

        Raises:
            Unavailable, StateLost: as ``Processor.restore`` does; after the first the same is handed over again.
        """
        if task.reader is None:
            log.info("reading history", extra={"of": names(task.history)})
            task.reader = self._backend.history(task.history)
        if not task.messages and not task.more:
            task.messages = list(task.reader.poll(POLL_S))
        if task.messages or task.more:
            messages = prefix(task.messages, self._bounds.size)
            task.more = bool(self._processor.restore(messages))
            task.taken += len(messages)
            del task.messages[: len(messages)]
        elif task.reader.caught_up():
            task.reader.close()
            self._tasks.remove(task)

    def end(self) -> list[LogReader | None]:
        """Drops all tasks; returns the readers that are to be closed."""
        readers = [task.reader for task in self._tasks]
        self._tasks = []
        return readers
