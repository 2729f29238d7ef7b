"""What the control topics say now, for commands."""

from __future__ import annotations

from tailrace.contracts import lanes
from tailrace.contracts.fold import Contracts
from tailrace.contracts.model_contract import ModelContract
from tailrace.kit.codec import ControlCodec
from tailrace.kit.connection import Connection
from tailrace.kit.errors import UsageError
from tailrace.kit.reading import read_all
from tailrace.kit.registry import RegistryClient


def contracts(connection: Connection) -> Contracts:
    """Every contract that is or was in force."""
    codec = ControlCodec(RegistryClient(connection.registry, connection.registry_auth))
    fold = Contracts()
    for message in read_all(connection, [lanes.CONTRACTS]):
        fold.apply(codec.decode("Contract", message.value()))
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
