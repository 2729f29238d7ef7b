"""Whether schemas may follow one another under one name: Apache Avro's own checker, Confluent's levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import parse

LEVELS = (
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
    "NONE",
)
"""BACKWARD: new readers read old records. FORWARD: old readers read new records. FULL: both.

Against the last version; TRANSITIVE, against every version.
"""

LEVEL = "FULL_TRANSITIVE"
"""What the schemas of models are held to. Logs are kept for years and consumers are updated one by one: everyone reads
what anyone wrote."""


def invalid(text: str) -> str | None:
    """Why the text is no Avro schema, or None where it is one."""
    try:
        parse(text)
    except (AvroException, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        return str(error) or repr(error)
    return None


def breaks(level: str, new: str, earlier: Sequence[str]) -> list[str]:
    """What the new schema breaks of the earlier ones (oldest first) at this level; empty where nothing.

    All schemas are valid Avro, as JSON text. A name's earlier versions include only those not deleted.
    """
    if level == "NONE":
        return []
    reasons: list[str] = []
    for old in earlier if level.endswith("_TRANSITIVE") else earlier[-1:]:
        if level.startswith(("BACKWARD", "FULL")):
            reasons += _cannot_read(new, old, "the new schema cannot read what an earlier one wrote")
        if level.startswith(("FORWARD", "FULL")):
            reasons += _cannot_read(old, new, "an earlier schema cannot read what the new one writes")
    return list(dict.fromkeys(reasons))


def _cannot_read(reader: str, writer: str, lead: str) -> list[str]:
    checker: Any = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
    verdict = checker.get_compatibility(parse(reader), parse(writer))
    if verdict.compatibility is not SchemaCompatibilityType.incompatible:
        return []
    what = ", ".join(sorted({kind.value.replace("_", " ") for kind in verdict.incompatibilities}))
    where = ", ".join(sorted(verdict.locations))
    return [f"{lead}: {what} at {where}: {'; '.join(sorted(map(str, verdict.messages)))}"]
