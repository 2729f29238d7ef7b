"""Who may answer in a version's place."""

from __future__ import annotations

from tailrace.scorer.contract_plan import ServingPlan
from tailrace.scorer.contract_steps import steps_of
from tailrace.scorer.quarantine import VersionQuarantine, name_of
from tailrace.scorer.versions import Role, Serving, ServingVersion, Versions


class StandIns:
    """Beside a champion the previous one, beside another version the champion; none that is quarantined."""

    def __init__(self, role: Role, versions: Versions, quarantine: VersionQuarantine) -> None:
        self._role = role
        self._versions = versions
        self._quarantine = quarantine

    def instead_of(
        self, version: ServingVersion, serving: Serving, plan: ServingPlan
    ) -> ServingVersion | None:
        """Which version a fallback may ask."""
        champion = serving.versions[0]
        other = self._versions.previous(plan.model) if version is champion else champion
        return other if self._may_stand_in(other, plan) else None

    def can_do_without(self, version: ServingVersion, serving: Serving, plan: ServingPlan) -> bool:
        """Whether something else answers, or in shadow nothing need to."""
        if self._role == "shadow" or steps_of(plan).fallback:
            return True
        if version is serving.versions[0] and self._versions.previous_is_coming(plan.model):
            return True
        return self.instead_of(version, serving, plan) is not None

    def _may_stand_in(self, version: ServingVersion | None, plan: ServingPlan) -> bool:
        return (
            version is not None
            and name_of(plan.model, version.number) not in self._quarantine
            and plan.misfit(version) is None
        )
