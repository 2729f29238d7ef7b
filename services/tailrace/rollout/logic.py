"""The rollout service's logic: commands and manifests in; rollout steps and alerts out.

What has been decided is what stands on ``tailrace.rollouts``, and nothing else. A batch is decided only when
every step that this group ever committed has been read back, so that each step follows the one before,
whoever wrote it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tailrace.contracts.fold import Contracts
from tailrace.contracts.lanes import ALERTS, COMMANDS, CONTRACTS, MANIFESTS, ROLLOUTS
from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.codec import ControlCodec
from tailrace.kit.errors import BadRecord, Retry
from tailrace.kit.log import Committed
from tailrace.kit.logic import Clock, Output
from tailrace.kit.messages import Hold, Message, Record, Source, TopicPartition
from tailrace.kit.registry import Registry
from tailrace.models.errors import PackageRefused
from tailrace.models.load import LoadedModel
from tailrace.models.rollout_fold import SEQUENCE, Rollouts, RolloutState
from tailrace.rollout.decide import BY_ITSELF, CommandRefused, Step, admit, obey, refuse

log = logging.getLogger(__name__)

Verify = Callable[[Mapping[str, Any]], object]
OpenPackage = Callable[[Mapping[str, Any], ModelContract, int], LoadedModel]
RefuseCommand = Callable[[Mapping[str, Any]], str | None]

_CONTROL = {CONTRACTS: "Contract", ROLLOUTS: "Rollout"}


@dataclass
class _Draft:
    """A batch's decisions, each on top of the one before."""

    rollouts: Rollouts
    states: dict[str, RolloutState] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)
    steps: int = 0

    def state(self, model: str) -> RolloutState:
        return self.states.get(model) or self.rollouts.state(model)

    def sequence(self, model: str) -> int:
        return self.sequences.get(model, self.rollouts.sequences.get(model, 0))

    def obeyed(self, command_id: str) -> bool:
        return command_id in self.commands or command_id in self.rollouts.commands


class RolloutLogic:
    """Writes each model's rollout.

    Args:
        registry: where schemas are.
        verify: checks that a manifest record is of somebody who is trusted; raises PackageRefused.
        open_package: checks a package and loads it, given its manifest record, the contract and the highest
            sequence let in so far; raises PackageRefused or Retry.
        refuse_command: why a command is not to be obeyed (nobody trusted signed it), or None.
    """

    def __init__(
        self, registry: Registry, verify: Verify, open_package: OpenPackage, refuse_command: RefuseCommand
    ) -> None:
        self._codec = ControlCodec(registry)
        self._verify = verify
        self._open = open_package
        self._refuse_command = refuse_command
        self._contracts = Contracts()
        self._rollouts = Rollouts()
        # How many steps have been committed, as far as this instance knows; and what it waits for.
        self._steps = 0
        self._drafted: tuple[Output, int] | None = None
        self._holding: dict[TopicPartition, str] = {}

    # The seam to the loop ---

    def control_topics(self) -> Sequence[str]:
        return (CONTRACTS, ROLLOUTS)

    def topics(self) -> frozenset[str]:
        return frozenset({COMMANDS, MANIFESTS})

    def control(self, messages: Sequence[Message]) -> None:
        # Decoded first, all of them: the loop offers the same messages again where the registry is away.
        decoded = [(m, self._decoded(_CONTROL[m.topic()], m)) for m in messages]
        for message, record in decoded:
            if record is None:
                continue
            if message.topic() == CONTRACTS:
                self._contracts.apply(record)
            else:
                self._rollouts.apply(record, message.offset())

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None:
        for committed in partitions.values():
            if committed.metadata:
                self._steps = max(self._steps, int(json.loads(committed.metadata)["steps"]))

    def restore(self, messages: Sequence[Message]) -> None:
        """Nothing is asked for."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._holding.pop(partition, None)

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        draft = _Draft(self._rollouts)
        holds: dict[TopicPartition, Hold] = {}
        for message in batch:
            partition = TopicPartition(message.topic(), message.partition())
            if partition in holds:
                continue
            why = self._decide(message, draft)
            if why is not None:
                holds[partition] = Hold(message.offset(), why)
        for message in batch:
            self._holding.pop(TopicPartition(message.topic(), message.partition()), None)
        self._holding.update({partition: hold.reason for partition, hold in holds.items()})
        steps = max(self._steps, self._rollouts.steps + draft.steps)
        output = Output(records=draft.records, holds=holds, metadata=json.dumps({"steps": steps}))
        self._drafted = output, steps
        return output

    def committed(self, output: Output) -> None:
        if self._drafted is not None and self._drafted[0] is output:
            self._steps = self._drafted[1]

    def waiting(self) -> str | None:
        return "; ".join(sorted(set(self._holding.values()))) or None

    # What happens ---

    def _decide(self, message: Message, draft: _Draft) -> str | None:
        """Adds what follows from one message to the draft; or says what has to be waited for first."""
        if self._rollouts.steps < self._steps:
            return f"{self._steps - self._rollouts.steps} committed rollout steps are yet to be read back"
        if message.value() is None:
            return None  # a version's manifest was taken away
        name = "Command" if message.topic() == COMMANDS else "ModelManifest"
        record = self._decoded(name, message)
        if record is None:
            return None
        if name == "Command":
            self._command(record, Source.of(message), draft)
            return None
        return self._published(record, Source.of(message), draft)

    def _published(self, record: Mapping[str, Any], source: Source, draft: _Draft) -> str | None:
        model, version = record["model"], record["version"]
        state = draft.state(model)
        if version in state.known:
            return None  # published once more
        applied = self._contracts.current.get(model)
        evidence = {"artifact_digest": record["digest"]}
        try:
            if applied is None:
                # Whoever is trusted has published under a contract that was applied, so it is on its way.
                self._verify(record)
                return f"version {version} of {model} is published, and its contract has not been read yet"
            opened = self._opened(record, applied.contract, draft.sequence(model))
        except PackageRefused as refused:
            step = refuse(state, version, f"refused ({refused.check}): {refused.reason}"[:1000])
            draft.records.append(self._package_refused(record, refused, source))
            evidence |= {"check": refused.check}
        else:
            step = admit(state, version)
            holdout = opened.manifest.holdout
            evidence |= {
                "checks": "size, signature, digest, anti-rollback, schema, model, golden",
                SEQUENCE: str(opened.manifest.sequence),
                "holdout_rows": str(holdout.rows),
                **{f"holdout_{metric}": repr(value) for metric, value in sorted(holdout.metrics.items())},
            }
            draft.sequences[model] = max(draft.sequence(model), opened.manifest.sequence)
        self._write(step, source, BY_ITSELF, None, evidence, draft)
        return None

    def _opened(self, record: Mapping[str, Any], contract: ModelContract, newer_than: int) -> LoadedModel:
        try:
            return self._open(record, contract, newer_than)
        except (PackageRefused, Retry):
            raise
        except Exception as error:  # a package that breaks its own opening is a bad package
            raise PackageRefused("open", f"{type(error).__name__}: {error}") from error

    def _command(self, command: Mapping[str, Any], source: Source, draft: _Draft) -> None:
        if draft.obeyed(command["command_id"]):
            return
        try:
            why = self._refuse_command(command)
            if why is not None:
                raise CommandRefused(why)
            step = obey(draft.state(command["model"]), command)
        except CommandRefused as refused:
            draft.records.append(self._command_refused(command, str(refused), source))
            return
        evidence = {"command": command["command"], "key_id": command["key_id"] or ""}
        self._write(step, source, command["by"], command["command_id"], evidence, draft)
        draft.commands.add(command["command_id"])

    # Records ---

    def _decoded(self, name: str, message: Message) -> dict[str, Any] | None:
        try:
            return self._codec.decode(name, message.value())
        except BadRecord as bad:
            log.warning("skipped a record", extra={"at": str(Source.of(message)), "why": str(bad)})
            return None

    def _write(
        self,
        step: Step,
        source: Source,
        by: str,
        command_id: str | None,
        evidence: dict[str, str],
        draft: _Draft,
    ) -> None:
        state = step.state
        applied = self._contracts.current.get(state.model)
        record = {
            "model": state.model,
            "revision": state.revision,
            "follows": state.revision - 1,
            "step": step.name,
            "version": step.version,
            "champion": state.champion,
            "previous": state.previous,
            "shadow": list(state.shadow),
            "candidates": list(state.candidates),
            "rejected": list(state.rejected),
            "frozen": state.frozen,
            "off": state.off,
            "reason": step.reason,
            "by": by,
            "command_id": command_id,
            "source": source._asdict(),
            "contract_digest": applied.digest if applied else None,
            "evidence": evidence,
        }
        draft.records.append(Record(ROLLOUTS, self._codec.encode("Rollout", record), state.model.encode()))
        draft.states[state.model] = state
        draft.steps += 1

    def _package_refused(self, record: Mapping[str, Any], refused: PackageRefused, source: Source) -> Record:
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
            source=source._asdict(),
            at=record["published_at"],
        )

    def _command_refused(self, command: Mapping[str, Any], why: str, source: Source) -> Record:
        about = "" if command["version"] is None else f" {command['version']}"
        return self._alert(
            f"command-refused|{command['command_id']}",
            kind="command-refused",
            severity="warning",
            model=command["model"],
            version=command["version"],
            summary=f"{command['command']} {command['model']}{about} was refused: {why}",
            detail={"command_id": command["command_id"], "command": command["command"], "by": command["by"]},
            source=source._asdict(),
            at=command["issued_at"],
        )

    def _alert(self, identity: str, **facts: Any) -> Record:
        alert = {
            "alert_id": hashlib.sha256(identity.encode()).hexdigest()[:32],
            "state": "raised",
            "service": "rollout",
            **facts,
        }
        return Record(ALERTS, self._codec.encode("Alert", alert), facts["model"].encode())
