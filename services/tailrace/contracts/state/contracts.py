"""The fold of ``tailrace.contracts``: which contract is in force for each model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.contracts.records.record_types import ContractRecord
from tailrace.errors import UsageError


@dataclass(frozen=True)
class AppliedContract:
    """A contract that was applied."""

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
    """

    topic = CONTRACTS

    def __init__(self) -> None:
        self.current: dict[str, AppliedContract] = {}
        self.history: dict[str, list[AppliedContract]] = {}
        self.by_digest: dict[str, AppliedContract] = {}

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
        """Takes one decoded record (schema ``contract.avsc``); says whether it came into force."""
        model = record["model"]
        revision = self.revision(model)
        if record["follows"] != revision or record["revision"] != revision + 1:
            return False
        applied = AppliedContract(
            model=model,
            revision=record["revision"],
            digest=record["digest"],
            resolved=record["resolved"],
            source_text=record["source_text"],
            applied_by=record["applied_by"],
            applied_at=record["applied_at"],
        )
        self.current[model] = applied
        self.history.setdefault(model, []).append(applied)
        self.by_digest[applied.digest] = applied
        return True

    def on_lane(self, lane: str) -> list[AppliedContract]:
        """The contracts in force whose models share a lane, by model name."""
        return [applied for _, applied in sorted(self.current.items()) if applied.contract.lane == lane]
