"""Values of labels, checked against the contract's target, in Avro."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tailrace.avro.columns.decoder import Column
from tailrace.avro.encoding import SOME, double, sized
from tailrace.contracts.language.fields import Target
from tailrace.errors import BadRecord


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
        reason = f"{target.name} is {value[:100]!r}, not one of {', '.join(target.categories or ())}"
        raise BadRecord("unseen-category", reason, target.name)
    return SOME + sized(value.encode())


def encode_labels(target: Target, column: Column) -> list[bytes | None]:
    """Many labels at once; None where `encode_label` has something to say."""
    values = column.values
    if target.type == "category":
        known = {c.encode(): SOME + sized(c.encode()) for c in target.categories or ()}
        return [known.get(value) for value in values]
    if target.type == "boolean":
        truth, falsehood = SOME + b"\x01", SOME + b"\x00"
        return [truth if value == 1.0 else falsehood if value == 0.0 else None for value in values.tolist()]
    data = (values + 0.0).astype("<f8").tobytes()
    fine = np.isfinite(values).tolist()
    return [SOME + data[8 * at : 8 * at + 8] if is_fine else None for at, is_fine in enumerate(fine)]
