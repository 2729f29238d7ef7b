"""Which columns the expressions of a contract may use, by where in the contract they stand."""

from __future__ import annotations

from tailrace.contracts.expressions.compiler import BOOLEAN, NUMBER, TEXT, ColumnType, categories
from tailrace.contracts.language.fields import ContextField, Feature
from tailrace.contracts.language.model_contract import ModelContract


def request_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """Features and context: for rules, slices and fallback rules."""
    return {name: _field_type(field) for name, field in (contract.features | contract.context).items()}


def policy_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """What a policy may use: features, context, the guards' flags and what the model said.

    ``score`` is the probability of the positive class, with several classes that of the predicted one.
    """
    columns = request_columns(contract) | {"uncertain": BOOLEAN, "guarded": BOOLEAN}
    if contract.task == "regression":
        return columns | {"value": NUMBER}
    return columns | {"score": NUMBER, "predicted_class": categories(contract.classes)}


def value_columns(contract: ModelContract) -> dict[str, ColumnType]:
    """What the business value may use: all that a policy may, the action taken and the truth."""
    target = contract.target
    truth = {"boolean": BOOLEAN, "number": NUMBER}.get(target.type) or categories(contract.classes)
    return policy_columns(contract) | {"action": categories(contract.actions), target.name: truth}


def _field_type(field: Feature | ContextField) -> ColumnType:
    if field.type in ("number", "integer"):
        return NUMBER
    if field.type == "boolean":
        return BOOLEAN
    return TEXT if field.categories is None else categories(field.categories)
