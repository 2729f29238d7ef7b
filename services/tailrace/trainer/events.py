"""Records of the control topics as what happened, and what is to be done as records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, cast

from tailrace.alerts.alert import alert_record
from tailrace.contracts.instants import read_time
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import AlertRecord, TrainingRunRecord
from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.signing.trust import Place
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import Message
from tailrace.trainer.decide import HoldRun, Refuse, ReleaseRun
from tailrace.trainer.happened import (
    Alerted,
    Applied,
    Asked,
    CommandAnswered,
    DriftJudged,
    Event,
    HeldBack,
    RunStep,
    Stepped,
    WindowJudged,
)
from tailrace.trainer.run import Kind, OpenTrigger, Run

TOPICS = (
    lanes.CONTRACTS,
    lanes.ROLLOUTS,
    lanes.COMMANDS,
    lanes.ALERTS,
    lanes.DRIFT_REPORTS,
    lanes.PERFORMANCE_REPORTS,
    lanes.TRAINING_RUNS,
)
"""What the trainer reads. All have one partition."""

_FIRST_COUNTS = frozenset({lanes.ALERTS, lanes.DRIFT_REPORTS, lanes.PERFORMANCE_REPORTS, lanes.TRAINING_RUNS})
RefuseCommand = Callable[[Mapping[str, Any], Place], str | None]

COMMAND = "retrain"
HELD = "retraining-held"
_KINDS: Mapping[str, Kind] = {"drift": "drift", "quality-drop": "quality"}


class Events:
    """What the records say happened.

    Args:
        records: reads the control records.
        refuse_command: why a command is not to be obeyed (nobody trusted signed it), or None.
    """

    def __init__(self, records: ControlRecords, refuse_command: RefuseCommand) -> None:
        self._refuse_command = refuse_command
        self._copies = Copies()
        self._contracts = Contracts()
        self._state = ControlState(records, self._contracts, Rollouts())

    def contract(self, digest: str) -> AppliedContract | None:
        """The contract of that digest, if it was ever in force."""
        return self._contracts.by_digest.get(digest)

    def of(self, message: Message) -> Event | None:
        """None where the record is nothing to the trainer, or counts for nothing.

        Raises:
            Unavailable: the registry is away.
        """
        (taken,) = self._state.take([message])
        record: Any = taken.record
        topic = taken.topic
        if record is None or (topic in _FIRST_COUNTS and self._copies.is_copy(message)):
            return None
        if topic == lanes.CONTRACTS:
            return Applied(self._contracts.current[record["model"]]) if taken.came else None
        if topic == lanes.ROLLOUTS:
            names = ("model", "step", "version", "champion", "frozen")
            return Stepped(*(record[name] for name in names)) if taken.came else None
        if topic == lanes.COMMANDS:
            if record["command"] != COMMAND:
                return None
            refusal = self._refuse_command(record, (topic, message.offset()))
            return Asked(record["model"], record["command_id"], record["reason"], refusal)
        if topic == lanes.TRAINING_RUNS:
            return RunStep(run_of(record))
        return _report(topic, record)


def _report(topic: str, record: Any) -> Event | None:
    if topic == lanes.ALERTS:
        return _alert(record)
    if topic == lanes.DRIFT_REPORTS:
        return DriftJudged(record["model"], record["window_end"]) if record["role"] != "shadow" else None
    if record["role"] == "shadow" or record["segment"] or record["against"] is not None:
        return None
    return WindowJudged(**{field.name: record[field.name] for field in fields(WindowJudged)})


def _alert(record: AlertRecord) -> Event | None:
    held_back = record["detail"].get("run_id") if record["kind"] == HELD else None
    if held_back is not None and record["model"] is not None:
        return HeldBack(record["model"], held_back, record["state"] == "resolved")
    kind = _KINDS.get(record["kind"])
    if kind is None or record["model"] is None:
        command_id = record["detail"].get("command_id") if record["kind"] == "command-refused" else None
        return None if command_id is None else CommandAnswered(command_id)
    since = record["detail"].get("since") or record["detail"].get("window_start")
    trigger = OpenTrigger(
        kind,
        record["alert_id"],
        record["at"],
        record["at"] if since is None else _milliseconds(since),
        record["summary"],
        record["version"],
    )
    return Alerted(record["model"], trigger, resolved=record["state"] == "resolved")


def _milliseconds(text: str) -> int:
    if text.lstrip("-").isdigit():
        return int(text)
    return read_time(text)


def run_of(record: TrainingRunRecord) -> Run:
    """The run that a record of ``tailrace.training-runs`` is about, as it says."""
    return Run(
        run_id=record["run_id"],
        model=record["model"],
        cut=record["known_before"],
        triggers=tuple(
            OpenTrigger(cast(Kind, t["kind"]), t["id"], t["at"], record["changed_at"], t["reason"])
            for t in record["triggers"]
        ),
        changed_at=record["changed_at"],
        window_start=record["window_start"],
        window_end=record["window_end"],
        labels=record["labels"],
        contract_digest=record["contract_digest"],
        champion=record["champion"],
        offsets=tuple((o["partition"], o["offset"]) for o in record["offsets"]),
        state=record["state"],
        version=record["version"],
        evaluations=tuple(record["evaluations"]),
    )


def record_of(run: Run, **more: Any) -> TrainingRunRecord:
    """A record of ``tailrace.training-runs`` that says the run's plan, and ``more``."""
    record: TrainingRunRecord = {
        "run_id": run.run_id,
        "model": run.model,
        "state": run.state,
        "at": run.cut,
        "trigger": run.triggers[0].kind,
        "triggers": [{"kind": t.kind, "id": t.id, "at": t.at, "reason": t.reason} for t in run.triggers],
        "changed_at": run.changed_at,
        "window_start": run.window_start,
        "window_end": run.window_end,
        "known_before": run.cut,
        "offsets": [{"partition": partition, "offset": offset} for partition, offset in run.offsets],
        "labels": run.labels,
        "seed": run.seed,
        "contract_digest": run.contract_digest,
        "champion": run.champion,
        "templates": [],
        "version": run.version,
        "evaluations": list(run.evaluations),
    }
    return cast(TrainingRunRecord, {**record, **more})


def failure_of(run: Run, reason: str, since: Run, *, resolved: bool = False) -> AlertRecord:
    """The alert about runs that fail one after the other, ``since`` the first of them; or that it is over."""
    return alert_record(
        "training-failed",
        record_id("training-failed", since.run_id),
        service="trainer",
        severity="warning",
        summary=f"training {run.model} works again"
        if resolved
        else f"training {run.model} failed: {reason}; correct that, then `tailrace retrain {run.model}`",
        at=run.cut,
        model=run.model,
        state="resolved" if resolved else "raised",
        detail={"run_id": run.run_id, "reason": reason},
    )


def refusal_of(refuse: Refuse, at: int) -> AlertRecord:
    """The alert that answers a command that is refused."""
    asked = refuse.asked
    return alert_record(
        "command-refused",
        record_id("command-refused", asked.command_id),
        service="trainer",
        severity="warning",
        summary=f"{COMMAND} {asked.model} was refused: {refuse.why}",
        at=at,
        model=asked.model,
        detail={"command_id": asked.command_id, "command": COMMAND},
    )


def held_of(action: HoldRun | ReleaseRun, at: int) -> AlertRecord:
    """The alert that a run is held back, or that it is not any more."""
    model, run = action.model, action.run_id
    is_held = isinstance(action, HoldRun)
    summary = f"the training run of {model} that was held back is planned now, or is not due any more"
    if isinstance(action, HoldRun):
        summary = (
            f"{model} is frozen, and a training run is due ({action.reason}): `tailrace unfreeze {model}` lets it go "
            f"on, `tailrace retrain {model}` trains now"
        )
    return alert_record(
        HELD,
        record_id(HELD, model, run),
        service="trainer",
        severity="warning",
        state="raised" if is_held else "resolved",
        summary=summary[:1000],
        at=at,
        model=model,
        detail={"run_id": run},
    )
