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
from tailrace.signing.canonical import canonical_json

MOST_ROWS = 256


def golden_bytes(columns: Columns, outputs: Array) -> bytes:
    """The package's golden part: canonical JSON of inputs by feature and outputs by row."""
    inputs = {name: values_of(column) for name, column in columns.items()}
    return canonical_json({"inputs": inputs, "outputs": outputs.tolist()})


def read_golden(data: bytes, inputs: tuple[Input, ...]) -> tuple[Columns, Array]:
    """Inputs and outputs of the golden part. Raises PackageRefused where it is malformed."""
    try:
        pairs: dict[str, Any] = json.loads(data)
        columns = {i.name: column_of(pairs["inputs"][i.name], i.type) for i in inputs}
        outputs = np.array(pairs["outputs"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PackageRefused("golden", f"the golden pairs cannot be read: {error!r}") from None
    if outputs.ndim != 2 or not len(outputs) or {len(c) for c in columns.values()} != {len(outputs)}:
        raise PackageRefused("golden", "the golden pairs are not as many inputs as outputs")
    if len(outputs) > MOST_ROWS:
        what = f"{len(outputs)} golden pairs are more than the {MOST_ROWS} that are run"
        raise PackageRefused("golden", what)
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
        what = f"the model has {together.shape[1]} outputs a row, the golden pairs {expected.shape[1]}"
        raise PackageRefused("golden", what)
    shuffled = np.random.default_rng(0).permutation(rows)
    for size, order in ((1, np.arange(rows)), (3, np.arange(rows)), (rows, shuffled)):
        for start in range(0, rows, size):
            batch = order[start : start + size]
            if _run(model, columns, batch).tobytes() != together[batch].tobytes():
                what = f"row {batch[0]} scores other bits in a batch of {len(batch)} than in one of {rows}"
                raise PackageRefused("golden", what)
    tolerance = model.manifest.tolerance
    close = np.abs(together - expected) <= tolerance.absolute + tolerance.relative * np.abs(expected)
    off = np.flatnonzero(~(close & np.isfinite(together)).all(axis=1))  # NaN and infinity never are close
    if len(off):
        row, given, wanted = off[0], together[off[0]].tolist(), expected[off[0]].tolist()
        raise PackageRefused("golden", f"row {row} gives {given}, the publisher had {wanted}")


def _run(model: LoadedModel, columns: Columns, rows: Array) -> Array:
    try:
        return model.outputs(taken(columns, rows), len(rows))
    except PackageRefused:
        raise
    except Exception as error:
        what = f"the model raises on golden row {rows[0]}: {error!r}"
        raise PackageRefused("golden", what[:500]) from error
