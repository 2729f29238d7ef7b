"""The rollout service's logic: commands, manifests, performance reports and alerts in; rollout steps and alerts out.

The other control topics are inputs too, for one thing: a record that counts for nothing, there or here, is told people
of, exactly once.

What has been decided is what stands on ``tailrace.rollouts``, and nothing else. A batch is decided only when
every step that this group ever committed has been read back, so that each step follows the one before,
whoever wrote it. What is known besides are the reports of versions on trial: a fold of their topic, which a new owner
makes again from where it is needed, as the commit says, up to the committed offset.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import (
    ALERTS,
    CLOCKS,
    COMMANDS,
    CONTRACTS,
    DRIFT_REPORTS,
    MANIFESTS,
    PERFORMANCE_REPORTS,
    ROLLOUTS,
    TRAINING_RUNS,
)
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.kinds import KIND_OF_TOPIC
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import Unavailable
from tailrace.models.catalog import LEAP, Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.models.rollout_state.fold import (
    EVENT_TIME,
    SEQUENCE,
    Rollouts,
    RolloutState,
    state_after,
)
from tailrace.rollout.alerts import RolloutAlerts
from tailrace.rollout.decide import (
    BY_ITSELF,
    RETRAIN,
    CommandRefused,
    RolloutStep,
    apply_command,
    newly_serving,
    refuse,
    register,
)
from tailrace.rollout.judge import Distrust, Move, move, relies_on_fallbacks, rolled_back, tried
from tailrace.rollout.paired_reports import PairedReports
from tailrace.rollout.refusals import Refusals
from tailrace.rollout.step_fields import canary_fields, experiment_fields, folded_facts
from tailrace.signing.trust import Place
from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, PausedPartition, Record, RecordRef, TopicPartition
from tailrace.telemetry.reasons import one_of

log = logging.getLogger(__name__)


class Opened(Protocol):
    """A package that has passed its checks."""

    @property
    def manifest(self) -> Manifest: ...


Verify = Callable[[Mapping[str, Any]], object]
OpenPackage = Callable[[Mapping[str, Any], ModelContract, int], Opened]
TakenBack = Callable[[RolloutState, ModelContract, Mapping[str, Any]], Move | None]
RefuseCommand = Callable[[Mapping[str, Any], Place], str | None]

_INPUTS = frozenset(KIND_OF_TOPIC)
_JUDGED_ONLY = frozenset({CONTRACTS, ROLLOUTS, CLOCKS, DRIFT_REPORTS, TRAINING_RUNS})
_REPORTS = TopicPartition(PERFORMANCE_REPORTS, 0)
_FIRST_COUNTS = (PERFORMANCE_REPORTS, ALERTS)


@dataclass
class _Draft:
    """A batch's decisions, each on top of the one before.

    ``positions`` are, by input topic, the offset behind what was folded.
    """

    rollouts: Rollouts
    folded: Mapping[str, PairedReports]
    positions: dict[str, int]
    refusals: Refusals
    states: dict[str, RolloutState] = field(default_factory=dict)
    reports: dict[str, PairedReports] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    steps: int = 0

    def state(self, model: str) -> RolloutState:
        return self.states.get(model) or self.rollouts.state(model)

    def reports_of(self, model: str) -> PairedReports:
        """To be changed by this batch, and by nothing else."""
        if model not in self.reports:
            self.reports[model] = self.folded[model].copy() if model in self.folded else PairedReports()
        return self.reports[model]

    def sequence(self, model: str) -> int:
        return self.sequences.get(model, self.rollouts.sequences.get(model, 0))

    def obeyed(self, command_id: str) -> bool:
        return command_id in self.commands or command_id in self.rollouts.commands


class RolloutProcessor:
    """Writes each model's rollout.

    Args:
        records: reads and writes control records.
        verify: checks that a manifest record is of somebody who is trusted; raises PackageRefused.
        open_package: checks a package, given its manifest record, the contract and the highest
            sequence let in so far; raises PackageRefused or Unavailable.
        refuse_command: why a command is not to be obeyed (nobody trusted signed it), or None.
    """

    def __init__(
        self,
        records: ControlRecords,
        verify: Verify,
        open_package: OpenPackage,
        refuse_command: RefuseCommand,
    ) -> None:
        self._records = records
        self._alerts = RolloutAlerts(records)
        self._verify = verify
        self._open = open_package
        self._refuse_command = refuse_command
        self._contracts = Contracts()
        self._catalog = Catalog(verify)
        self._rollouts = Rollouts()
        self._state = ControlState(
            records,
            {
                CONTRACTS: self._contracts.apply,
                MANIFESTS: self._catalog.apply,
                ROLLOUTS: self._rollouts.apply,
            },
        )
        self._copies = Copies()
        self._decided: dict[str, int] = {}
        # How many steps have been committed, as far as this instance knows; and what it waits for.
        self._steps = 0
        self._drafted: tuple[Output, _Draft] | None = None
        self._reports: dict[str, PairedReports] = {}
        self._reports_from: int | None = None
        self._positions: dict[str, int] = {}
        self._refusals = Refusals()
        self._holding: dict[TopicPartition, str] = {}

    # The seam to the loop ---

    def control_topics(self) -> Sequence[str]:
        return self._state.topics

    def topics(self) -> frozenset[str]:
        return _INPUTS

    def control(self, messages: Sequence[Message]) -> None:
        self._state.take(messages)

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> History | None:
        history: dict[TopicPartition, tuple[int, int | None]] = {}
        for partition, committed in partitions.items():
            facts = json.loads(committed.metadata) if committed.metadata else {}
            self._steps = max(self._steps, facts.get("steps", 0))
            self._refusals.restore(facts.get("refused", {}))
            if partition.topic not in _JUDGED_ONLY:
                self._positions[partition.topic] = committed.offset
            if partition == _REPORTS:
                self._reports.clear()
                self._reports_from = facts.get("from")
            if partition.topic in (
                *_FIRST_COUNTS,
                COMMANDS,
            ):  # not to decide on a copy of what was decided on
                history[partition] = (0, committed.offset)
        return history

    def restore(self, messages: Sequence[Message]) -> None:
        for message in messages:
            topic, offset = message.topic(), message.offset()
            if topic == COMMANDS:
                command = self._records.read(message)
                if command is not None and self._refuse_command(command, (topic, offset)) is None:
                    self._decided.setdefault(command["command_id"], offset)
                continue
            copy = self._copies.is_copy(message)
            if (
                topic == PERFORMANCE_REPORTS
                and self._reports_from is not None
                and offset >= self._reports_from
            ):
                report = None if copy else self._records.read(message)
                if report is not None:
                    self._reports.setdefault(report["model"], PairedReports()).apply(report, offset)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._holding.pop(partition, None)

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        draft = _Draft(self._rollouts, self._reports, dict(self._positions), self._refusals.copy())
        holds: dict[TopicPartition, PausedPartition] = {}
        for message in batch:
            partition = TopicPartition(message.topic(), message.partition())
            if partition in holds:
                continue
            why = self._decide(message, draft)
            if why is not None:
                holds[partition] = PausedPartition(message.offset(), why)
        for message in batch:
            self._holding.pop(TopicPartition(message.topic(), message.partition()), None)
        self._holding.update({partition: hold.reason for partition, hold in holds.items()})
        facts: dict[str, Any] = {"steps": max(self._steps, self._rollouts.steps + draft.steps)}
        facts |= {"refused": refused} if (refused := draft.refusals.facts()) else {}
        output = Output(records=draft.records, paused=holds, metadata=json.dumps(facts))
        if any(message.topic() == PERFORMANCE_REPORTS for message in batch):
            needed = min((each.needs() for each in (self._reports | draft.reports).values()), default=None)
            output.metadata_of[_REPORTS] = json.dumps(facts if needed is None else facts | {"from": needed})
        self._drafted = output, draft
        return output

    def committed(self, output: Output) -> None:
        if self._drafted is None or self._drafted[0] is not output:
            return
        draft = self._drafted[1]
        self._steps = max(self._steps, self._rollouts.steps + draft.steps)
        self._positions, self._refusals = draft.positions, draft.refusals
        self._reports |= draft.reports

    def waiting(self) -> str | None:
        return one_of(sorted(set(self._holding.values())))

    # What happens ---

    def _decide(self, message: Message, draft: _Draft) -> str | None:
        """Adds what follows from one message to the draft; or says what has to be waited for first."""
        if self._rollouts.steps < self._steps:
            return f"{self._steps - self._rollouts.steps} committed rollout steps are yet to be read back"
        topic, source = message.topic(), RecordRef.of(message)
        record, refusal = self._records.judge(message)
        if refusal is None and topic in _FIRST_COUNTS and self._copies.is_copy(message):
            refusal = f"it is a copy of {self._copies.note(message)}"
        if refusal is not None:
            counted = draft.refusals.count(topic, message.timestamp()[1])
            draft.records += self._alerts.record_refused(message, refusal, counted)
        if topic in _JUDGED_ONLY:
            return None
        if refusal is not None:
            draft.positions[topic] = message.offset() + 1
            return None
        if record is not None and topic == MANIFESTS:
            why = self._published(record, message, draft)
            if why is not None:
                return why
        draft.positions[topic] = message.offset() + 1
        if record is None or record["model"] is None:
            return None
        if topic == COMMANDS:
            self._command(record, message, draft)
        elif topic == PERFORMANCE_REPORTS:
            draft.reports_of(record["model"]).apply(record, message.offset())
            self._rolled_back(relies_on_fallbacks, record, source, draft)
        elif topic == ALERTS:
            self._rolled_back(rolled_back, record, source, draft)
        self._move(record["model"], source, draft)
        return None

    def _rolled_back(
        self, judge: TakenBack, record: Mapping[str, Any], source: RecordRef, draft: _Draft
    ) -> None:
        applied = self._contracts.current.get(record["model"])
        if applied is not None:
            found = judge(draft.state(record["model"]), applied.contract, record)
            if found is None:
                return
            why = self._untrusted(draft.state(record["model"]), found.step)
            if why is None:
                self._write(found.step, source, BY_ITSELF, None, found.evidence, draft)
            else:
                state = draft.state(record["model"])
                draft.records.append(self._alerts.rollback_refused(record, state, found, why, source))

    def _move(self, model: str, source: RecordRef, draft: _Draft) -> None:
        """Takes the steps that follow by themselves from what is known now."""
        applied = self._contracts.current.get(model)
        if applied is None:
            return
        while True:
            state, reports = draft.state(model), draft.reports.get(model) or self._reports.get(model)
            found = move(state, applied.contract, reports or PairedReports(), self._distrust(model))
            if found is None:
                break
            self._write(found.step, source, BY_ITSELF, None, found.evidence, draft)
        if model in draft.reports:
            draft.reports[model].forget(tried(draft.state(model)))
            now = draft.state(model).experiment
            draft.reports[model].rewards.keep(() if now is None else [arm.version for arm in now.arms])

    def _published(self, record: Mapping[str, Any], message: Message, draft: _Draft) -> str | None:
        source, appended = RecordRef.of(message), message.timestamp()[1]
        model, version = record["model"], record["version"]
        state = draft.state(model)
        if version in state.known:
            return None  # published once more
        applied = self._contracts.current.get(model)
        evidence = {"artifact_digest": record["digest"]}
        try:
            self._verify(record)
            if version > max(state.known, default=0) + LEAP:
                raise PackageRefused("manifest", f"version {version} leaps far beyond all that are known")
        except PackageRefused as refused:  # it counts for nothing: another may be published under its number
            if draft.refusals.count(MANIFESTS, appended).is_told:
                draft.records.append(self._alerts.package_refused(record, refused, source, appended))
            return None
        # What reads the control topics may have come no further than a stranger's manifest of the same version.
        self._catalog.apply(record)
        if applied is None:
            # Whoever is trusted has published under a contract that was applied, so it is on its way.
            return f"version {version} of {model} is published, and its contract has not been read yet"
        try:
            opened = self._opened(record, applied.contract, draft.sequence(model))
            if opened.manifest.sequence > draft.sequence(model) + LEAP:
                raise PackageRefused("anti-rollback", "its sequence leaps far beyond all that were let in")
        except PackageRefused as refused:
            step = refuse(state, version, f"refused ({refused.check}): {refused.reason}"[:1000])
            draft.records.append(self._alerts.package_refused(record, refused, source, appended))
            evidence |= {"check": refused.check}
        else:
            step = register(state, version)
            holdout = opened.manifest.holdout
            evidence |= {
                "checks": "size, signature, digest, anti-rollback, schema, model, golden, latency, memory",
                SEQUENCE: str(opened.manifest.sequence),
                "holdout_rows": str(holdout.rows),
                **{f"holdout_{metric}": repr(value) for metric, value in sorted(holdout.metrics.items())},
            }
            draft.sequences[model] = max(draft.sequence(model), opened.manifest.sequence)
        self._write(step, source, BY_ITSELF, None, evidence, draft)
        return None

    def _opened(self, record: Mapping[str, Any], contract: ModelContract, newer_than: int) -> Opened:
        try:
            return self._open(record, contract, newer_than)
        except (PackageRefused, Unavailable):
            raise
        except Exception as error:  # a package that breaks its own opening is a bad package
            raise PackageRefused("open", f"{type(error).__name__}: {error}") from error

    def _command(self, command: Mapping[str, Any], message: Message, draft: _Draft) -> None:
        if command["command"] == RETRAIN or draft.obeyed(command["command_id"]):
            return
        source = RecordRef.of(message)
        why = self._refuse_command(command, (source.topic, source.offset))
        if why is not None:
            if draft.refusals.count(COMMANDS, message.timestamp()[1]).is_told:
                draft.records.append(self._alerts.command_refused(command, why, source))
            return
        try:
            if self._decided.setdefault(command["command_id"], source.offset) < source.offset:
                return
            applied = self._contracts.current.get(command["model"])
            state = draft.state(command["model"])
            step = apply_command(state, command, None if applied is None else applied.contract)
            why = self._untrusted(state, step)
            if why is not None:
                raise CommandRefused(why)
        except CommandRefused as refused:
            draft.records.append(self._alerts.command_refused(command, str(refused), source))
            return
        evidence = {"command": command["command"], "key_id": command["key_id"] or ""}
        self._write(step, source, command["by"], command["command_id"], evidence, draft)
        draft.commands.add(command["command_id"])

    # Whom to trust ---

    def _distrust(self, model: str) -> Distrust:
        def why(version: int) -> str | None:
            record = self._catalog.record(model, version)
            try:
                if record is not None:
                    self._verify(record)
            except PackageRefused as refused:
                return f"nothing would take version {version} up: {refused.reason}"
            return None

        return why

    def _untrusted(self, before: RolloutState, step: RolloutStep) -> str | None:
        """Why nothing would take up what the step has answer, or shadow, that did not before."""
        distrust = self._distrust(step.state.model)
        found = (distrust(version) for version in sorted(newly_serving(before, step)))
        return next((why for why in found if why is not None), None)

    # Records ---

    def _write(
        self,
        step: RolloutStep,
        source: RecordRef,
        by: str,
        command_id: str | None,
        evidence: dict[str, str],
        draft: _Draft,
    ) -> None:
        state, model = step.state, step.state.model
        before, applied = draft.state(model), self._contracts.current.get(model)
        reports = draft.reports.get(model) or self._reports.get(model)
        if reports is not None and reports.event_time is not None:
            evidence = evidence | {EVENT_TIME: str(reports.event_time)}
        record = {
            "model": model,
            "revision": state.revision,
            "follows": before.revision,
            "step": step.name,
            "version": step.version,
            "champion": state.champion,
            "previous": state.previous,
            "shadow": list(state.shadow),
            "candidates": list(state.candidates),
            "rejected": list(state.rejected),
            "retired": list(state.retired),
            "rolled_back": list(state.rolled_back),
            "frozen": state.frozen,
            "off": state.off,
            **canary_fields(state.canary),
            **experiment_fields(state.experiment),
            "reason": step.reason,
            "by": by,
            "command_id": command_id,
            "source": source._asdict(),
            "contract_digest": applied.digest if applied else None,
            "evidence": evidence | folded_facts(draft.positions, source),
        }
        draft.records.append(self._records.record("Rollout", record))
        after = draft.states[model] = state_after(before, record)
        draft.steps += 1
        draft.records += self._alerts.of_step(before, after, record)
