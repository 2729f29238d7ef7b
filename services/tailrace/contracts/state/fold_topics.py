"""Control state as the topics have it now, for whoever does not follow them."""

from __future__ import annotations

from tailrace.connection import Connection
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState, Fold, Taken
from tailrace.contracts.state.records import ControlRecords
from tailrace.streaming.backends.kafka.reading import read_all


def fold_all(connection: Connection, *folds: Fold) -> list[Taken]:
    """Folds all that is on the folds' topics.

    Raises:
        TailraceError: Kafka cannot be read.
    """
    state = ControlState(ControlRecords.of(connection), *folds)
    return state.take(read_all(connection, state.topics))


def contract_in_force(connection: Connection, model: str) -> ModelContract:
    """The contract in force; raises UsageError where none of this model was applied."""
    contracts = Contracts()
    fold_all(connection, contracts)
    return contracts.in_force(model).contract


def contract_to_build_for(connection: Connection, model: str) -> ModelContract:
    """The contract that a version is to fit which is built now: what is held until one fits it, or else the one in
    force. Raises UsageError where none of this model was applied.
    """
    contracts = Contracts()
    fold_all(connection, contracts)
    return contracts.held.get(model, contracts.in_force(model)).contract
