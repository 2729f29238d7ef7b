"""What the control topics say now, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.clickhouse.tables import model_tables
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.succession import VersionInService
from tailrace.models.catalog import Catalog
from tailrace.models.package.open import known_to
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.models.rollout_state.in_service import versions_in_service


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


def in_service(connection: Connection, home: Path) -> dict[str, list[VersionInService]]:
    """By model, the versions that answer, stand by or shadow.

    Args:
        home: says whose manifests count.
    """
    catalog, rollouts = Catalog(known_to(home)), Rollouts()
    fold_all(connection, catalog, rollouts)
    return {model: versions_in_service(catalog, state) for model, state in rollouts.current.items()}
