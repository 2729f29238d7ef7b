"""Which packages are let in, and which versions nothing would take up: their signers, digests and checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.checks import SEQUENCE
from tailrace.errors import Unavailable
from tailrace.models.catalog import LEAP, Catalog, Verify
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.models.package.contract_fit import misfits
from tailrace.models.package.open import Verified
from tailrace.models.rollout_state.fold import RolloutState
from tailrace.rollout.decide import RolloutStep, newly_serving
from tailrace.rollout.judge import Distrust

CHECKS = "size, signature, digest, anti-rollback, schema, model, golden, latency, memory"


OpenPackage = Callable[[ModelManifestRecord, ModelContract, int], Verified]


class PackageTrust:
    """Says whom to trust.

    Args:
        verify, open_package: see `RolloutProcessor`.
    """

    def __init__(self, verify: Verify, open_package: OpenPackage) -> None:
        self._verify = verify
        self._open = open_package
        self.catalog = Catalog(verify)

    def take_in(self, record: ModelManifestRecord, known: Collection[int]) -> None:
        """Takes the manifest of a new version in.

        Raises:
            PackageRefused: it counts for nothing.
        """
        self._verify(record)
        version = record["version"]
        if version > max(known, default=0) + LEAP:
            raise PackageRefused("manifest", f"version {version} leaps far beyond all that are known")
        # What reads the control topics may have come no further than a stranger's manifest of the same version.
        self.catalog.apply(record)

    def open(self, record: ModelManifestRecord, contract: ModelContract, newer_than: int) -> Manifest:
        """The manifest of a package that passes.

        Raises:
            PackageRefused: it does not.
            Unavailable: some of it is away.
        """
        try:
            manifest = self._open(record, contract, newer_than).manifest
        except (PackageRefused, Unavailable):
            raise
        except Exception as error:  # a package that breaks its own opening is a bad package
            raise PackageRefused("open", f"{type(error).__name__}: {error}") from error
        if manifest.sequence > newer_than + LEAP:
            raise PackageRefused("anti-rollback", "its sequence leaps far beyond all that were let in")
        return manifest

    def distrust(self, model: str) -> Distrust:
        """Says of a version why nothing would take it up, or None."""

        def why(version: int) -> str | None:
            record = self.catalog.record(model, version)
            try:
                if record is not None:
                    self._verify(record)
            except PackageRefused as refused:
                return f"nothing would take version {version} up: {refused.reason}"
            return None

        return why

    def untrusted(self, before: RolloutState, step: RolloutStep) -> str | None:
        """Why nothing would take up what the step has answer, or shadow, that did not before."""
        distrust = self.distrust(step.state.model)
        reasons = (distrust(version) for version in sorted(newly_serving(before, step)))
        return next((why for why in reasons if why is not None), None)

    def unfit(
        self, before: RolloutState, step: RolloutStep, contracts: Sequence[ModelContract]
    ) -> str | None:
        """Why what the step has answer, that did not before, can serve none of the contracts; None where it can.

        Args:
            contracts: the one in force, and one that is held until the versions that answer fit it.
        """
        for version in sorted(step.state.answering - before.answering):
            record = self.catalog.verified(step.state.model, version)
            if record is None or not contracts:
                continue
            try:
                manifest = Manifest.from_bytes(record["manifest"])
            except PackageRefused:  # `open` and `untrusted` say so
                continue
            reasons = [next(misfits(manifest, contract), None) for contract in contracts]
            if reasons[0] is not None and None not in reasons:
                return (
                    f"version {version} cannot serve the contract in force, and requests would wait: "
                    f"{reasons[0].what}; take a version that was published under it, or publish one"
                )
        return None


def evidence_of(manifest: Manifest) -> dict[str, str]:
    """What a version is let in for."""
    holdout = manifest.holdout
    return {
        "checks": CHECKS,
        SEQUENCE: str(manifest.sequence),
        "holdout_rows": str(holdout.rows),
        **{f"holdout_{metric}": repr(value) for metric, value in sorted(holdout.metrics.items())},
    }
