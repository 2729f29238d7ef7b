"""Windows as a processor: both stages, and what is kept of them between processes.

Each batch of lane topics becomes parts on ``tailrace.window-parts``; parts become open windows and, when all partitions
are counted far enough, what the kind makes of closed ones. A partition's stream times are kept in the metadata of its
committed offset. Open windows are read again from the parts, from an offset that the metadata of the parts' partition
says; what is older than that, and what is remembered beyond open windows, is kept on ``tailrace.window-state``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from tailrace.contracts.records.control_codec import ControlCodec
from tailrace.contracts.records.lanes import WINDOW_PARTS, WINDOW_STATE
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.errors import Unavailable
from tailrace.streaming.backends.abstract import Committed, History, Retriable
from tailrace.streaming.bounds import STEP, Bounds, Budget
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import DeadLetter, Message, PausedPartition, Record, TopicPartition
from tailrace.windows.closing import ModelWindows, PartPlace, is_before
from tailrace.windows.counting import Clocks, count, crosses, parts
from tailrace.windows.kinds import NO_TIME, Windows
from tailrace.windows.parts import PartReader

KIND = "tailrace-kind"
KEEP_AFTER = 2_000
"""So many parts are read again by a new owner, about, at most."""
KEEP_AFTER_MS = 86_400_000
"""How old these parts are at most, while anything goes on; parts are kept for longer."""

_Open = dict[int, dict[str, ModelWindows]]
"""Open windows, by partition of the parts and model."""


class _Draft(NamedTuple):
    """What a batch comes to, and what it changes once it is committed."""

    records: list[Record]
    dead_letters: list[DeadLetter]
    paused: dict[TopicPartition, PausedPartition]
    metadata_of: dict[TopicPartition, str]
    clocks: dict[tuple[TopicPartition, str], int]
    claimed: dict[tuple[TopicPartition, str], int]
    windows: _Open
    ends: dict[int, PartPlace]
    more: dict[int, bool]


class WindowedProcessor:
    """Counts and judges windows.

    Args:
        windows: the kind.
        codec: writes and reads parts.
        partitions: how many partitions a topic has.
        keep_after: see `KEEP_AFTER`.
        bounds: of one step.
    """

    def __init__(
        self,
        windows: Windows,
        codec: ControlCodec,
        partitions: Callable[[str], int],
        *,
        keep_after: int = KEEP_AFTER,
        bounds: Bounds = STEP,
    ) -> None:
        self._kind = windows
        self._codec = codec
        self._partitions = partitions
        self._keep_after = keep_after
        self._reader = PartReader(windows, codec, self._count_partitions)
        self._counts: dict[str, int] = {}
        self._clocks: dict[tuple[TopicPartition, str], int] = {}
        # For how many contracts of the lane a stream time was claimed last.
        self._claimed: dict[tuple[TopicPartition, str], int] = {}
        self._bounds = bounds
        self._open: _Open = {}
        # By partition of the parts: up to where they were taken in, and whether more can be made of them.
        self._ends: dict[int, PartPlace] = {}
        self._more: dict[int, bool] = {}
        # What was read again and not put together yet.
        self._kept: dict[int, dict[str, bytes | None]] = {}
        self._parts: dict[int, list[Message]] = {}

    # What the runner calls ---

    def control_topics(self) -> Sequence[str]:
        return self._kind.control_topics()

    def topics(self) -> frozenset[str]:
        return frozenset(self._kind.topics()) | {WINDOW_PARTS}

    def control(self, messages: Sequence[Message]) -> None:
        self._kind.control(messages)

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History:
        history: dict[TopicPartition, tuple[int, int | None]] = {}
        for tp, (offset, metadata) in partitions.items():
            facts = json.loads(metadata or "{}")
            if tp.topic != WINDOW_PARTS:
                self._clocks.update({(tp, stream): time for stream, time in facts.items()})
                continue
            self._open[tp.partition] = {}
            self._ends[tp.partition] = PartPlace(offset, 0)
            if facts:
                history[tp] = facts["from"], offset
                history[TopicPartition(WINDOW_STATE, tp.partition)] = 0, None
                self._kept[tp.partition] = {}
                self._parts[tp.partition] = []
        return history

    def restore(self, messages: Sequence[Message]) -> None:
        # The state may come after the parts that it makes superfluous.
        for message in messages:
            if message.topic() == WINDOW_PARTS:
                if _is_of(self._kind, message):
                    self._parts[message.partition()].append(message)
            else:
                key = (message.key() or b"").decode(errors="replace")
                if key.startswith(f"{self._kind.kind}/"):
                    self._kept[message.partition()][key] = message.value()

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        gone = set(partitions)
        self._clocks = {key: time for key, time in self._clocks.items() if key[0] not in gone}
        self._claimed = {key: contracts for key, contracts in self._claimed.items() if key[0] not in gone}
        states: tuple[dict[int, Any], ...] = (self._open, self._ends, self._more, self._kept, self._parts)
        for tp in gone:
            for state in states if tp.topic == WINDOW_PARTS else ():
                state.pop(tp.partition, None)

    def due(self) -> bool:
        return bool(self._kept) or any(self._more.values())

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self._put_together()
        draft = _Draft([], [], {}, {}, {}, {}, {}, {}, {})
        budget = Budget(self._bounds, clock)
        self._count([message for message in batch if message.topic() != WINDOW_PARTS], draft)
        by_partition: dict[int, list[Message]] = defaultdict(list)
        for message in batch:
            if message.topic() == WINDOW_PARTS:
                by_partition[message.partition()].append(message)
        if not batch:
            by_partition = {partition: [] for partition, more in self._more.items() if more}
        for partition, messages in by_partition.items():
            self._close(partition, messages, draft, budget)
        return Output(
            draft.records,
            draft.dead_letters,
            draft.paused,
            metadata_of=draft.metadata_of,
            on_committed=partial(self._apply, draft),
        )

    def _apply(self, draft: _Draft) -> None:
        self._clocks.update(draft.clocks)
        self._claimed.update(draft.claimed)
        for partition, models in draft.windows.items():
            self._open[partition].update(models)
        self._ends.update(draft.ends)
        self._more.update(draft.more)

    def waiting(self) -> str | None:
        return None if self._kind.topics() else "no contract has been applied yet: `tailrace apply`"

    # Counting ---

    def _count(self, messages: Sequence[Message], draft: _Draft) -> None:
        if not messages:
            return
        counted = count(self._kind, messages, self._clocks)
        draft.dead_letters.extend(counted.dead_letters)
        draft.clocks.update(counted.clocks)
        self._keep_clocks(messages, draft)
        contracts = self._contracts_by_lane()
        topics = {message.topic().rpartition(".")[0]: message.topic() for message in messages}
        for lane, topic in sorted(topics.items()):
            partitions = self._count_partitions(topic)
            claims = self._claims(lane, contracts[lane], counted.clocks)
            draft.claimed.update(dict.fromkeys(claims, len(contracts[lane])))
            for model in sorted({applied.model for applied in contracts[lane]}):
                cells = counted.cells.get((lane, model), ())
                if cells or claims:
                    made = parts(self._kind.kind, model, lane, partitions, cells, claims)
                    draft.records.extend(map(self._part, made))

    def _contracts_by_lane(self) -> dict[str, list[AppliedContract]]:
        """All that ever were in force."""
        contracts: dict[str, list[AppliedContract]] = defaultdict(list)
        for history in self._kind.contracts().history.values():
            for applied in history:
                contracts[applied.contract.lane].append(applied)
        return contracts

    def _claims(
        self, lane: str, contracts: Sequence[AppliedContract], moved: Clocks
    ) -> dict[tuple[TopicPartition, str], int]:
        """The stream times that matter: those that have come to where a window may be judged, and those of which that
        is not known, since the partition or a contract is new here.
        """
        return {
            key: time
            for key, time in {**self._clocks, **moved}.items()
            if key[0].topic.rpartition(".")[0] == lane
            and (
                self._claimed.get(key) != len(contracts)
                or crosses(self._kind, contracts, self._clocks.get(key, NO_TIME), time)
            )
        }

    def _count_partitions(self, topic: str) -> int:
        if topic not in self._counts:
            try:
                self._counts[topic] = self._partitions(topic)
            except Retriable as error:
                raise Unavailable(str(error)) from error
        return self._counts[topic]

    def _keep_clocks(self, messages: Sequence[Message], draft: _Draft) -> None:
        facts: dict[TopicPartition, dict[str, int]] = defaultdict(dict)
        for (tp, stream), time in {**self._clocks, **draft.clocks}.items():
            facts[tp][stream] = time
        for tp in {TopicPartition(message.topic(), message.partition()) for message in messages}:
            if tp in facts:
                draft.metadata_of[tp] = json.dumps(facts[tp])

    def _part(self, part: dict[str, Any]) -> Record:
        headers = [(KIND, self._kind.kind.encode())]
        return self._codec.record("WindowPart", part, headers)

    # Closing ---

    def _close(self, partition: int, messages: Sequence[Message], draft: _Draft, budget: Budget) -> None:
        models = self._open[partition]
        touched = {model: windows.copy() for model, windows in models.items() if windows.judged_to}
        end, appended = self._ends[partition]
        if messages:
            end, appended = messages[-1].offset() + 1, messages[-1].timestamp()[1]
        for message in messages:
            part = self._reader.read(message) if _is_of(self._kind, message) else None
            if part is None:
                continue
            model = part["model"]
            if model not in touched:
                touched[model] = models[model].copy() if model in models else ModelWindows()
            try:
                touched[model].add(self._kind, part, _place(message))
            except Unavailable as unavailable:
                end = message.offset()
                paused = PausedPartition(end, str(unavailable))
                draft.paused[TopicPartition(WINDOW_PARTS, partition)] = paused
                break
        before = PartPlace(end - self._keep_after, appended - KEEP_AFTER_MS)
        for model, windows in models.items():
            needs = windows.needs()
            if model not in touched and needs is not None and is_before(needs, before):
                touched[model] = windows.copy()
        for model, windows in sorted(touched.items()):
            remembered = dict(windows.memory), windows.judged_to
            draft.records.extend(windows.close(self._kind, model, budget))
            is_news = remembered != (windows.memory, windows.judged_to)
            kept = windows.keep(self._kind, end, budget, before=before, all_memory=is_news)
            draft.records.extend(self._state(partition, model, *item) for item in kept.items())
        draft.windows[partition], draft.ends[partition] = touched, PartPlace(end, appended)
        needed = [at for windows in {**models, **touched}.values() if (at := windows.needs()) is not None]
        draft.more[partition] = any(windows.judged_to for windows in touched.values()) or any(
            is_before(at, before) for at in needed
        )
        facts = {"from": min((place.offset for place in needed), default=end)}
        draft.metadata_of[TopicPartition(WINDOW_PARTS, partition)] = json.dumps(facts)

    def _state(self, partition: int, model: str, name: str, value: bytes | None) -> Record:
        key = "/".join([self._kind.kind, model, *([name] if name else [])])
        return Record(WINDOW_STATE, value, key.encode(), (), partition)

    def _put_together(self) -> None:
        """Makes open windows of what was read again."""
        for partition in list(self._kept):
            states: dict[str, dict[str, bytes]] = defaultdict(dict)
            for key, value in self._kept[partition].items():
                _, model, *name = key.split("/", 2)
                if value is not None:
                    states[model][name[0] if name else ""] = value
            models = {model: ModelWindows.kept(self._kind, state) for model, state in states.items()}
            for message in self._parts[partition]:
                if (part := self._reader.read(message)) is not None:
                    windows = models.setdefault(part["model"], ModelWindows())
                    windows.add(self._kind, part, _place(message), again=True)
            for windows in models.values():
                windows.forget_judged(self._kind)
            self._open[partition] = models
            self._more[partition] = any(windows.judged_to for windows in models.values())
            del self._kept[partition], self._parts[partition]


def _place(message: Message) -> PartPlace:
    return PartPlace(message.offset(), message.timestamp()[1])


def _is_of(kind: Windows, message: Message) -> bool:
    return any(name == KIND and value == kind.kind.encode() for name, value in message.headers() or ())
