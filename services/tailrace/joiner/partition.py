"""One partition of a lane: its requests, where it stands, and how it gets there again after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tailrace.errors import DiskFailed, StateLost, Unavailable
from tailrace.joiner.intake import PendingFeedback
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition_state import ACTIONS, LABELS, PREDICTIONS, Facts, PartitionState
from tailrace.joiner.progress import NEVER, Order, Progress
from tailrace.joiner.step import PartitionStep, StepResult
from tailrace.joiner.store import STATE, KeyValueStore
from tailrace.joiner.watermarks import MARK_EVERY_MS
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.bounds import Budget
from tailrace.streaming.records import Message

log = logging.getLogger(__name__)

_NOTHING: Order = (NEVER, 0, 0, 0)
MOST_PENDING = 100_000
"""So many labels and actions are kept in memory, or a little more, before reading them pauses."""


class LanePartition:
    """The partitions of one number of a lane's inputs.

    Args:
        store: what an earlier owner left, if anything.
        committed: of each input by suffix.
    """

    def __init__(
        self,
        lane: LaneContracts,
        number: int,
        partitions: int,
        store: KeyValueStore,
        committed: Mapping[str, Committed],
    ) -> None:
        self.number = number
        self._lane = lane
        self._partitions = partitions
        self._store = store
        self._pending: list[PendingFeedback] = []
        facts = {name: Facts.of(last) for name, last in committed.items()}
        # So far had what is due been worked off, and champions been read, when all of the history was in.
        self._until = Progress.furthest(f.progress for f in facts.values())
        self._sources = facts[PREDICTIONS].sources if PREDICTIONS in facts else {}
        state = self._stored_state(facts, committed)
        if state is None:
            store.wipe()
            state = _from(facts)
        self._state = state
        self._skip_before: Order = state.progress.applied
        stretches = {name: (state.offsets[name], last.offset) for name, last in committed.items()}
        self.history = {name: stretch for name, stretch in stretches.items() if stretch[0] < stretch[1]}
        self._is_restoring = True
        self._more = True

    def _stored_state(
        self, facts: Mapping[str, Facts], committed: Mapping[str, Committed]
    ) -> PartitionState | None:
        """Where the store stands, if the log leads on from there to what is committed."""
        try:
            data = self._store.get(STATE)
        except StateLost:
            return None
        state = None if data is None else PartitionState.unpack(data)
        if state is None or state.offsets.keys() != committed.keys():
            return None
        if not all(facts[name].start <= at <= committed[name].offset for name, at in state.offsets.items()):
            return None
        return state if state.progress.is_before(self._until) else None

    def restore(self, name: str, messages: Sequence[Message], budget: Budget) -> bool:
        """Takes history of one input; what comes of it was written by who read it first. Whether more is due of it.

        Raises:
            Unavailable, StateLost: as `PartitionStep.run`.
        """
        try:
            self.apply(self._step(budget, until=self._until).run({name: messages} if messages else {}))
        except (Unavailable, StateLost, DiskFailed):
            raise
        except Exception:
            # One of them stopped a process before and was quarantined: there was nothing else to make of it.
            if len(messages) == 1:
                log.exception("a record of the history is left out")
                return False
            if not messages:
                raise
            middle = len(messages) // 2
            self.restore(name, messages[:middle], budget)
            self.restore(name, messages[middle:], budget)
        return self._more

    def due(self) -> bool:
        """Whether what has been read by now makes more due than has been worked off."""
        return self._is_restoring or self._more

    def ahead(self) -> dict[str, str]:
        """Inputs that are not to be read on for now, and why: too much that was read waits for a slower partition.

        The slowest input is never among them, as far as its stream time is known here.
        """
        if len(self._pending) < MOST_PENDING:
            return {}
        reached = self._state.progress.applied[0] + 2 * MARK_EVERY_MS
        why = f"{len(self._pending):,} labels and actions wait for the clock of {self._state.slowest(self.number)}"
        return {name: why for name in (LABELS, ACTIONS) if self._state.stream_times[name] >= reached}

    def process(self, inputs: Mapping[str, Sequence[Message]], budget: Budget) -> StepResult | None:
        """What a batch comes to, or without one some of what is due; `apply` it when it is committed.

        None where all that could be done was to do again what is committed.

        Raises:
            Unavailable, StateLost: as `PartitionStep.run`.
        """
        while self._is_restoring:
            self._catch_up(budget)
            if not inputs:
                return None
        return self._step(budget).run(inputs)

    def _catch_up(self, budget: Budget) -> None:
        """Does again what was done when all of the history was in."""
        for partition, offset in self._sources.items():
            self._state.sources[partition] = max(self._state.sources.get(partition, -1), offset)
        self.apply(self._step(budget, until=self._until, is_all_read=True).run({}))
        if self._more:
            return
        self._is_restoring = False
        self._more = True
        self._skip_before = _NOTHING
        # Watermark records are written once more.
        self._state.announced = dict.fromkeys(self._state.announced, NEVER)
        self._state.written = dict.fromkeys(self._state.written, NEVER)

    def _step(
        self, budget: Budget, *, until: Progress | None = None, is_all_read: bool = False
    ) -> PartitionStep:
        place = self._lane, self.number, self._partitions, self._store
        history = self._skip_before, until, is_all_read
        return PartitionStep(*place, self._state, self._pending, budget, *history)

    def apply(self, step: StepResult) -> None:
        self._store.write(step.puts, step.deletes)
        self._state = step.state
        self._pending = step.pending
        self._more = step.more

    def close(self) -> None:
        self._store.close()


def _from(facts: Mapping[str, Facts]) -> PartitionState:
    """Where to begin without a store."""
    state = PartitionState()
    for name, (start, stream_time, *_) in facts.items():
        state.offsets[name] = start
        state.stream_times[name] = stream_time
        state.checkpoints[name] = [(stream_time, start)]
    return state
