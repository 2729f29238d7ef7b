"""What the control topics say now, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.clickhouse.tables import model_tables
from tailrace.connection import Connection
from tailrace.contracts.records import lanes
from tailrace.contracts.records.record_types import AlertRecord
from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.contracts.state.fold_topics import fold_all
from tailrace.contracts.succession import VersionInService
from tailrace.models.catalog import Catalog
from tailrace.models.package.open import known_to
from tailrace.models.rollout_state.fold import Rollouts, RolloutState
from tailrace.models.rollout_state.in_service import versions_in_service


def contracts(connection: Connection) -> Contracts:
    """Every contract that is or was in force."""
    fold = Contracts()
    fold_all(connection, fold)
    return fold


def models_in_force(connection: Connection) -> list[dict[str, Any]]:
    """Each model with a contract: its topics and tables, and the version that answers (None where none does)."""
    fold, rollouts, held_runs = Contracts(), Rollouts(), HeldRuns()
    fold_all(connection, fold, rollouts, held_runs)
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
            "held_contract": _held(fold.held.get(model)),
            "held_back": _held_back(state, held_runs.open.get(model)),
            "topics": list(lanes.Lane(applied.contract.lane).topics),
            "tables": sorted(model_tables(applied.contract).values()),
        }
        for model, applied in sorted(fold.current.items())
    ]


def _held(contract: AppliedContract | None) -> dict[str, Any] | None:
    """A change of the contract that waits until every version that answers fits it."""
    if contract is None:
        return None
    return {name: getattr(contract, name) for name in ("revision", "digest", "applied_by", "applied_at")}


def _held_back(state: RolloutState, training: str | None) -> dict[str, Any] | None:
    """What ``freeze`` keeps from going on by itself: versions that passed, versions that are to be compared, and why a
    training run is due. None where the model is not frozen.
    """
    if not state.frozen:
        return None
    return {"promotions": sorted(state.waiting), "candidates": list(state.candidates), "training": training}


class HeldRuns:
    """Folds the alerts of training runs that a freeze holds back: by model, what the one that is open says."""

    topic = lanes.ALERTS

    def __init__(self) -> None:
        self.open: dict[str, str] = {}

    def apply(self, record: AlertRecord, offset: int = 0) -> bool:
        model = record["model"]
        if record["kind"] != "retraining-held" or model is None:
            return False
        if record["state"] == "raised":
            self.open[model] = record["summary"]
        else:
            self.open.pop(model, None)
        return True


def in_service(connection: Connection, home: Path) -> dict[str, list[VersionInService]]:
    """By model, the versions that answer, stand by or shadow.

    Args:
        home: says whose manifests count.
    """
    catalog, rollouts = Catalog(known_to(home)), Rollouts()
    fold_all(connection, catalog, rollouts)
    return {model: versions_in_service(catalog, state) for model, state in rollouts.current.items()}
