"""Drift as a kind of windows: what is read, counted and judged of predictions. See windows/kinds.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.drift.alerts import drift_alerts
from tailrace.drift.count import DriftSubject, count
from tailrace.drift.counts import DriftCounts, SparseCounts
from tailrace.drift.judge import DriftWindow, judge
from tailrace.drift.read_predictions import PredictionReader, PredictionRows
from tailrace.drift.references import OpenReference, References
from tailrace.errors import BadRecord
from tailrace.models.catalog import Catalog, Verify
from tailrace.streaming.records import Message
from tailrace.windows.kinds import Cell, Closed, ReadRows, Times, WindowVerdict
from tailrace.windows.skew import ahead_of_append
from tailrace.windows.subject import read_subject, subject_text

_SHADOW_PREDICTIONS = "shadow-predictions"
_OPEN = "open"
"""What is remembered between windows: alerts that are open."""


class DriftWindows:
    """Counts predictions by event time, and judges closed windows against what versions were trained on.

    Args:
        records: reads and writes control records.
        open_reference: opens the reference of a manifest record; raises PackageRefused, Unavailable.
        verify: whose manifests count; raises PackageRefused.
        catch_up: everything that is on the control topics by now. A prediction is written after the contract and
            the version that it names; where they have not come this way yet, they are looked for there, so that
            what is counted does not depend on which topic was read first.
    """

    kind = "drift"

    def __init__(
        self,
        records: ControlRecords,
        open_reference: OpenReference,
        verify: Verify,
        catch_up: Callable[[], Sequence[Message]],
    ) -> None:
        self._records = records
        self._reader = PredictionReader(Codec(records.registry))
        self._catch_up = catch_up
        self._contracts = Contracts()
        self._catalog = Catalog(verify)
        self._state = ControlState(records, self._contracts, self._catalog)
        self._references = References(self._catalog, open_reference, self.look_again)
        self._unknown: set[str] = set()

    def control_topics(self) -> Sequence[str]:
        return self._state.topics

    def control(self, messages: Sequence[Message]) -> None:
        self._state.take(messages)

    def contracts(self) -> Contracts:
        return self._contracts

    def look_again(self) -> None:
        self.control(self._catch_up())

    def topics(self) -> frozenset[str]:
        lanes = [Lane(applied.contract.lane) for applied in self._contracts.by_digest.values()]
        return frozenset(topic for lane in lanes for topic in (lane.predictions, lane.shadow_predictions))

    def stream_of(self, topic: str) -> str | None:
        return topic.rpartition(".")[2]

    def sources(self, contract: AppliedContract, stream: str) -> Sequence[str]:
        lane = Lane(contract.contract.lane)
        return [lane.shadow_predictions if stream == _SHADOW_PREDICTIONS else lane.predictions]

    def read(self, topic: str, messages: Sequence[Message]) -> ReadRows:
        times = np.zeros(len(messages), dtype=np.int64)
        read, bad = self._reader.read([message.value() for message in messages])
        good = []
        for predictions in read:
            times[predictions.at] = predictions.event_times
            refused = self._refused(topic, messages, predictions)
            bad |= {int(predictions.at[row]): why for row, why in refused.items()}
            if not refused:
                good.append(predictions)
            elif len(refused) < len(predictions.at):
                good.append(predictions.take(np.setdiff1d(np.arange(len(predictions.at)), list(refused))))
        return ReadRows(times, bad, good)

    def count(self, topic: str, rows: ReadRows, before: Times) -> list[tuple[str, Cell]]:
        cells = []
        stream = str(self.stream_of(topic))
        predictions: PredictionRows
        for predictions in rows.data:
            whose = predictions.identity
            applied = self._contracts.by_digest[whose.contract_digest]
            layout = self._references.layout(whose.model, whose.version, whose.artifact_digest)
            stream_times = before[predictions.at]
            for start, subject, counts in count(predictions, applied.contract, layout, stream_times):
                cell = Cell(stream, applied.digest, start, 0, subject_text(subject), counts.to_bytes())
                cells.append((whose.model, cell))
        return cells

    def length_ms(self, contract: AppliedContract) -> int:
        return contract.contract.drift.window_ms

    def ages(self, contract: AppliedContract) -> int:
        return 1

    def closes_at(self, contract: AppliedContract, window_start: int, age: int) -> int:
        return window_start + contract.contract.drift.window_ms + contract.contract.event_time.lateness_ms

    def check(self, cell: Cell) -> None:
        read_subject(DriftSubject, cell.subject)
        DriftCounts.from_bytes(cell.counts)

    def add(self, into: DriftCounts | SparseCounts | None, counts: bytes) -> DriftCounts | SparseCounts:
        added = DriftCounts.from_bytes(counts)
        return (added if into is None else into.whole().plus(added)).lean()

    def pack(self, total: DriftCounts | SparseCounts) -> bytes:
        return total.whole().to_bytes()

    def judge(self, closed: Closed, memory: dict[str, Any]) -> WindowVerdict:
        window = DriftWindow(closed.model, closed.contract, closed.window_start)
        reports = []
        for text, counts in closed.subjects.items():
            subject = read_subject(DriftSubject, text)
            layout = self._references.layout(closed.model, subject.version, subject.artifact_digest)
            reports.append(judge(window, subject, counts.whole(), layout))
        records = [self._records.record("DriftReport", report) for report in reports]
        if closed.stream == _SHADOW_PREDICTIONS:
            return WindowVerdict(records, memory)
        alerts = drift_alerts(window, reports, memory.get(_OPEN, {}))
        records += [self._records.record("Alert", alert) for alert in alerts.records]
        return WindowVerdict(records, {_OPEN: alerts.open} if alerts.open else {})

    def _refused(
        self, topic: str, messages: Sequence[Message], predictions: PredictionRows
    ) -> dict[int, BadRecord]:
        """By row, why predictions cannot be counted."""
        whose = predictions.identity
        if whose.contract_digest not in self._contracts.by_digest.keys() | self._unknown:
            self.look_again()
        applied = self._contracts.by_digest.get(whose.contract_digest)
        if applied is None:
            self._unknown.add(whose.contract_digest)
        lane = topic.rpartition(".")[0]
        if applied is None or applied.model != whose.model or applied.contract.lane != lane:
            reason = f"no contract of {whose.model} on {lane} has the digest {whose.contract_digest}"
            return dict.fromkeys(range(len(predictions.at)), BadRecord("unknown-contract", reason))
        own_messages = [messages[at] for at in predictions.at.tolist()]
        return ahead_of_append(predictions.event_times, own_messages, applied.contract.event_time.skew_ms)
