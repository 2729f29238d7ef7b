"""The contracts of one lane's models, as the joiner needs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tailrace.avro.codec import Codec
from tailrace.avro.columns.decoder import ColumnDecoder
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.errors import BadRecord
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.match import LabelRules
from tailrace.joiner.read_feedback import FeedbackReader
from tailrace.joiner.store import request_key

COMMON = ("model", "version", "artifact_digest", "contract_digest")
"""Fields of a prediction that follow one another and are the same in many."""

READ = ("prediction_id", "request_id", "key", "event_time", "source.partition", "source.offset")
"""Fields of a prediction that the joiner needs one by one."""

_MOST_UNKNOWN = 10_000


@dataclass
class LaneContracts:
    """Those in force, and all that ever were.

    Attributes:
        current: by model.
        plans, rules: by digest.
        horizon, lateness: the longest of any, in milliseconds.
        ahead: how far a watermark may be ahead of its append time, by any of them; see `EventTime.ahead_ms`.
        catch_up: takes contracts that are applied and have not come this way yet; raises Unavailable.
    """

    lane: Lane
    codec: Codec
    current: dict[str, JoiningPlan] = field(default_factory=dict)
    plans: dict[str, JoiningPlan] = field(default_factory=dict)
    rules: dict[str, LabelRules] = field(default_factory=dict)
    horizon: int = 0
    lateness: int = 0
    ahead: int = 0
    catch_up: Callable[[], None] = lambda: None
    reader: FeedbackReader = field(init=False)
    _decoders: dict[int, ColumnDecoder] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)

    def take(self, plan: JoiningPlan) -> None:
        """A contract that came into force."""
        self._unknown.discard(plan.applied.digest)
        self.current[plan.model] = plan
        self.plans[plan.applied.digest] = plan
        self.rules[plan.applied.digest] = plan.rules
        self.horizon = max(self.horizon, plan.rules.horizon)
        self.lateness = max(self.lateness, plan.rules.lateness)
        self.ahead = max(self.ahead, plan.contract.event_time.ahead_ms)
        self.reader = FeedbackReader(self.codec, [plan for _, plan in sorted(self.current.items())])

    def contract_of(self, request: bytes) -> ModelContract:
        """The contract in force of the model whose request has this key in the store."""
        return next(
            plan.contract
            for plan in self.current.values()
            if request.startswith(request_key(plan.model, b""))
        )

    def plan(self, digest: str) -> JoiningPlan:
        """The contract of a digest, looked for where it has not been heard of: who predicted under it was ahead of us.

        Raises:
            BadRecord: ``unknown-contract``.
            Unavailable: it cannot be looked for at the moment.
        """
        if digest not in self.plans and digest not in self._unknown:
            self.catch_up()
            if digest not in self.plans and len(self._unknown) < _MOST_UNKNOWN:
                self._unknown.add(digest)
        if digest not in self.plans:
            reason = f"no contract on lane {self.lane.name} has the digest {digest[:12]}"
            raise BadRecord("unknown-contract", reason)
        return self.plans[digest]

    def prediction_decoder(self, schema_id: int) -> ColumnDecoder | None:
        """Reads predictions of this schema; None where it is none of ours. Raises `Unavailable`."""
        if schema_id not in self._decoders:
            try:
                schema: Any = self.codec.writer_schema(schema_id)
                self._decoders[schema_id] = ColumnDecoder(schema, read=READ, pieces=COMMON)
            except (BadRecord, ValueError, LookupError, TypeError):
                return None  # it may become known
        return self._decoders[schema_id]
