"""Whether a template can learn from columns of numbers: what it could not is named, before a library stumbles on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.templates.template import Template

LARGEST = 1e30
"""Trees compare in single precision, which ends at 3e38, and variances are sums of squares."""
_REMEDY = "give it a min and a max in the contract, and leave such rows out (`tailrace train --where`)"
SQUEEZED = 1e-6
"""Spread of a column without its lowest and its highest hundredth, as a share of its standard deviation, below which
single precision does not tell its values apart once they are standardised."""


def refuse_untrainable(template: Template, x: Any, y: Any, contract: ModelContract) -> None:
    """Raises TailraceError where a column of numbers holds what the template cannot learn from; names it.

    Args:
        x: pandas frame of the contract's features.
        y: the truth by row.
    """
    columns = {
        name: x[name].to_numpy(dtype=np.float64)
        for name, feature in contract.features.items()
        if feature.type in ("number", "integer")
    }
    squeezing = [name for name, values in columns.items() if template.scales and _is_squeezed(values)]
    if contract.task == "regression":
        columns[contract.target.name] = np.asarray(y, dtype=np.float64)
    for name, values in columns.items():
        if (largest := _largest(values)) is not None and abs(largest) > LARGEST:
            raise TailraceError(
                f"{name} is up to {largest:.4g}, and templates learn from at most {LARGEST:.0e}: {_REMEDY}"
            )
        if largest is None and template.needs_values:
            raise TailraceError(
                f"{name} has no value in any row, and {template.name} needs one: take it out of the "
                "contract, or train another template"
            )
    if squeezing:
        name = squeezing[0]
        raise TailraceError(
            f"{name} is {_largest(columns[name]):.4g} in a row that lies so far off that {template.name} cannot tell "
            f"its other values apart: {_REMEDY}"
        )


def _largest(values: Any) -> float | None:
    present = values[~np.isnan(values)]
    return float(present[np.argmax(np.abs(present))]) if len(present) else None


def _is_squeezed(values: Any) -> bool:
    present = values[~np.isnan(values)]
    if not len(present) or np.abs(present).max() > LARGEST:
        return False
    low, high = np.quantile(present, [0.01, 0.99])
    return bool(0 < high - low < SQUEEZED * present.std())
