"""An evaluator's surroundings in memory: contracts, a manifest, predictions and outcomes as records of a lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.windows import PerformanceWindows
from tailrace.models.guards.conformal import Quantiles
from tailrace.models.manifest import Holdout, Manifest
from tailrace.streaming.records import Message, PlainMessage, Record, RecordRef
from tailrace.testing.control_records import contract_record, manifest_record, prediction_event, schema_ids
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control, message_of

SECOND = 1000
ARTIFACT = "a" * 64

BINARY = """
model: credit
owner: {team: risk}
event_time: {lateness: 1s}
features:
  income: {type: number}
  employed: {type: boolean}
context:
  amount: {type: number}
  region: {categories: [north, south, east], unseen: east}
target: {name: defaulted, type: boolean}
labels: {horizon: 100s}
policy:
  - {when: "score < 0.5", do: approve}
  - {do: refuse}
quality:
  window: 10s
  judge_at: [0s, 20s, 100s]
  slices: [region, employed, "amount > 50"]
  mature: 80%
  drop: {accuracy: 0.1, auc: 0.1}
value: "CASE WHEN action <> 'approve' THEN 0 WHEN defaulted THEN -0.6 * amount ELSE 0.04 * amount END"
"""
MULTICLASS = """
model: flowers
owner: {team: garden}
features: {x: {type: number}}
target: {name: kind, categories: [iris, rose, tulip]}
labels: {horizon: 100s}
quality: {window: 10s, judge_at: [0s, 100s]}
value: "CASE WHEN predicted_class = kind THEN score ELSE -1 END"
"""
REGRESSION = """
model: price
owner: {team: sales}
features: {x: {type: number}}
target: {name: paid, type: number}
labels: {horizon: 100s}
quality: {window: 10s, judge_at: [0s, 100s]}
value: "value - paid"
"""


def written(topic: str, value: bytes | None, partition: int = 0, offset: int = 0) -> Message:
    """A message as the log hands it over."""
    return PlainMessage(topic, partition, offset, value, b"k", timestamp_ms=2**41)


@dataclass
class EvaluatedLane:
    """Makes the records of one model's lane.

    Attributes:
        holdouts, conformal: what ``verify`` says, by version and of all.
    """

    text: str = BINARY
    registry: MemoryRegistry = field(default_factory=MemoryRegistry)
    holdouts: dict[int, Holdout] = field(default_factory=dict)
    conformal: Quantiles | None = None

    def __post_init__(self) -> None:
        self.contract: ModelContract = load_contract(self.text)
        self.lane = Lane(self.contract.lane)
        self.codec, self.control = Codec(self.registry), Control(self.registry)
        self.ids = schema_ids(self.registry, self.contract)

    def windows(self, *, know: bool = True) -> PerformanceWindows:
        """The kind, which knows the contract and the manifests, or finds them when it looks for them."""
        messages: list[Message] = [message_of(record) for record in self.control_records()]
        windows = PerformanceWindows(self.control.by("evaluator"), self._verify, lambda: messages)
        if know:
            windows.control(messages)
        return windows

    def _verify(self, record: Mapping[str, Any]) -> Manifest:
        fields: dict[str, Any] = {"holdout": self.holdouts[record["version"]], "conformal": self.conformal}
        return Manifest.model_construct(**fields)

    def control_records(self) -> list[Record]:
        contract = contract_record(self.contract)
        records = [self.control.record("Contract", contract, b"m")]
        for version in self.holdouts:
            manifest = manifest_record(self.contract.model, version, ARTIFACT)
            records.append(self.control.record("ModelManifest", manifest, b"m"))
        return records

    def prediction(self, **changed: Any) -> dict[str, Any]:
        """A prediction; fields of its request by name as well."""
        names = {*self.contract.features, *self.contract.context}
        request = {name: changed.pop(name) for name in names & changed.keys()}
        source = RecordRef(self.lane.requests, 0, 0)
        return prediction_event(self.contract, source, **{"request": request} | changed)

    def outcome(self, prediction: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
        return {
            "outcome_id": "o",
            "revision": 1,
            "state": "labelled",
            "known_at": prediction["event_time"],
            "late": False,
            "prediction": dict(prediction),
        } | changed

    def champion(self, **changed: Any) -> dict[str, Any]:
        """What a version answered to a request that a shadow scored too."""
        return {"prediction_id": "c", "version": 1, "probabilities": {}, "action": "approve"} | changed

    def encode(self, topic: str, record: dict[str, Any]) -> bytes:
        return self.codec.encode(self.ids[topic], record)

    def messages(self, topic: str, records: Sequence[dict[str, Any]]) -> list[Message]:
        return [written(topic, self.encode(topic, record), 0, at) for at, record in enumerate(records)]

    def counted(
        self, topic: str, records: Sequence[dict[str, Any]], windows: PerformanceWindows | None = None
    ) -> dict[tuple[int, int, str], PerformanceCounts]:
        """What records of a topic add, by window, age and subject; nothing may be bad. Clocks stand at the start."""
        windows = windows or self.windows()
        messages = self.messages(topic, records)
        rows = windows.read(topic, messages)
        assert not rows.bad
        before = np.full(len(messages), -(2**62), dtype=np.int64)
        counted: dict[tuple[int, int, str], PerformanceCounts] = {}
        for _, cell in windows.count(topic, rows, before):
            key = cell.window_start, cell.age, cell.subject
            counted[key] = windows.add(counted.get(key), cell.counts)
        return counted
