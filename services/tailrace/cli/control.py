"""What the control topics say now, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.clickhouse.tables import model_tables
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.models.catalog import Catalog
from tailrace.models.manifest import Manifest
from tailrace.models.package.open import known_to
from tailrace.models.rollout_state.fold import Rollouts


def contracts(connection: Connection) -> Contracts:
    """Every contract that is or was in force."""
    fold = Contracts()
    fold_all(connection, fold)
    return fold


def models_in_force(connection: Connection) -> list[dict[str, Any]]:
    """Each model with a contract: its topics and tables, and the version that answers (None where none does)."""
    fold, rollouts = Contracts(), Rollouts()
    fold_all(connection, fold, rollouts)
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
            "contract": applied.revision,
            "topics": list(lanes.Lane(applied.contract.lane).topics),
            "tables": sorted(model_tables(applied.contract).values()),
        }
        for model, applied in sorted(fold.current.items())
    ]


def features_in_service(connection: Connection, home: Path) -> dict[str, dict[int, list[str]]]:
    """By model, the versions that answer, stand by or shadow, each with the features that it needs.

    Args:
        home: says whose manifests count.
    """
    catalog, rollouts = Catalog(known_to(home)), Rollouts()
    fold_all(connection, catalog, rollouts)
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
            needed.setdefault(model, {})[version] = [feature.name for feature in inputs]
    return needed
