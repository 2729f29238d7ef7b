"""One partition of a lane: its requests, where it stands, and how it gets there again after a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from tailrace.joiner.intake import Held
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.standing import ACTIONS, LABELS, NEVER, PREDICTIONS, Facts, Standing
from tailrace.joiner.step import MARK_EVERY_MS, Result, Step
from tailrace.joiner.store import STANDING, Store
from tailrace.kit.errors import Retry, StateLost, TailraceError
from tailrace.kit.log import Committed
from tailrace.kit.messages import Message

log = logging.getLogger(__name__)

MOST_HELD = 100_000
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
        store: Store,
        committed: Mapping[str, Committed],
    ) -> None:
        self.number = number
        self._lane = lane
        self._partitions = partitions
        self._store = store
        self._held: list[Held] = []
        facts = {name: Facts.of(found) for name, found in committed.items()}
        # So far had truths been applied, and champions been read, when all of the history was in.
        self._applied = max((f.applied for f in facts.values()), default=NEVER)
        self._sources = facts[PREDICTIONS].sources if PREDICTIONS in facts else {}
        found = self._left(facts, committed)
        if found is None:
            store.wipe()
            found = _from(facts)
        self._standing = found
        self._skip_before = found.applied
        self.history = {
            name: (found.offsets[name], committed[name].offset)
            for name in committed
            if found.offsets[name] < committed[name].offset
        }
        self._is_restoring = True

    def _left(self, facts: Mapping[str, Facts], committed: Mapping[str, Committed]) -> Standing | None:
        """Where the store stands, if the log leads on from there to what is committed."""
        try:
            data = self._store.get(STANDING)
        except StateLost:
            return None
        found = None if data is None else Standing.unpack(data)
        if found is None or found.offsets.keys() != committed.keys():
            return None
        for name, offset in found.offsets.items():
            if not facts[name].start <= offset <= committed[name].offset:
                return None
        return found

    def restore(self, name: str, messages: Sequence[Message]) -> None:
        """Takes history of one input; what comes of it was written by who read it first.

        Raises:
            Retry, StateLost: as `Step.run`.
        """
        try:
            self.apply(self._step().run({name: messages}))
        except (Retry, StateLost, TailraceError):
            raise
        except Exception:
            # One of them stopped a process before and was quarantined: there was nothing else to make of it.
            if len(messages) == 1:
                log.exception("a record of the history is left out")
                return
            middle = len(messages) // 2
            self.restore(name, messages[:middle])
            self.restore(name, messages[middle:])

    def ahead(self) -> dict[str, str]:
        """Inputs that are not to be read on for now, and why: too much that was read waits for a slower clock.

        The slowest input is never among them, as far as its clock has been told.
        """
        if len(self._held) < MOST_HELD:
            return {}
        clocks = {name: self._standing.clocks[name] for name in (LABELS, ACTIONS)}
        reached = self._standing.applied + 2 * MARK_EVERY_MS
        why = f"{len(self._held):,} labels and actions wait for the clock of {self._standing.slowest(self.number)}"
        return {name: why for name, clock in clocks.items() if clock >= reached}

    def process(self, inputs: Mapping[str, Sequence[Message]]) -> Result:
        """What a batch comes to; `apply` it when it is committed. Raises `Retry`, `StateLost`."""
        if self._is_restoring:
            for partition, offset in self._sources.items():
                known = self._standing.sources.get(partition, -1)
                self._standing.sources[partition] = max(known, offset)
            self.apply(self._step(applied=self._applied).run({}))
            self._is_restoring = False
            self._skip_before = NEVER
            # What was said to others is said once more.
            self._standing.announced = dict.fromkeys(self._standing.announced, NEVER)
            self._standing.marked = dict.fromkeys(self._standing.marked, NEVER)
        return self._step().run(inputs)

    def _step(self, *, applied: int = NEVER) -> Step:
        return Step(
            self._lane,
            self.number,
            self._partitions,
            self._store,
            self._standing,
            self._held,
            skip_before=self._skip_before,
            applied=applied,
        )

    def apply(self, result: Result) -> None:
        """Takes the step."""
        self._store.write(result.puts, result.deletes)
        self._standing = result.standing
        self._held = result.held

    def close(self) -> None:
        self._store.close()


def _from(facts: Mapping[str, Facts]) -> Standing:
    """Where to begin without a store."""
    standing = Standing()
    for name, fact in facts.items():
        standing.offsets[name] = fact.start
        standing.clocks[name] = fact.clock
        standing.checkpoints[name] = [(fact.clock, fact.start)]
    return standing
