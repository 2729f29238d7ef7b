"""The rollout's processor: commands, manifests, performance reports and alerts in; rollout steps and alerts out.

The other control topics are inputs too, for one thing: of a record that counts for nothing, there or here, people
get one alert.

What has been decided is what stands on ``tailrace.rollouts``, and nothing else. A batch is decided only when
every step that this group ever committed has been read back, so that each step follows the one before,
whoever wrote it. What is known besides are the reports of versions on trial: a fold of their topic, which a new owner
makes again from where it is needed, as the commit says, up to the committed offset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

from tailrace.alerts.alert import source_record
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
from tailrace.contracts.records.record_types import CommandRecord, ModelManifestRecord, RolloutRecord
from tailrace.contracts.state.checks import EVENT_TIME
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.kinds import KIND_OF_TOPIC
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.catalog import Verify
from tailrace.models.errors import PackageRefused
from tailrace.models.rollout_state.fold import Rollouts, RolloutState, state_after
from tailrace.rollout.alerts import RolloutAlerts
from tailrace.rollout.decide import (
    BY_ITSELF,
    RETRAIN,
    CommandRefused,
    RolloutStep,
    apply_command,
    register,
    reject,
)
from tailrace.rollout.draft import BatchDraft
from tailrace.rollout.held_contracts import HeldContracts, Released
from tailrace.rollout.judge import Move, move, relies_on_fallbacks, rolled_back, tried
from tailrace.rollout.package_trust import OpenPackage, PackageTrust, evidence_of
from tailrace.rollout.paired_reports import PairedReports
from tailrace.rollout.refusals import Refusals
from tailrace.rollout.step_fields import folded_facts, step_fields
from tailrace.signing.trust import Place
from tailrace.streaming.backends.abstract import Committed, History
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, PausedPartition, RecordRef, TopicPartition
from tailrace.telemetry.reasons import one_of

RollbackRule = Callable[[RolloutState, ModelContract, Any], Move | None]
RefuseCommand = Callable[[Mapping[str, Any], Place], str | None]

_INPUTS = frozenset(KIND_OF_TOPIC)
_JUDGED_ONLY = frozenset({CONTRACTS, ROLLOUTS, CLOCKS, DRIFT_REPORTS, TRAINING_RUNS})
_REPORTS = TopicPartition(PERFORMANCE_REPORTS, 0)
_FIRST_COUNTS = (PERFORMANCE_REPORTS, ALERTS)
_NEVER_TWICE = (*_FIRST_COUNTS, COMMANDS)
"""A copy of what was decided on decides nothing: these are read again from their start."""


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
        self._trust = PackageTrust(verify, open_package)
        self._refuse_command = refuse_command
        self._contracts = Contracts()
        self._rollouts = Rollouts()
        self._state = ControlState(records, self._contracts, self._trust.catalog, self._rollouts)
        self._held = HeldContracts(records, self._contracts, self._trust.catalog, self._rollouts)
        self._released: set[Released] = set()
        self._copies = Copies()
        self._decided: dict[str, int] = {}
        # How many steps have been committed, as far as this instance knows; and what it waits for.
        self._steps = 0
        self._reports: dict[str, PairedReports] = {}
        self._reports_from: int | None = None
        self._positions: dict[str, int] = {}
        self._refusals = Refusals()
        self._waiting_for: dict[TopicPartition, str] = {}

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
            if partition.topic in _NEVER_TWICE:
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
            is_copy = self._copies.is_copy(message)
            needed_from = None if topic != PERFORMANCE_REPORTS else self._reports_from
            if is_copy or needed_from is None or offset < needed_from:
                continue
            report = self._records.read(message)
            if report is not None:
                self._reports.setdefault(report["model"], PairedReports()).apply(report, offset)

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._waiting_for.pop(partition, None)

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        draft = BatchDraft(self._rollouts, self._reports, dict(self._positions), self._refusals.copy())
        paused: dict[TopicPartition, PausedPartition] = {}
        for message in batch:
            partition = TopicPartition(message.topic(), message.partition())
            if partition in paused:
                continue
            self._waiting_for.pop(partition, None)
            why = self._decide(message, draft)
            if why is not None:
                paused[partition] = PausedPartition(message.offset(), why)
                self._waiting_for[partition] = why
        if not paused:
            self._release(batch, draft)
        facts: dict[str, Any] = {"steps": max(self._steps, self._rollouts.steps + draft.steps)}
        facts |= {"refused": refused} if (refused := draft.refusals.facts()) else {}
        output = Output(records=draft.records, paused=paused, metadata=json.dumps(facts))
        if any(message.topic() == PERFORMANCE_REPORTS for message in batch):
            reports = (self._reports | draft.reports).values()
            needed = min((of_model.needs() for of_model in reports), default=None)
            output.metadata_of[_REPORTS] = json.dumps(facts if needed is None else facts | {"from": needed})
        output.on_committed = partial(self._apply, draft)
        return output

    def _apply(self, draft: BatchDraft) -> None:
        self._steps = max(self._steps, self._rollouts.steps + draft.steps)
        self._positions, self._refusals = draft.positions, draft.refusals
        self._reports |= draft.reports
        self._released |= draft.released

    def waiting(self) -> str | None:
        return one_of(sorted(set(self._waiting_for.values())))

    def _release(self, batch: Sequence[Message], draft: BatchDraft) -> None:
        """Brings contracts into force that were held, and that what answers now fits."""
        now_ms = max((message.timestamp()[1] for message in batch), default=0)
        for held in self._held.fitting(self._released):
            record = self._held.release(held, now_ms)
            if record is not None:
                draft.records.append(record)
                draft.released.add((held.model, held.revision, held.digest))

    # What happens ---

    def _decide(self, message: Message, draft: BatchDraft) -> str | None:
        """Adds what follows from one message to the draft; or says what has to be waited for first."""
        if self._rollouts.steps < self._steps:
            return f"{self._steps - self._rollouts.steps} committed rollout steps are yet to be read back"
        topic, source = message.topic(), RecordRef.of(message)
        record: Any
        record, refusal = self._records.judge(message)
        if refusal is None and topic in _FIRST_COUNTS and self._copies.is_copy(message):
            refusal = f"it is a copy of {self._copies.note(message)}"
        if refusal is not None:
            counted = draft.refusals.count(topic, message.timestamp()[1])
            draft.records += self._alerts.record_refused(message, refusal, counted)
        if topic == CONTRACTS and record is not None and self._contracts.position <= source.offset:
            return f"the contract at {source} is yet to be read back"
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
        self, judge: RollbackRule, record: Mapping[str, Any], source: RecordRef, draft: BatchDraft
    ) -> None:
        model = record["model"]
        applied = self._contracts.current.get(model)
        if applied is None:
            return
        state = draft.state(model)
        way_back = judge(state, applied.contract, record)
        if way_back is None:
            return
        why = self._refused(state, way_back.step)
        if why is None:
            self._write(way_back, source, draft)
        else:
            draft.records.append(self._alerts.rollback_refused(record, state, way_back, why, source))

    def _refused(self, state: RolloutState, step: RolloutStep) -> str | None:
        """Why nothing would take up what the step has answer, or why that could not answer."""
        model = step.state.model
        applied = (self._contracts.current.get(model), self._contracts.held.get(model))
        contracts = [each.contract for each in applied if each is not None]
        return self._trust.untrusted(state, step) or self._trust.unfit(state, step, contracts)

    def _move(self, model: str, source: RecordRef, draft: BatchDraft) -> None:
        """Takes the steps that follow by themselves from what is known now."""
        applied = self._contracts.current.get(model)
        if applied is None:
            return
        while True:
            reports = draft.reports_so_far(model) or PairedReports()
            following = move(draft.state(model), applied.contract, reports, self._trust.distrust(model))
            if following is None:
                break
            self._write(following, source, draft)
        if model in draft.reports:
            draft.reports[model].forget(tried(draft.state(model)))
            now = draft.state(model).experiment
            draft.reports[model].rewards.keep(() if now is None else [arm.version for arm in now.arms])

    def _published(self, record: ModelManifestRecord, message: Message, draft: BatchDraft) -> str | None:
        model, version = record["model"], record["version"]
        known = draft.state(model).known
        if version in known:
            return None  # published once more
        try:
            self._trust.take_in(record, known)
        except PackageRefused as refused:  # it counts for nothing: another may be published under its number
            if draft.refusals.count(MANIFESTS, message.timestamp()[1]).has_alert:
                draft.records.append(self._alerts.package_refused(record, refused, message))
            return None
        applied = self._contracts.current.get(model)
        if applied is None:
            # Whoever is trusted has published under a contract that was applied, so it is on its way.
            return f"version {version} of {model} is published, and its contract has not been read yet"
        self._let_in(record, applied.contract, message, draft)
        return None

    def _let_in(
        self, record: ModelManifestRecord, contract: ModelContract, message: Message, draft: BatchDraft
    ) -> None:
        """Registers a version, or refuses it for good."""
        model, version, sequence = record["model"], record["version"], draft.sequence(record["model"])
        evidence = {"artifact_digest": record["digest"]}
        try:
            manifest = self._trust.open(record, contract, sequence)
        except PackageRefused as refused:
            step = reject(draft.state(model), version, f"refused ({refused.check}): {refused.reason}"[:1000])
            draft.records.append(self._alerts.package_refused(record, refused, message))
            evidence |= {"check": refused.check}
        else:
            step = register(draft.state(model), version)
            evidence |= evidence_of(manifest)
            draft.sequences[model] = max(sequence, manifest.sequence)
        self._write(Move(step, evidence), RecordRef.of(message), draft)

    def _command(self, command: CommandRecord, message: Message, draft: BatchDraft) -> None:
        if command["command"] == RETRAIN or draft.is_applied(command["command_id"]):
            return
        source = RecordRef.of(message)
        why = self._refuse_command(command, (source.topic, source.offset))
        if why is not None:
            if draft.refusals.count(COMMANDS, message.timestamp()[1]).has_alert:
                draft.records.append(self._alerts.command_refused(command, why, source))
            return
        try:
            if self._decided.setdefault(command["command_id"], source.offset) < source.offset:
                return
            applied = self._contracts.current.get(command["model"])
            state = draft.state(command["model"])
            step = apply_command(state, command, None if applied is None else applied.contract)
            why = self._refused(state, step)
            if why is not None:
                raise CommandRefused(why)
        except CommandRefused as refused:
            draft.records.append(self._alerts.command_refused(command, str(refused), source))
            return
        evidence = {"command": command["command"], "key_id": command["key_id"] or ""}
        self._write(Move(step, evidence), source, draft, command["by"], command["command_id"])
        draft.commands.add(command["command_id"])

    def _write(
        self,
        decision: Move,
        source: RecordRef,
        draft: BatchDraft,
        by: str = BY_ITSELF,
        command_id: str | None = None,
    ) -> None:
        step, evidence = decision
        model = step.state.model
        before, applied = draft.state(model), self._contracts.current.get(model)
        reports = draft.reports_so_far(model)
        if reports is not None and reports.event_time is not None:
            evidence = evidence | {EVENT_TIME: str(reports.event_time)}
        cause = {
            "by": by,
            "command_id": command_id,
            "source": source_record(source),
            "contract_digest": applied.digest if applied else None,
            "evidence": evidence | folded_facts(draft.positions, source),
        }
        record = cast(RolloutRecord, step_fields(before, step) | cause)
        draft.records.append(self._records.record("Rollout", record))
        after = draft.states[model] = state_after(before, record)
        draft.steps += 1
        draft.records += self._alerts.of_step(before, after, record)
