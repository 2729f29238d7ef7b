"""The joiner's processor: predictions, labels and actions in; outcomes, dead letters and watermark records out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from tailrace.avro.codec import Codec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import Unavailable
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.lane_contracts import LaneContracts
from tailrace.joiner.partition import LanePartition
from tailrace.joiner.partition_state import INPUTS, PREDICTIONS
from tailrace.joiner.step import StepResult
from tailrace.joiner.store import KeyValueStore
from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.bounds import STEP, Bounds, Budget
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, PausedPartition, Record, TopicPartition

T = TypeVar("T")


class JoiningProcessor:
    """Joins what is in the partitions of one number of a lane's inputs; needs them together, so ``range``.

    Args:
        records: reads control records.
        open_store: opens the store of a lane's partition.
        partitions: how many a topic has.
        catch_up: everything that is on the control topics by now. A prediction is written after the contract that it
            names; where that has not come this way yet, it is looked for there.
        bounds: of one step.
    """

    def __init__(
        self,
        records: ControlRecords,
        open_store: Callable[[str, int], KeyValueStore],
        partitions: Callable[[str], int],
        catch_up: Callable[[], Sequence[Message]],
        bounds: Bounds = STEP,
    ) -> None:
        self._registry = records.registry
        self._codec = Codec(records.registry)
        self._open_store = open_store
        self._partitions = partitions
        self._catch_up = catch_up
        self._contracts = Contracts()
        self._state = ControlState(records, self._contracts)
        self._lanes: dict[str, LaneContracts] = {}
        self._own: dict[tuple[str, int], LanePartition] = {}
        self._bounds = bounds
        self._restored: set[LanePartition] = set()

    # The seam to the loop ---

    def control_topics(self) -> Sequence[str]:
        return self._state.topics

    def topics(self) -> frozenset[str]:
        return frozenset(f"{lane}.{name}" for lane in self._lanes for name in INPUTS)

    def control(self, messages: Sequence[Message]) -> None:
        for taken in self._state.each(messages):
            if taken.came and taken.record is not None:
                applied = self._contracts.current[taken.record["model"]]
                plan = JoiningPlan(applied, self._codec, self._registry)
                lane = plan.lane.name
                if lane not in self._lanes:
                    contracts = LaneContracts(
                        Lane(lane), self._codec, catch_up=lambda: self.control(self._catch_up())
                    )
                    self._lanes[lane] = contracts
                self._lanes[lane].take(plan)

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History | None:
        history: dict[TopicPartition, tuple[int, int | None]] = {}
        for (lane, number), inputs in _by_lane_partition(partitions.items()).items():
            count, store = self._partitions(Lane(lane).labels), self._open_store(lane, number)
            own = self._own[lane, number] = LanePartition(self._lanes[lane], number, count, store, inputs)
            for name, stretch in own.history.items():
                history[TopicPartition(f"{lane}.{name}", number)] = stretch
        return history or None

    def restore(self, messages: Sequence[Message]) -> bool:
        budget = Budget(self._bounds)
        if not messages:
            return any(own.restore(PREDICTIONS, (), budget) for own in self._restored)
        self._restored = set()
        more = False
        for at, inputs in _by_partition(messages).items():
            for name, received in inputs.items():
                more |= self._own[at].restore(name, received, budget)
                self._restored.add(self._own[at])
        return more

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for topic, number in partitions:
            own = self._own.pop((topic.rpartition(".")[0], number), None)
            if own is not None:
                own.close()

    def due(self) -> bool:
        return any(own.due() for own in self._own.values())

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self._codec.begin_batch()
        budget = Budget(self._bounds, clock)
        records: list[Record] = []
        steps: list[tuple[LanePartition, StepResult]] = []
        output = Output(records, on_committed=partial(_apply, steps))
        away: Unavailable | None = None
        by_partition = _by_partition(batch)
        for lane, number in by_partition or [at for at, own in self._own.items() if own.due()]:
            own, inputs = self._own[lane, number], by_partition.get((lane, number), {})
            paused = {name: why for name, why in own.ahead().items() if name in inputs}
            taken = {name: messages for name, messages in inputs.items() if name not in paused}
            try:
                step = own.process(taken, budget)
            except Unavailable as error:
                # Other partitions need not wait for what this one needs.
                paused |= dict.fromkeys(taken, str(error))
                away = error
            else:
                if step is not None:
                    steps.append((own, step))
                    records += step.records
                    output.dead_letters += step.letters
                    for name, metadata in step.metadata.items():
                        output.metadata_of[TopicPartition(f"{lane}.{name}", number)] = metadata
            for name, why in paused.items():
                pause = PausedPartition(inputs[name][0].offset(), why)
                output.paused[TopicPartition(f"{lane}.{name}", number)] = pause
            if not batch and budget.spent:
                break
        if away is not None and not batch and not steps:
            raise away
        return output

    def waiting(self) -> str | None:
        return None if self._lanes else "no contract has been applied yet: `tailrace apply`"


def _apply(steps: Sequence[tuple[LanePartition, StepResult]]) -> None:
    for own, step in steps:
        own.apply(step)


def _by_partition(messages: Sequence[Message]) -> dict[tuple[str, int], dict[str, list[Message]]]:
    by_topic: dict[tuple[str, int], list[Message]] = {}
    for message in messages:
        by_topic.setdefault((message.topic(), message.partition()), []).append(message)
    return _by_lane_partition(by_topic.items())


def _by_lane_partition(
    partitions: Iterable[tuple[tuple[str, int], T]],
) -> dict[tuple[str, int], dict[str, T]]:
    """What partitions have, by lane and number, then by input."""
    inputs: dict[tuple[str, int], dict[str, T]] = {}
    for (topic, number), content in partitions:
        lane, _, name = topic.rpartition(".")
        inputs.setdefault((lane, number), {})[name] = content
    return inputs
