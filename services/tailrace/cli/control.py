"""What the control topics say now, for commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailrace.clickhouse.tables import model_tables
from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records import lanes
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import Apply, ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import UsageError
from tailrace.models.catalog import Catalog
from tailrace.models.manifest import Manifest
from tailrace.models.package.open import verified_manifest
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.signing.trust import TrustStore
from tailrace.streaming.backends.kafka.reading import read_all


def contracts(connection: Connection) -> Contracts:
    """Every contract that is or was in force."""
    fold = Contracts()
    _fold(connection, {lanes.CONTRACTS: fold.apply})
    return fold


def contract_of(connection: Connection, model: str) -> ModelContract:
    """The contract in force.

    Raises:
        UsageError: there is none of this model.
    """
    current = contracts(connection).current
    if model not in current:
        known = ", ".join(sorted(current)) or "none yet"
        raise UsageError(
            f"no contract of a model {model!r} is applied (known: {known}): `tailrace apply FILE`"
        )
    return current[model].contract


def models_in_force(connection: Connection) -> list[dict[str, Any]]:
    """Each model with a contract: its topics and tables, and the version that answers (None where none does)."""
    applied, rollouts = Contracts(), Rollouts()
    _fold(connection, {lanes.CONTRACTS: applied.apply, lanes.ROLLOUTS: rollouts.apply})
    return [
        {
            "model": model,
            "champion": (state := rollouts.state(model)).champion,
            "previous": state.previous,
            "shadow": list(state.shadow),
            "canary": None if state.canary is None else vars(state.canary),
            "arms": [] if state.experiment is None else [vars(arm) for arm in state.experiment.arms],
            "candidates": list(state.candidates),
            "frozen": state.frozen,
            "off": state.off,
            "contract": each.revision,
            "topics": list(lanes.Lane(each.contract.lane).topics),
            "tables": sorted(model_tables(each.contract).values()),
        }
        for model, each in sorted(applied.current.items())
    ]


def features_in_service(connection: Connection, home: Path) -> dict[str, dict[int, list[str]]]:
    """By model, the versions that answer, stand by or shadow, each with the features that it needs.

    Args:
        home: says whose manifests count.
    """
    trust = TrustStore(home / "keys", past=True)
    catalog, rollouts = Catalog(lambda record: verified_manifest(record, trust)), Rollouts()
    _fold(connection, {lanes.MANIFESTS: catalog.apply, lanes.ROLLOUTS: rollouts.apply})
    return features_needed(catalog, rollouts)


def features_needed(catalog: Catalog, rollouts: Rollouts) -> dict[str, dict[int, list[str]]]:
    """As `features_in_service`, of what was folded."""
    needed: dict[str, dict[int, list[str]]] = {}
    for model, state in rollouts.current.items():
        arms = () if state.experiment is None else state.experiment.versions
        for version in (state.champion, state.previous, *arms, *state.shadow):
            record = None if version is None else catalog.verified(model, version)
            if version is None or record is None:  # what is not verified cannot serve either
                continue
            inputs = Manifest.from_bytes(record["manifest"]).inputs
            needed.setdefault(model, {})[version] = [each.name for each in inputs]
    return needed


def _fold(connection: Connection, folds: Mapping[str, Apply]) -> None:
    state = ControlState(ControlRecords.of(connection), folds)
    state.take(read_all(connection, state.topics))
