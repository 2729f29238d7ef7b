"""What the rollout service tells people: of steps, and of what was refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tailrace.alerts.alert import alert_record
from tailrace.contracts.records.record_types import CommandRecord, ModelManifestRecord, RolloutRecord
from tailrace.contracts.state.checks import EVENT_TIME
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.errors import PackageRefused
from tailrace.models.rollout_state.fold import RolloutState
from tailrace.rollout.judge import Move
from tailrace.rollout.refusals import EACH, RefusalCount
from tailrace.streaming.ids import record_id
from tailrace.streaming.records import Message, Record, RecordRef


class RolloutAlerts:
    """Writes alerts; the same thing said twice has the same alert id."""

    def __init__(self, records: ControlRecords) -> None:
        self._records = records

    def of_step(self, before: RolloutState, after: RolloutState, step: RolloutRecord) -> Iterator[Record]:
        """Alerts of what a person should do, or know, about a step."""
        model, name = after.model, step["step"]
        facts = {
            "severity": "warning",
            "model": model,
            "detail": {"revision": str(after.revision)},
            "source": RecordRef(**step["source"]),
            "at": int(step["evidence"].get(EVENT_TIME, 0)),
        }
        for version in sorted(before.waiting ^ after.waiting):
            waits = version in after.waiting
            what = f"waits for `tailrace promote {model} {version}`" if waits else f"waits no more ({name})"
            summary = f"version {version} of {model} {what}: {step['reason']}"
            alert = {"kind": "promotion-waits", "version": version, "summary": summary, **facts}
            state = "raised" if waits else "resolved"
            yield self._alert(f"promotion-waits|{model}|{version}", state=state, **alert)
        gone = _rolled_back(before, after, name, step["version"])
        if gone is not None and step["command_id"] is None:
            summary = f"version {after.champion} of {model} answers again, not {gone}: {step['reason']}"
            alert = {"kind": "rolled-back", "version": gone, "summary": summary, **facts}
            yield self._alert(f"rolled-back|{model}|{after.revision}", **alert)

    def package_refused(
        self, record: ModelManifestRecord, refused: PackageRefused, message: Message
    ) -> Record:
        source, appended = RecordRef.of(message), message.timestamp()[1]
        model, version = record["model"], record["version"]
        return self._alert(
            f"package-refused|{source}",
            kind="package-refused",
            severity="severe",
            model=model,
            version=version,
            summary=f"version {version} of {model} was refused ({refused.check}): {refused.reason}. What serves goes "
            "on serving; publish a version that passes",
            detail={"check": refused.check, "artifact_digest": record["digest"]},
            source=source,
            at=min(max(record["published_at"], 0), appended),  # nobody has signed when it was published
        )

    def record_refused(self, message: Message, why: str, counted: RefusalCount) -> Iterator[Record]:
        """``model`` is None: what counts for nothing is about nobody, and no version is to be taken back for it.

        Args:
            counted: how many of its topic were refused within the hour, this one included.
        """
        if not counted.has_alert:
            return
        source = RecordRef.of(message)
        alert = alert_record(
            "record-refused",
            record_id("record-refused", source),
            service="rollout",
            severity="severe",
            summary=f"{source} counts for nothing: {why}"[:1000]
            + ". Somebody who should not can write to the topic, "
            "or a signer has another key than this home trusts: `tailrace keys list`" + _of_how_many(counted),
            at=message.timestamp()[1],
            model=None,
            detail={"reason": why[:1000], "refused": str(counted.records)},
            source=source,
        )
        yield self._records.record("Alert", alert, key=source.topic)

    def rollback_refused(
        self, cause: Mapping[str, Any], state: RolloutState, way_back: Move, why: str, source: RecordRef
    ) -> Record:
        return self._alert(
            f"rollback-refused|{state.model}|{state.revision}",
            kind="rollback-refused",
            severity="warning",
            model=state.model,
            version=way_back.step.version,
            summary=f"version {state.champion} of {state.model} goes on, though it should be taken back: "
            f"{way_back.step.reason}. {why}; or `tailrace promote` another version, or `tailrace off {state.model}`",
            detail={"champion": str(state.champion), "revision": str(state.revision), **way_back.evidence},
            source=source,
            at=cause["at"] if "at" in cause else cause["judged_at"],
        )

    def command_refused(self, command: CommandRecord, why: str, source: RecordRef) -> Record:
        version = "" if command["version"] is None else f" {command['version']}"
        return self._alert(
            f"command-refused|{command['command_id']}",
            kind="command-refused",
            severity="warning",
            model=command["model"],
            version=command["version"],
            summary=f"{command['command']} {command['model']}{version} was refused: {why}",
            detail={"command_id": command["command_id"], "command": command["command"], "by": command["by"]},
            source=source,
            at=command["issued_at"],
        )

    def _alert(self, identity: str, **facts: Any) -> Record:
        alert = alert_record(facts.pop("kind"), record_id(identity), service="rollout", **facts)
        return self._records.record("Alert", alert)


def _of_how_many(counted: RefusalCount) -> str:
    if counted.records < EACH:
        return ""
    following = 1 << counted.records.bit_length()
    return (
        f". It is number {counted.records} of its topic within the hour; number {following} is told of next"
    )


def _rolled_back(before: RolloutState, after: RolloutState, step: str, about: int | None) -> int | None:
    """The version that a step took the answers from."""
    if step == "rollback":
        return before.champion
    if step != "reject":
        return None
    if before.canary and not after.canary:
        return before.canary.version
    return about if before.experiment and not after.experiment else None
