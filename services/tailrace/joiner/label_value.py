"""The value of a label, checked against the contract's target, in Avro."""

from __future__ import annotations

import math
from typing import Any

from tailrace.contracts.fields import Target
from tailrace.kit.avro_bytes import SOME, double, sized
from tailrace.kit.errors import BadRecord


def encode_label(target: Target, value: Any) -> bytes:
    """The label as the outcome's schema has it; equal values give equal bytes.

    Raises:
        BadRecord: ``missing``, ``not-finite``, ``unseen-category``.
    """
    if value is None:
        raise BadRecord("missing", f"{target.name} is missing: what really happened", target.name)
    if target.type == "boolean":
        return SOME + (b"\x01" if value else b"\x00")
    if target.type == "number":
        if not math.isfinite(value):
            raise BadRecord("not-finite", f"{target.name} is {value}", target.name)
        return SOME + double(float(value) + 0.0)  # one zero, not two
    if value not in (target.categories or ()):
        known = ", ".join(target.categories or ())
        raise BadRecord(
            "unseen-category", f"{target.name} is {value[:100]!r}, not one of {known}", target.name
        )
    return SOME + sized(value.encode())
