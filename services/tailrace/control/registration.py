"""A contract's schemas in the registry: whether they may follow what is there, and putting them there; and those of
the control topics.
"""

from __future__ import annotations

from tailrace.avro.registry import Registry
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.compatibility import LEVEL
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, control_schema
from tailrace.contracts.records.schemas import AvroSchema, lane_schemas, subject


def incompatibilities(registry: Registry, contract: ModelContract) -> list[str]:
    """What the contract would break for who reads or writes its topics; empty where nothing.

    Changes nothing.

    Raises:
        Unavailable: the registry cannot be reached.
    """
    problems = []
    for name, schema in _subjects(contract).items():
        compatible, reasons = registry.check_compatible(name, schema)
        if not compatible:
            problems += [f"{name}: {reason}" for reason in reasons or ["incompatible"]]
    return problems


def register_schemas(registry: Registry, contract: ModelContract) -> dict[str, int]:
    """Registers the contract's schemas; their ids by subject. What is there already stays as it is.

    Raises:
        IncompatibleSchema: a schema breaks what is there; subjects before it have theirs by then.
        Unavailable: the registry cannot be reached.
    """
    ids = {}
    for name, schema in _subjects(contract).items():
        # The level comes first: from the first version on, each is held to it.
        if registry.latest(name) is None:
            registry.set_level(name, LEVEL)
        ids[name] = registry.register(name, schema)
    return ids


def register_control_schemas(registry: Registry) -> None:
    """Registers the schemas of all control topics, so that who reads one has its schema before its first record.

    Raises:
        IncompatibleSchema: the registry holds one that another version of Tailrace wrote, and this one breaks it.
        Unavailable: the registry cannot be reached.
    """
    for name, topic in CONTROL_RECORDS.items():
        registry.register(f"{topic}-value", control_schema(name))


def _subjects(contract: ModelContract) -> dict[str, AvroSchema]:
    return {
        subject(topic, contract.model, contract.lane): schema
        for topic, schema in lane_schemas(contract).items()
    }
