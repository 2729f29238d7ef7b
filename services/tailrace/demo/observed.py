"""What the demo has seen of the loop so far: folds of what is on the topics. Pure.

One thread writes, another reads: what is read is a copy (of a dict, taken in one step) or only ever grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tailrace.contracts.records.record_types import (
    AlertRecord,
    DriftReportRecord,
    PerformanceReportRecord,
    RolloutRecord,
    TrainingRunRecord,
)
from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.streaming.records import RecordRef


@dataclass(frozen=True, slots=True)
class ObservedAnswer:
    """One prediction as seen on its topic. Times are the broker's append times in milliseconds."""

    source: RecordRef
    at: RecordRef
    request_ms: int
    prediction_ms: int
    event_ms: int
    version: int
    action: str
    request_id: str

    @property
    def wait_ms(self) -> int:
        """From the request's append to the prediction's: what an application waits, less its own network."""
        return self.prediction_ms - self.request_ms


@dataclass
class Seen:
    """One model's lane and what the control topics say of it. Written by one thread only.

    Attributes:
        event_ms: how far event time has come in the predictions.
        alerts: by id, as they were raised; ``resolved`` are the ids of those that are over.
        runs: training runs by id, the latest step of each; ``run_steps`` all of them in order.
        steps: rollout steps that came into force.
    """

    model: str
    requests: int = 0
    dead_letters: int = 0
    labels: int = 0
    outcomes: int = 0
    twice: int = 0
    event_ms: int = 0
    answers: list[ObservedAnswer] = field(default_factory=list)
    actions: Counter[str] = field(default_factory=Counter)
    alerts: dict[str, AlertRecord] = field(default_factory=dict)
    resolved: set[str] = field(default_factory=set)
    drift: dict[str, DriftReportRecord] = field(default_factory=dict)
    performance: dict[str, PerformanceReportRecord] = field(default_factory=dict)
    runs: dict[str, TrainingRunRecord] = field(default_factory=dict)
    run_steps: list[TrainingRunRecord] = field(default_factory=list)
    steps: list[RolloutRecord] = field(default_factory=list)
    _rollouts: Rollouts = field(default_factory=Rollouts)
    _appended: dict[RecordRef, int] = field(default_factory=dict)
    _early: dict[RecordRef, ObservedAnswer] = field(default_factory=dict)
    _answered: set[RecordRef] = field(default_factory=set)

    @property
    def rollout(self) -> RolloutState:
        return self._rollouts.state(self.model)

    def counts(self) -> dict[str, int]:
        """What there was of each; ``lost`` are the requests of which nothing came."""
        return {
            "requests": self.requests,
            "predictions": len(self.answers),
            "labels": self.labels,
            "outcomes": self.outcomes,
            "dead_letters": self.dead_letters,
            "lost": self.requests - len(self.answers) - self.dead_letters,
            "twice": self.twice,
        }

    def progress(self) -> tuple[int, ...]:
        """How much of everything there was; where none of it grows, nothing happens."""
        records = (self.requests, len(self.answers), self.dead_letters, self.labels, self.outcomes)
        decisions = (self.alerts, self.resolved, self.drift, self.performance, self.run_steps, self.steps)
        return (*records, *map(len, decisions))

    def versions(self) -> dict[str, int]:
        answers = Counter(answer.version for answer in self.answers)
        return {f"v{version}": answers[version] for version in sorted(answers)}

    def request(self, at: RecordRef, appended_ms: int) -> None:
        self.requests += 1
        self._appended[at] = appended_ms
        if (answer := self._early.pop(at, None)) is not None:
            self._count(answer)

    def prediction(self, at: RecordRef, appended_ms: int, event: Mapping[str, Any]) -> None:
        source = RecordRef(*(event["source"][name] for name in ("topic", "partition", "offset")))
        self.twice += source in self._answered
        self._answered.add(source)
        answer = ObservedAnswer(
            source=source,
            at=at,
            request_ms=0,
            prediction_ms=appended_ms,
            event_ms=event["event_time"],
            version=event["version"],
            action=event["action"],
            request_id=event["request_id"],
        )
        if source in self._appended:
            self._count(answer)
        else:  # the two topics are fetched independently
            self._early[source] = answer

    def _count(self, answer: ObservedAnswer) -> None:
        self.answers.append(replace(answer, request_ms=self._appended.pop(answer.source)))
        self.actions[answer.action] += 1
        self.event_ms = max(self.event_ms, answer.event_ms)

    def control(self, name: str, record: Any, offset: int) -> None:
        """Takes a record of a control topic by the name of its schema; those of other models change nothing."""
        if record["model"] != self.model:
            return
        if name == "Alert":
            if record["state"] == "resolved":
                self.resolved.add(record["alert_id"])
            else:
                self.alerts.setdefault(record["alert_id"], record)
        elif name == "DriftReport":
            self.drift[record["report_id"]] = record
        elif name == "PerformanceReport":
            self.performance[record["report_id"]] = record
        elif name == "TrainingRun":
            self.runs[record["run_id"]] = record
            self.run_steps.append(record)
        elif name == "Rollout" and self._rollouts.apply(record, offset):
            self.steps.append(record)

    def alerts_of(self, kind: str) -> list[AlertRecord]:
        """Alerts of this kind, in the order in which they were raised."""
        return [alert for alert in list(self.alerts.values()) if alert["kind"] == kind]

    def open_alerts(self) -> list[AlertRecord]:
        return [alert for alert in list(self.alerts.values()) if alert["alert_id"] not in self.resolved]

    def training(self) -> list[TrainingRunRecord]:
        """The latest step of each run that is not at its end."""
        return [r for r in list(self.runs.values()) if r["state"] in ("planned", "training", "trained")]

    def last_window(self) -> DriftReportRecord | None:
        """The drift report of the latest window, of the version that answered, over all rows."""
        of_all = [r for r in list(self.drift.values()) if r["role"] == "champion" and not r["segment"]]
        return max(of_all, key=lambda r: int(r["window_start"]), default=None)

    def judged(self) -> list[PerformanceReportRecord]:
        return list(self.performance.values())
