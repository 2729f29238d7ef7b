"""The fold of ``tailrace.contracts``: which contract is in force for each model, and which waits for a version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.contracts.records.record_types import ContractRecord
from tailrace.errors import UsageError

HOLD, WITHDRAW, RELEASE = "hold", "withdraw", "release"
"""The steps of a contract that waits until a version fits it. A record without a step comes into force at once."""
STEPS = (HOLD, WITHDRAW, RELEASE)


@dataclass(frozen=True)
class AppliedContract:
    """A contract that was applied. ``revision`` of one that is held is the one that it would have."""

    model: str
    revision: int
    digest: str
    resolved: str
    source_text: str
    applied_by: str
    applied_at: int
    """Milliseconds since the epoch, by the applier's clock."""

    @cached_property
    def contract(self) -> ModelContract:
        return ModelContract.from_resolved(self.resolved)


class Contracts:
    """Folds the records of ``tailrace.contracts`` in the topic's order.

    Of several records that follow the same revision the first wins; the others count for nothing.

    Attributes:
        current: the contract in force of each model.
        history: all that ever were in force, the oldest first, of each model.
        by_digest: all that ever were in force, by digest.
        held: the contract of each model that waits until a version fits it; another that comes into force ends that.
        position: offset behind the last record.
    """

    topic = CONTRACTS

    def __init__(self) -> None:
        self.current: dict[str, AppliedContract] = {}
        self.history: dict[str, list[AppliedContract]] = {}
        self.by_digest: dict[str, AppliedContract] = {}
        self.held: dict[str, AppliedContract] = {}
        self.position = 0

    def revision(self, model: str) -> int:
        """The revision in force; 0 where there is none."""
        applied = self.current.get(model)
        return applied.revision if applied else 0

    def in_force(self, model: str) -> AppliedContract:
        """The contract in force of a model.

        Raises:
            UsageError: none of this model was applied.
        """
        if model not in self.current:
            known = ", ".join(sorted(self.current)) or "none yet"
            what = f"no contract of a model {model!r} is applied (known: {known})"
            raise UsageError(f"{what}: `tailrace apply FILE`")
        return self.current[model]

    def apply(self, record: ContractRecord, offset: int = 0) -> bool:
        """Takes one decoded record (schema ``contract.avsc``); says whether it brought a contract into force."""
        self.position = max(self.position, offset + 1)
        model, step = record["model"], record.get("step")
        if record["follows"] != self.revision(model):
            return False
        if step == HOLD:
            self.held[model] = _contract_of(record)
            return False
        waiting = self.held.get(model)
        if step is not None and (waiting is None or waiting.digest != record["digest"]):
            return False
        if step != WITHDRAW and record["revision"] != record["follows"] + 1:
            return False
        self.held.pop(model, None)
        if step == WITHDRAW:
            return False
        applied = self.current[model] = _contract_of(record)
        self.history.setdefault(model, []).append(applied)
        self.by_digest[applied.digest] = applied
        return True

    def on_lane(self, lane: str) -> list[AppliedContract]:
        """The contracts in force whose models share a lane, by model name."""
        return [applied for _, applied in sorted(self.current.items()) if applied.contract.lane == lane]


def _contract_of(record: ContractRecord) -> AppliedContract:
    return AppliedContract(
        model=record["model"],
        revision=record["follows"] + 1,
        digest=record["digest"],
        resolved=record["resolved"],
        source_text=record["source_text"],
        applied_by=record["applied_by"],
        applied_at=record["applied_at"],
    )


def record_of(contract: AppliedContract, step: str | None, by: str, now_ms: int) -> ContractRecord:
    """The record that takes this step with a contract. Holding and withdrawing make no revision."""
    follows = contract.revision - 1
    return {
        "model": contract.model,
        "revision": follows if step in (HOLD, WITHDRAW) else contract.revision,
        "follows": follows,
        "digest": contract.digest,
        "source_text": contract.source_text,
        "resolved": contract.resolved,
        "applied_by": by,
        "applied_at": now_ms,
        "step": step,
    }
