"""Alerts of models whose requests wait until a person does something: raised at the first request that waits, resolved
when requests go on.

What is open goes with the committed offsets to the next owner of a partition, so that whoever has it then resolves it.
The alert of one cause has one id, whichever partitions and instances wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from tailrace.alerts.alert import alert_record
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import RecordRef, TopicPartition

KIND = "requests-wait"
_REMEDY = (
    "Publish a version that can answer and promote it, go back to one by `tailrace rollback`, or apply the contract "
    "before it again; `tailrace off` has the contract's fallback answer meanwhile"
)


class WaitingRequest(NamedTuple):
    """The first request of a batch that waits for a person, and what for. ``cause`` is the same as long as that is."""

    reason: str
    cause: str
    source: RecordRef
    appended: int


OpenWaits = Mapping[str, str]
"""By model, the id of the alert that is open."""


class WaitingRequests:
    """What is open, and which partitions' committed offsets say so."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.carried: set[TopicPartition] = set()

    def take(self, partition: TopicPartition, waits: OpenWaits) -> None:
        """What the last owner of a partition left."""
        self.open |= waits
        if waits:
            self.carried.add(partition)

    def forget(self, partition: TopicPartition) -> None:
        self.carried.discard(partition)

    def committed(self, waits: OpenWaits, partitions: Collection[TopicPartition]) -> None:
        """What is open now stands with the offsets of these partitions, and of those that carried it before."""
        self.open = dict(waits)
        self.carried = self.carried.union(partitions) if waits else set()

    def after(
        self, waiting: Mapping[str, WaitingRequest], still: Collection[str], last: RecordRef, at: int
    ) -> tuple[dict[str, str], list[AlertRecord]]:
        """What is open after a batch, and the alerts to be sent.

        Args:
            waiting: by model, what waits in it.
            still: models whose requests would wait, whether there are any in this batch or not.
            last: of the batch; ``at`` is when it was appended.
        """
        now_open = dict(self.open)
        alerts: list[AlertRecord] = []
        for model, request in waiting.items():
            alert_id = record_id(KIND, model, request.cause)
            if now_open.get(model) != alert_id:
                alerts += _resolved(model, now_open.pop(model, None), request.source, request.appended)
                summary = f"requests to {model} wait, from {request.source} on: {request.reason}. {_REMEDY}"
                facts = {
                    "source": request.source,
                    "at": request.appended,
                    "detail": {"reason": request.reason},
                }
                alerts.append(_alert(model, alert_id, summary, **facts))
                now_open[model] = alert_id
        for model in [name for name in now_open if name not in still and name not in waiting]:
            alerts += _resolved(model, now_open.pop(model), last, at)
        return now_open, alerts


def _resolved(model: str, alert_id: str | None, source: RecordRef, at: int) -> Iterable[AlertRecord]:
    if alert_id is not None:
        summary = f"requests to {model} do not wait any more for what they waited for"
        yield _alert(model, alert_id, summary, state="resolved", source=source, at=at)


def _alert(model: str, alert_id: str, summary: str, **facts: object) -> AlertRecord:
    common = {"service": "scorer", "severity": "severe", "model": model, "summary": summary[:1000]}
    made: AlertRecord = alert_record(KIND, alert_id, **common, **facts)  # type: ignore[arg-type]
    return made
