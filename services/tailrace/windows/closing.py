"""The second stage of windows: one model's open windows, and when each of them is judged."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from tailrace.contracts.records.lanes import WINDOW_PARTS, WINDOW_STATE
from tailrace.contracts.records.record_types import WindowPartRecord
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.errors import BadRecord, Unavailable
from tailrace.streaming.bounds import Budget, size_of
from tailrace.streaming.records import Record
from tailrace.telemetry import metrics
from tailrace.windows.kinds import NO_TIME, Cell, Closed, Windows, WindowVerdict

log = logging.getLogger(__name__)


class WindowKey(NamedTuple):
    """Which of a model's windows."""

    stream: str
    contract_digest: str
    start: int


class _Due(NamedTuple):
    closes_at: int
    start: int
    contract_digest: str
    age: int
    key: WindowKey


class PartPlace(NamedTuple):
    """A part's offset, and when it was appended, in ms."""

    offset: int
    appended: int


class PartitionProgress(NamedTuple):
    """The records of a stream in a partition, which have been counted up to some time."""

    topic: str
    partition: int
    stream: str


@dataclass(frozen=True)
class OpenWindow:
    """What is known of an open window.

    Attributes:
        sums: by age, then subject.
        next_age: the first age at which it has not been judged.
        kept_to: parts before this offset are in what was last kept of it; 0 where nothing was kept.
        changed_at: the first part that is not, None where there is none.
    """

    sums: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    next_age: int = 0
    kept_to: int = 0
    changed_at: PartPlace | None = None

    def plus(self, kind: Windows, cell: Cell, place: PartPlace) -> OpenWindow:
        of_age = self.sums.get(cell.age, {})
        total = kind.add(of_age.get(cell.subject), cell.counts)
        changed_at = place if self.changed_at is None else self.changed_at
        sums = {**self.sums, cell.age: {**of_age, cell.subject: total}}
        return replace(self, sums=sums, changed_at=changed_at)

    def up_to(self, kind: Windows, age: int) -> dict[str, Any]:
        """By subject, the sums over this age and all before."""
        total: dict[str, Any] = {}
        for at in sorted(self.sums):
            for subject, part in self.sums[at].items() if at <= age else ():
                total[subject] = kind.add(total[subject], kind.pack(part)) if subject in total else part
        return dict(sorted(total.items()))

    def to_json(self, kind: Windows, offset: int) -> bytes:
        cells = [
            [age, subject, base64.b64encode(kind.pack(total)).decode()]
            for age, by_subject in sorted(self.sums.items())
            for subject, total in sorted(by_subject.items())
        ]
        return json.dumps({"kept_to": offset, "cells": cells}).encode()

    @classmethod
    def from_json(cls, kind: Windows, value: bytes) -> Self:
        known = json.loads(value)
        sums: dict[int, dict[str, Any]] = {}
        for age, subject, counts in known["cells"]:
            sums.setdefault(age, {})[subject] = kind.add(None, base64.b64decode(counts))
        return cls(sums, kept_to=known["kept_to"])


@dataclass
class ModelWindows:
    """The windows of one model that are to be judged yet, and what is remembered beyond them.

    Attributes:
        counted_to: up to which event time partitions have been counted.
        partitions: how many each topic of a lane has.
        memory: what the kind remembers, by stream.
        kept_to, changed_at: as of a window, of ``counted_to`` and memory.
        over: windows that were kept and are to be taken away.
        judged_to: by stream and contract, where not all that is due has been judged: up to which time of closing.
    """

    windows: dict[WindowKey, OpenWindow] = field(default_factory=dict)
    counted_to: dict[PartitionProgress, int] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept_to: int = 0
    changed_at: PartPlace | None = None
    over: list[WindowKey] = field(default_factory=list)
    judged_to: dict[str, int] = field(default_factory=dict)

    def copy(self) -> ModelWindows:
        return ModelWindows(**{name: copy(value) for name, value in vars(self).items()})

    # Counting ---

    def add(self, kind: Windows, part: WindowPartRecord, place: PartPlace, *, again: bool = False) -> None:
        """Takes a part in; ``again``: of history, so that its windows may have been judged since.

        Raises:
            Unavailable: a cell's contract is not known yet. Nothing is taken in then.
        """
        self.partitions[part["lane"]] = part["partitions"]
        stream_times: dict[tuple[str, str], int] = {}
        cells = [Cell(**cell) for cell in part["cells"]]
        for cell in cells:
            contract = _contract(kind, cell.contract_digest)
            stream_times[cell.stream, cell.contract_digest] = self._stream_time(kind, contract, cell.stream)
        for cell in cells:
            key = WindowKey(cell.stream, cell.contract_digest, cell.window_start)
            window = self.windows.get(key, OpenWindow())
            if place.offset < window.kept_to:
                continue
            closes_at = kind.closes_at(_contract(kind, key.contract_digest), key.start, cell.age)
            if not again and closes_at <= stream_times[cell.stream, cell.contract_digest]:
                which = str(cell._replace(counts=b""))
                log.error("counted after its window was judged", extra={"cell": which})
                continue
            self.windows[key] = window.plus(kind, cell, place)
        if place.offset < self.kept_to:
            return
        for claim in part["claims"]:
            progress = PartitionProgress(claim["topic"], claim["partition"], claim["stream"])
            self.counted_to[progress] = max(claim["time"], self.counted_to.get(progress, NO_TIME))
        if self.changed_at is None:
            self.changed_at = place

    def _stream_time(self, kind: Windows, contract: AppliedContract, stream: str) -> int:
        """Up to where all partitions have been counted."""
        return min(
            self.counted_to.get(PartitionProgress(topic, partition, stream), NO_TIME)
            for topic in kind.sources(contract, stream)
            for partition in range(self.partitions.get(topic.rpartition(".")[0], 1))
        )

    # Judging ---

    def close(self, kind: Windows, model: str, budget: Budget) -> list[Record]:
        """Judges what is due, in the order of closing, as far as the budget goes; of one time all of it, or nothing."""
        records: list[Record] = []
        due = sorted(self._due(kind))
        self.judged_to = {}
        for at, (closes_at, _, _, age, key) in enumerate(due):
            if (budget.spent or budget.is_visited) and (at == 0 or due[at - 1].closes_at != closes_at):
                for later in due[at:]:
                    self.judged_to.setdefault(_stretch(later.key), later.closes_at - 1)
                break
            budget.visit()
            window = self.windows[key]
            if min(window.sums) <= age:
                contract = _contract(kind, key.contract_digest)
                closed = Closed(model, key.stream, contract, key.start, age, window.up_to(kind, age))
                memory = json.loads(json.dumps(self.memory.get(key.stream, {})))
                judged = _judge(kind, closed, memory)
                records += judged.records
                budget.take(len(judged.records), size_of(judged.records))
                self.memory[key.stream] = judged.memory
            self._judged(kind, key, age)
        return records

    def forget_judged(self, kind: Windows) -> None:
        """After history: what ``counted_to`` lets be judged has been judged before, as far as ``judged_to`` says."""
        for closes_at, _, _, age, key in sorted(self._due(kind)):
            if closes_at <= self.judged_to.get(_stretch(key), closes_at):
                self._judged(kind, key, age)

    def _due(self, kind: Windows) -> list[_Due]:
        due = []
        for key, window in self.windows.items():
            contract = _contract(kind, key.contract_digest)
            stream_time = self._stream_time(kind, contract, key.stream)
            for age in range(window.next_age, kind.ages(contract)):
                closes_at = kind.closes_at(contract, key.start, age)
                if closes_at > stream_time:
                    break
                due.append(_Due(closes_at, key.start, key.contract_digest, age, key))
        return due

    def _judged(self, kind: Windows, key: WindowKey, age: int) -> None:
        window = self.windows[key]
        if age + 1 < kind.ages(_contract(kind, key.contract_digest)):
            self.windows[key] = replace(window, next_age=age + 1)
            return
        del self.windows[key]
        if window.kept_to:
            self.over.append(key)

    # Keeping ---

    def needs(self) -> PartPlace | None:
        """The first part that is not in what was kept; None where all are."""
        changed = [self.changed_at, *(window.changed_at for window in self.windows.values())]
        return min((at for at in changed if at is not None), default=None)

    def keep(
        self, kind: Windows, offset: int, budget: Budget, *, before: PartPlace, all_memory: bool
    ) -> dict[str, bytes | None]:
        """What is to be written down, by name, so that no part before ``before``, by offset or time, is needed again;
        as far as the budget goes.

        Args:
            offset: parts before this one are taken in.
            all_memory: whether ``counted_to`` and memory are to be written in any case.
        """
        kept: dict[str, bytes | None] = {}
        for key in self.over:
            kept["/".join(map(str, key))] = None
        self.over = []
        for key, window in self.windows.items():
            if window.changed_at is not None and is_before(window.changed_at, before):
                if budget.spent:
                    break
                kept["/".join(map(str, key))] = written = window.to_json(kind, offset)
                budget.take(1, len(written))
                self.windows[key] = replace(window, kept_to=offset, changed_at=None)
        if all_memory or (self.changed_at is not None and is_before(self.changed_at, before)):
            claims = [[*progress, time] for progress, time in sorted(self.counted_to.items())]
            state: dict[str, Any] = {"kept_to": offset, "partitions": self.partitions, "claims": claims}
            state["memory"] = self.memory
            if self.judged_to:
                state["judged_to"] = self.judged_to
            kept[""] = json.dumps(state).encode()
            self.kept_to, self.changed_at = offset, None
        return kept

    @classmethod
    def kept(cls, kind: Windows, state: Mapping[str, bytes]) -> Self:
        """What was written down, by name."""
        windows = cls()
        for name, value in state.items():
            try:
                windows._take_kept(kind, name, value)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError, BadRecord) as error:
                metrics.SKIPPED.labels(WINDOW_STATE, "corrupt").inc()
                which = {"window": name[:200], "why": repr(error)}
                log.error("left out what was kept of a window", extra=which)
        return windows

    def _take_kept(self, kind: Windows, name: str, value: bytes) -> None:
        if name:
            stream, digest, start = name.split("/")
            if digest not in kind.contracts().by_digest:
                raise ValueError("no such contract")
            self.windows[WindowKey(stream, digest, int(start))] = OpenWindow.from_json(kind, value)
            return
        known = json.loads(value)
        counted_to = {PartitionProgress(*progress): int(time) for *progress, time in known["claims"]}
        kept_to, partitions = int(known["kept_to"]), {str(k): int(v) for k, v in known["partitions"].items()}
        self.memory = {str(stream): dict(memory) for stream, memory in known["memory"].items()}
        self.judged_to = {str(name): int(time) for name, time in known.get("judged_to", {}).items()}
        self.kept_to, self.partitions, self.counted_to = kept_to, partitions, counted_to


def _stretch(key: WindowKey) -> str:
    """The windows that are closed by the same stream times."""
    return f"{key.stream}/{key.contract_digest}"


def is_before(place: PartPlace, other: PartPlace) -> bool:
    """Whether it is before the other by offset, or by time."""
    return place.offset < other.offset or place.appended < other.appended


def _judge(kind: Windows, closed: Closed, memory: dict[str, Any]) -> WindowVerdict:
    """A window's verdict. One whose counts no honest counting makes is left out: it would end every process."""
    try:
        return kind.judge(closed, memory)
    except (ArithmeticError, ValueError, LookupError, TypeError, BadRecord):
        metrics.SKIPPED.labels(WINDOW_PARTS, "not-judged").inc()
        which = {"model": closed.model, "stream": closed.stream, "start": closed.window_start}
        log.exception("a window cannot be judged", extra={"window": str(which)})
        return WindowVerdict([], memory)


def _contract(kind: Windows, digest: str) -> AppliedContract:
    contract = kind.contracts().by_digest.get(digest)
    if contract is None:
        raise Unavailable(f"a window's contract, {digest[:12]}, has not been read yet")
    return contract
