"""What is published, and what became of it: for ``tailrace models``."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tailrace.connection import Connection
from tailrace.contracts.records.record_types import ModelManifestRecord
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.control.commands import rollouts
from tailrace.control.publish import calibration_of
from tailrace.models.catalog import Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.package.open import known_to, verified_manifest
from tailrace.models.rollout_state.fold import RolloutState
from tailrace.signing.trust import TrustStore


def published_versions(connection: Connection, home: Path, model: str | None = None) -> list[dict[str, Any]]:
    """Every version on the topic, by model and number, with its state in the rollout.

    A version whose signature is not trusted in this home (``trusted`` false, ``refused`` says why) shows nothing of
    what it says about itself, but it may answer: a champion goes on when its key is revoked.
    """
    trust = TrustStore(home / "keys")
    fold = rollouts(connection)
    catalog = Catalog(known_to(home))
    fold_all(connection, catalog)
    claimed = [(name, version) for name, version in catalog.claimed() if model in (None, name)]
    published = [record for at in claimed if (record := catalog.record(*at)) is not None]
    return [_described(record, fold.state(record["model"]), trust) for record in published]


def state_of(version: int, rollout: RolloutState) -> str:
    """``champion``, ``canary``, ``arm``, ``previous``, ``shadow``, ``candidate``, ``rejected``, ``rolled back``,
    ``retired``; ``pruned`` where its package was removed, ``published`` where no step names it.
    """
    states: list[tuple[str, Collection[int | None]]] = [
        ("pruned", rollout.pruned),
        ("champion", (rollout.champion,)),
        ("canary", () if rollout.canary is None else (rollout.canary.version,)),
        ("arm", () if rollout.experiment is None else rollout.experiment.versions),
        ("previous", (rollout.previous,)),
        ("shadow", rollout.shadow),
        ("candidate", rollout.candidates),
        ("rejected", rollout.rejected),
        ("rolled back", rollout.rolled_back),
        ("retired", rollout.retired),
    ]
    return next((state for state, versions in states if version in versions), "published")


def _time(ms: int) -> str | None:
    """None where it is beyond all dates: nobody has signed it."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _described(record: ModelManifestRecord, rollout: RolloutState, trust: TrustStore) -> dict[str, Any]:
    envelope = {
        "model": record["model"],
        "version": record["version"],
        "state": state_of(record["version"], rollout),
        "digest": record["digest"],
        "key_id": record["key_id"],
        "published_at": _time(record["published_at"]),
        "published_by": record["published_by"],
    }
    try:
        manifest = verified_manifest(record, trust)
    except PackageRefused as refused:
        nothing: dict[str, Any] = {"format": None, "rows": None, "metrics": {}, "calibration": None}
        return {**envelope, "trusted": False, **nothing, "refused": str(refused)}
    document = manifest.model_dump(mode="json")
    return {
        **envelope,
        "trusted": True,
        "format": manifest.format,
        "rows": manifest.lineage.rows,
        "metrics": dict(manifest.holdout.metrics),
        "calibration": calibration_of(manifest),
        "holdout_rows": manifest.holdout.rows,
        "inputs": [i.name for i in manifest.inputs],
        "conversion": document["conversion"],
        "lineage": document["lineage"],
        "contract_digest": manifest.contract_digest,
    }
