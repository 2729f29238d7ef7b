"""The contracts of one lane's models, as the joiner needs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tailrace.contracts.lanes import Lane
from tailrace.joiner.contract_plan import ContractPlan
from tailrace.joiner.match import Rules
from tailrace.joiner.read_truths import TruthReader
from tailrace.kit.avro_columns import ColumnDecoder
from tailrace.kit.codec import Codec
from tailrace.kit.errors import BadRecord, Retry

COMMON = ("model", "version", "artifact_digest", "contract_digest")
"""Fields of a prediction that follow one another and are the same in many."""

READ = ("prediction_id", "request_id", "key", "event_time", "source.partition", "source.offset")
"""Fields of a prediction that the joiner needs one by one."""


@dataclass
class LaneContracts:
    """Those in force, and all that ever were.

    Attributes:
        current: by model.
        plans, rules: by digest.
        horizon, lateness: the longest of any, in milliseconds.
    """

    lane: Lane
    codec: Codec
    current: dict[str, ContractPlan] = field(default_factory=dict)
    plans: dict[str, ContractPlan] = field(default_factory=dict)
    rules: dict[str, Rules] = field(default_factory=dict)
    horizon: int = 0
    lateness: int = 0
    reader: TruthReader = field(init=False)
    _decoders: dict[int, ColumnDecoder] = field(default_factory=dict)

    def take(self, plan: ContractPlan) -> None:
        """A contract that came into force."""
        self.current[plan.model] = plan
        self.plans[plan.applied.digest] = plan
        self.rules[plan.applied.digest] = plan.rules
        self.horizon = max(self.horizon, plan.rules.horizon)
        self.lateness = max(self.lateness, plan.rules.lateness)
        self.reader = TruthReader(self.codec, [plan for _, plan in sorted(self.current.items())])

    def plan(self, digest: str) -> ContractPlan:
        """Raises `Retry` where the contract has not been heard of: who predicted under it was ahead of us."""
        found = self.plans.get(digest)
        if found is None:
            raise Retry(f"a prediction names the contract {digest[:12]}, which is not in tailrace.contracts")
        return found

    def prediction_decoder(self, schema_id: int) -> ColumnDecoder | None:
        """Reads predictions of this schema; None where it is none of ours. Raises `Retry`."""
        if schema_id not in self._decoders:
            try:
                schema: Any = self.codec.writer_schema(schema_id)
                self._decoders[schema_id] = ColumnDecoder(schema, read=READ, pieces=COMMON)
            except (BadRecord, ValueError, LookupError, TypeError):
                return None  # it may become known
        return self._decoders[schema_id]
