"""The scorer's alerts: a package that is refused, a shadow that fails, a version that processes died with."""

from __future__ import annotations

from typing import Any

from tailrace.alerts.alert import alert_record
from tailrace.contracts.state.records import ControlRecords
from tailrace.scorer.serving.quarantine import Quarantined
from tailrace.scorer.versions import Refusal, Role
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import Record, RecordRef


class ScorerAlerts:
    """Writes the alerts of one role; the same alert twice has the same id."""

    def __init__(self, role: Role, records: ControlRecords) -> None:
        self._service = "scorer" if role == "champion" else "shadow-scorer"
        self._records = records

    def refused(self, refusal: Refusal) -> Record:
        return self._record(
            kind="package-refused",
            severity="severe",
            model=refusal.model,
            version=refusal.version,
            summary=f"version {refusal.version} of {refusal.model} was refused ({refusal.check}): "
            f"{refusal.reason}. What served before goes on serving; publish one that passes, or roll back",
            detail={"check": refusal.check, "artifact_digest": refusal.digest},
            at=refusal.published_at,
        )

    def shadow_failed(self, model: str, version: int, reason: str, source: RecordRef, at: int) -> Record:
        return self._record(
            kind="shadow-failed",
            severity="warning",
            model=model,
            version=version,
            summary=f"version {version} of {model}, in shadow, has no prediction for {source}: {reason}",
            source=source,
            at=at,
        )

    def quarantined(self, quarantined: Quarantined, source: RecordRef, at: int) -> Record:
        """``source`` is the last of the records that the processes died on."""
        model, version, revision = quarantined
        return self._record(
            kind="version-quarantined",
            severity="severe",
            model=model,
            version=version,
            alert_id=record_id("version-quarantined", self._service, model, version, revision),
            summary=f"Two processes of the {self._service} died with version {version} of {model} in flight, and none "
            f"without it: it is run no more. Publish one that does not crash. `tailrace promote {model} {version}` "
            f"runs it again; where it is the champion still, `tailrace off {model}` and `tailrace on {model}` do",
            detail={"revision": str(revision)},
            source=source,
            at=at,
        )

    def _record(
        self, kind: str, model: str, version: int, *, alert_id: str | None = None, **facts: Any
    ) -> Record:
        same = alert_id or record_id(kind, self._service, model, version)
        alert = alert_record(kind, same, service=self._service, model=model, version=version, **facts)
        return self._records.record("Alert", alert)
