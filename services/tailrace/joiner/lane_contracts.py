"""The contracts of one lane's models, as the joiner needs them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tailrace.contracts.lanes import Lane
from tailrace.joiner.contract_plan import ContractPlan
from tailrace.joiner.match import Rules
from tailrace.joiner.truth import TruthReader
from tailrace.kit.codec import Codec
from tailrace.kit.errors import Retry
from tailrace.kit.prediction_head import HEAD_FIELDS


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
    _headed: dict[int, bool] = field(default_factory=dict)

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

    def has_head(self, schema_id: int) -> bool:
        """Whether predictions of this schema begin with the fields of `HeadReader`."""
        found = self._headed.get(schema_id)
        if found is None:
            schema = self.codec.writer_schema(schema_id)
            names = [f["name"] for f in schema.get("fields", ())] if isinstance(schema, dict) else []
            found = self._headed[schema_id] = tuple(names[: len(HEAD_FIELDS)]) == HEAD_FIELDS
        return found
