"""What the control topics say now, for commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tailrace.contracts import lanes
from tailrace.contracts.fold import Contracts
from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.codec import ControlCodec
from tailrace.kit.connection import Connection
from tailrace.kit.errors import UsageError
from tailrace.kit.reading import read_all
from tailrace.kit.registry import RegistryClient
from tailrace.models.catalog import Catalog
from tailrace.models.manifest import Manifest
from tailrace.models.package import verified_manifest
from tailrace.models.rollout_fold import Rollouts
from tailrace.models.trust import TrustStore


def contracts(connection: Connection) -> Contracts:
    """Every contract that is or was in force."""
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    fold = Contracts()
    for message in read_all(connection, [lanes.CONTRACTS]):
        if (record := codec.read(message)) is not None:
            fold.apply(record)
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
    """Each model with a contract: its lane's topics, and the version that answers (None where none does)."""
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    applied, rollouts = Contracts(), Rollouts()
    for message in read_all(connection, [lanes.CONTRACTS, lanes.ROLLOUTS]):
        if (record := codec.read(message)) is None:
            continue
        if message.topic() == lanes.CONTRACTS:
            applied.apply(record)
        else:
            rollouts.apply(record, message.offset())
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
        }
        for model, each in sorted(applied.current.items())
    ]


def features_in_service(connection: Connection, home: Path) -> dict[str, dict[int, list[str]]]:
    """By model, the versions that answer, stand by or shadow, each with the features that it needs.

    Args:
        home: says whose manifests count.
    """
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    trust = TrustStore(home / "keys", past=True)
    catalog, rollouts = Catalog(lambda record: verified_manifest(record, trust)), Rollouts()
    for message in read_all(connection, [lanes.MANIFESTS, lanes.ROLLOUTS]):
        if (read := codec.read(message)) is None:
            continue
        if message.topic() == lanes.ROLLOUTS:
            rollouts.apply(read, message.offset())
        else:
            catalog.apply(read)
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
