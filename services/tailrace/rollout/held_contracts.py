"""Which contracts that are held may come into force: those that every version that answers now fits."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from tailrace.avro.registry import IncompatibleSchema
from tailrace.contracts.state.contracts import RELEASE, AppliedContract, Contracts, record_of
from tailrace.contracts.state.records import ControlRecords
from tailrace.control.registration import register_schemas
from tailrace.models.catalog import Catalog
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.models.rollout_state.in_service import versions_in_service
from tailrace.streaming.records import Record

log = logging.getLogger(__name__)

Released = tuple[str, int, str]
"""A model, the revision that its contract is to have, and the contract's digest."""


class HeldContracts:
    """Decides by what has been read back of rollouts and contracts: a version that a step makes champion in this batch
    is looked at in the next one, which its step itself leads to.
    """

    def __init__(
        self, records: ControlRecords, contracts: Contracts, catalog: Catalog, rollouts: Rollouts
    ) -> None:
        self._records = records
        self._contracts, self._catalog, self._rollouts = contracts, catalog, rollouts

    def fitting(self, released: Collection[Released]) -> Iterator[AppliedContract]:
        """Those that fit, but for what was released and is yet to be read back."""
        for model, held in sorted(self._contracts.held.items()):
            if (model, held.revision, held.digest) in released:
                continue
            current, state = self._contracts.in_force(model).contract, self._rollouts.state(model)
            answering = [v for v in versions_in_service(self._catalog, state) if v.answers]
            all_known = {version.number for version in answering} == state.answering
            if all_known and not any(version.broken_by(held.contract, current) for version in answering):
                yield held

    def release(self, held: AppliedContract, now_ms: int) -> Record | None:
        """The record that brings it into force; of several that follow one revision the first counts. It names who
        held it, who is the author still. Its schemas are registered first; None where the registry refuses them.

        Raises:
            Unavailable: the registry is away.
        """
        try:
            register_schemas(self._records.registry, held.contract)
        except IncompatibleSchema as refused:
            log.error("a held contract stays held", extra={"model": held.model, "reason": str(refused)})
            return None
        return self._records.record("Contract", record_of(held, RELEASE, held.applied_by, now_ms))
