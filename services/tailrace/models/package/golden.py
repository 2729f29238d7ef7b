"""Golden pairs: inputs with the outputs that the publisher got for them.

They prove three things where the package is opened: a row scores the same bits alone, among others and in
another order; the scores are the publisher's, within the manifest's tolerance (another CPU gives other last
bits); and nothing that comes out is NaN or infinite.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tailrace.models.columns import Array, Columns, column_of, taken, values_of
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel
from tailrace.models.inputs import Input
from tailrace.models.manifest import Tolerance
from tailrace.signing.canonical import canonical_json

MOST_ROWS = 256


def golden_bytes(columns: Columns, outputs: Array) -> bytes:
    """The package's golden part: canonical JSON of inputs by feature and outputs by row."""
    return canonical_json(
        {
            "inputs": {name: values_of(column) for name, column in columns.items()},
            "outputs": [[float(v) for v in row] for row in outputs],
        }
    )


def read_golden(data: bytes, inputs: tuple[Input, ...]) -> tuple[Columns, Array]:
    """Inputs and outputs of the golden part. Raises PackageRefused where it is malformed."""
    try:
        found: dict[str, Any] = json.loads(data)
        columns = {i.name: column_of(found["inputs"][i.name], i.type) for i in inputs}
        outputs = np.array(found["outputs"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PackageRefused("golden", f"the golden pairs cannot be read: {error!r}") from None
    if outputs.ndim != 2 or not len(outputs) or {len(c) for c in columns.values()} != {len(outputs)}:
        raise PackageRefused("golden", "the golden pairs are not as many inputs as outputs")
    if len(outputs) > MOST_ROWS:
        raise PackageRefused(
            "golden", f"{len(outputs)} golden pairs are more than the {MOST_ROWS} that are run"
        )
    return columns, outputs


def check_golden(model: LoadedModel, data: bytes) -> None:
    """Runs the pairs alone, in threes and shuffled.

    Raises:
        PackageRefused: the model raises on a pair, its bits depend on the company that a row is in, or the
            outputs are off by more than the tolerance.
    """
    columns, expected = read_golden(data, model.manifest.inputs)
    rows = len(expected)
    together = _run(model, columns, np.arange(rows))
    if together.shape != expected.shape:
        raise PackageRefused(
            "golden", f"the model has {together.shape[1]} outputs a row, the golden pairs {expected.shape[1]}"
        )
    shuffled = np.random.default_rng(0).permutation(rows)
    for size, order in ((1, np.arange(rows)), (3, np.arange(rows)), (rows, shuffled)):
        for start in range(0, rows, size):
            some = order[start : start + size]
            if _run(model, columns, some).tobytes() != together[some].tobytes():
                raise PackageRefused(
                    "golden",
                    f"row {some[0]} scores other bits in a batch of {len(some)} than in one of {rows}",
                )
    worst = first_outside(together, expected, model.manifest.tolerance)
    if worst is not None:
        raise PackageRefused(
            "golden",
            f"row {worst} gives {together[worst].tolist()}, the publisher had {expected[worst].tolist()}",
        )


def first_outside(found: Array, expected: Array, tolerance: Tolerance) -> int | None:
    """The first row that is not within the tolerance of the expected one; NaN and infinity never are."""
    close = np.abs(found - expected) <= tolerance.absolute + tolerance.relative * np.abs(expected)
    off = np.flatnonzero(~(close & np.isfinite(found)).all(axis=1))
    return int(off[0]) if len(off) else None


def _run(model: LoadedModel, columns: Columns, rows: Array) -> Array:
    try:
        return model.outputs(taken(columns, rows), len(rows))
    except PackageRefused:
        raise
    except Exception as error:
        raise PackageRefused(
            "golden", f"the model raises on golden row {rows[0]}: {error!r}"[:500]
        ) from error
