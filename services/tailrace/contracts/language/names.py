"""Which names a contract may use: they become Avro fields, ClickHouse columns and tables, Kafka topics."""

from __future__ import annotations

MODEL_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
MODEL_LENGTH = 80
FIELD_PATTERN = r"^[A-Za-z][A-Za-z0-9_]*$"
FIELD_LENGTH = 80
ACTION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$"

# A lane named `tailrace` would write into the product's own topics.
RESERVED_MODELS = frozenset({"tailrace"})
# The tables of model `x-shadow` would be those of model `x`'s shadow predictions.
RESERVED_MODEL_SUFFIX = "-shadow"

# Fields of every request, label or action, whatever the contract says.
ENVELOPE_FIELDS = frozenset({"request_id", "model"})
# What expressions may name besides the contract's fields; a field of this name could not be told apart.
EXPRESSION_NAMES = frozenset({"score", "uncertain", "guarded", "predicted_class", "value", "action"})
# The other fields of a label or action record.
LABEL_FIELDS = frozenset({"labelled_by", "by"})

RESERVED_FIELDS = ENVELOPE_FIELDS | EXPRESSION_NAMES | LABEL_FIELDS


def avro_name(model: str) -> str:
    """The model's name where hyphens are not allowed: Avro namespaces, ClickHouse tables."""
    return model.replace("-", "_")
