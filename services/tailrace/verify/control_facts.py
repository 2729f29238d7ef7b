"""What the control topics say: contracts, versions that were published, and decisions, each checked as it comes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.streaming.records import Message, RecordRef
from tailrace.verify.decisions import Decisions, Published
from tailrace.verify.report import VerifyReport

READ_IN_ORDER = (
    (lanes.ROLLOUTS, lanes.TRAINING_RUNS),
    (lanes.ALERTS, lanes.DRIFT_REPORTS, lanes.PERFORMANCE_REPORTS, lanes.CLOCKS),
    (lanes.CONTRACTS, lanes.MANIFESTS, lanes.COMMANDS),
)
"""Control topics in an order in which none names what a later one does not have yet."""

_DECISIONS = (lanes.ROLLOUTS, lanes.TRAINING_RUNS, lanes.DRIFT_REPORTS, lanes.PERFORMANCE_REPORTS)


class ControlFacts:
    """The fold of control records.

    Args:
        manifest: of a record; raises PackageRefused where nobody who is trusted has signed it.
        models: those that are verified.

    Attributes:
        messages: those that a scorer follows.
    """

    def __init__(
        self,
        records: ControlRecords,
        manifest: Callable[[ModelManifestRecord], Manifest],
        models: Collection[str],
        report: VerifyReport,
    ) -> None:
        self._copies = Copies()
        self._manifest = manifest
        self._models = models
        self._report = report
        self.contracts = Contracts()
        self._state = ControlState(records, self.contracts)
        self.decisions = Decisions(self.contracts)
        self.messages: list[Message] = []

    def take(self, message: Message) -> None:
        """Takes the next record in."""
        (taken,) = self._state.take([message])
        topic = taken.topic
        record: Any = taken.record
        if record is None:  # it counts for nothing anywhere
            return
        if topic in (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS):
            self.messages.append(message)
        if topic == lanes.MANIFESTS:
            self._published(record)
        elif topic in _DECISIONS:
            self._decided(message, record)

    def _published(self, record: ModelManifestRecord) -> None:
        """Takes a version in: the first whose manifest is verified, as everywhere."""
        try:
            manifest = self._manifest(record)
        except PackageRefused:
            return
        published = Published(record["digest"], manifest.content_digest)
        self.decisions.versions.setdefault((record["model"], record["version"]), published)

    def _decided(self, message: Message, record: Any) -> None:
        """Takes a decision in, where it is about a model that is verified."""
        at = RecordRef.of(message)
        if record["model"] not in self._models or self._copies.is_copy(message):
            return
        if at.topic == lanes.ROLLOUTS:
            self._report.report_problems(self.decisions.rollout(at, record))
        elif at.topic == lanes.TRAINING_RUNS:
            self.decisions.run(at, record)
        else:
            self._report.report_problems(self.decisions.report(at, record))
