"""Performance as a kind of windows: what is read, counted and judged. See windows/kinds.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tailrace.avro.codec import Codec
from tailrace.contracts.records.lanes import CONTRACTS, Lane
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord
from tailrace.evaluator.alerts import quality_alerts
from tailrace.evaluator.champions import champions
from tailrace.evaluator.count import count_outcomes, count_predictions
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.levels import missed_levels
from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.read import EventReader, OfContract
from tailrace.evaluator.report import JudgedWindow, reports
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.models.catalog import Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.streaming.records import Message
from tailrace.windows.kinds import Cell, Closed, ReadRows, Times, WindowVerdict
from tailrace.windows.subject import read_subject, subject_text

log = logging.getLogger(__name__)

Verify = Callable[[ModelManifestRecord], Manifest]
"""The manifest of a record of ``tailrace.model-manifests``; raises PackageRefused."""

_PREDICTIONS, _SHADOW_PREDICTIONS, _OUTCOMES = "predictions", "shadow-predictions", "outcomes"


class PerformanceWindows:
    """Counts outcomes by the event time of their predictions, and judges closed windows at each of their ages.

    Args:
        records: reads and writes control records.
        verify: checks a package's manifest.
        catch_up: everything that is on the control topics by now. A prediction is written after the contract that it
            names; where that has not come this way yet, it is looked for there.
    """

    kind = "performance"

    def __init__(
        self, records: ControlRecords, verify: Verify, catch_up: Callable[[], Sequence[Message]]
    ) -> None:
        self._records = records
        self._reader = EventReader(Codec(records.registry), self._plan, self._fields, self._findings)
        self._catch_up = catch_up
        self._contracts = Contracts()
        self._verify = verify
        self._catalog = Catalog(verify)
        self._state = ControlState(records, self._contracts, self._catalog)
        self._plans: dict[str, EvaluationPlan] = {}
        self._looked_for: set[str] = set()

    def control_topics(self) -> Sequence[str]:
        return self._state.topics

    def control(self, messages: Sequence[Message]) -> None:
        for taken in self._state.each(messages):
            record = taken.record
            if taken.topic == CONTRACTS and taken.came and record is not None:
                self._plans[record["digest"]] = EvaluationPlan(self._contracts.by_digest[record["digest"]])

    def contracts(self) -> Contracts:
        return self._contracts

    def look_again(self) -> None:
        self.control(self._catch_up())

    def topics(self) -> frozenset[str]:
        lanes = [Lane(applied.contract.lane) for applied in self._contracts.by_digest.values()]
        return frozenset(
            topic for lane in lanes for topic in (lane.predictions, lane.shadow_predictions, lane.outcomes)
        )

    def stream_of(self, topic: str) -> str | None:
        name = topic.rpartition(".")[2]
        return None if name == _OUTCOMES else name

    def sources(self, contract: AppliedContract, stream: str) -> Sequence[str]:
        lane = Lane(contract.contract.lane)
        return [lane.shadow_predictions if stream == _SHADOW_PREDICTIONS else lane.predictions, lane.outcomes]

    def read(self, topic: str, messages: Sequence[Message]) -> ReadRows:
        lane, _, name = topic.rpartition(".")
        return self._reader.read(messages, lane, outcomes=name == _OUTCOMES)

    def count(self, topic: str, rows: ReadRows, before: Times) -> list[tuple[str, Cell]]:
        cells = []
        of: OfContract
        for of in rows.data:
            if of.outcomes is None:
                counted = count_predictions(of.plan, of.predicted, before[of.predicted.at])
            else:
                counted = count_outcomes(of.plan, of.outcomes)
            applied = of.plan.applied
            for start, age, subject, counts in counted:
                stream = _SHADOW_PREDICTIONS if subject.role == "shadow" else _PREDICTIONS
                cell = Cell(stream, applied.digest, start, age, subject_text(subject), counts.to_bytes())
                cells.append((applied.model, cell))
        return cells

    def length_ms(self, contract: AppliedContract) -> int:
        return contract.contract.quality.window_ms

    def ages(self, contract: AppliedContract) -> int:
        return len(contract.contract.quality.judge_at_ms)

    def closes_at(self, contract: AppliedContract, window_start: int, age: int) -> int:
        quality = contract.contract.quality
        return window_start + quality.window_ms + quality.judge_at_ms[age]

    def check(self, cell: Cell) -> None:
        read_subject(PerformanceSubject, cell.subject)
        if PerformanceCounts.from_bytes(cell.counts).to_bytes() != cell.counts:
            raise BadRecord("corrupt", "counts in a form that nobody writes", "cells.counts")

    def add(self, into: PerformanceCounts | None, counts: bytes) -> PerformanceCounts:
        added = PerformanceCounts.from_bytes(counts)
        return added if into is None else into + added

    def pack(self, sum: PerformanceCounts) -> bytes:  # noqa: A002
        return sum.to_bytes()

    def judge(self, closed: Closed, memory: dict[str, Any]) -> WindowVerdict:
        age_ms = closed.contract.contract.quality.judge_at_ms[closed.age]
        window = JudgedWindow(closed.model, closed.contract, closed.window_start, age_ms)
        judged = reports(window, closed.subjects, self._manifest)
        records = [self._records.record("PerformanceReport", report) for report in judged]
        if closed.stream == _SHADOW_PREDICTIONS:
            return WindowVerdict(records, memory)
        answered = champions(closed.subjects)
        alerts = quality_alerts(window, judged, answered, memory)
        levels, missed = dict(memory.get("levels", {})), []
        if closed.age == 0:
            missed = missed_levels(window, answered, levels)
        records += [self._records.record("Alert", alert) for alert in [*alerts.records, *missed]]
        return WindowVerdict(records, alerts.memory | ({"levels": levels} if levels else {}))

    def _manifest(self, model: str, version: int, artifact: str) -> Manifest | None:
        """None where no such package is published, or none that can be trusted."""
        record = self._catalog.record(model, version)
        if record is None or record["digest"] != artifact:
            return None
        try:
            return self._verify(record)
        except PackageRefused as refused:
            which = {"model": model, "version": version, "why": str(refused)}
            log.warning("a package was refused", extra=which)
            return None

    def _plan(self, digest: str) -> EvaluationPlan | None:
        if digest not in self._plans and digest not in self._looked_for:
            self.look_again()
            self._looked_for.add(digest)
        return self._plans.get(digest)

    def _findings(self) -> bool:
        return any(plan.reads_findings for plan in self._plans.values())

    def _fields(self) -> frozenset[str]:
        return frozenset(name for plan in self._plans.values() for name in plan.fields)
