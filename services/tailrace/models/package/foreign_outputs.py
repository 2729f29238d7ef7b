"""What an ONNX model from elsewhere gives on the holdout, and what that means."""

from __future__ import annotations

import numpy as np

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.class_names import ClassNames
from tailrace.models.columns import Array, padded, plain
from tailrace.models.errors import PackageRefused, first_line
from tailrace.models.formats.onnx.classes import classes_of
from tailrace.models.formats.onnx.outputs import OutputChoice
from tailrace.models.formats.onnx.read import ForeignModel
from tailrace.models.formats.onnx.run import OnnxModel
from tailrace.models.manifest import Manifest
from tailrace.models.package.rows import LabelledRows

_SUM_OFF = 1e-3
_EDGE_OFF = 1e-6


def outputs_and_classes(
    foreign: ForeignModel,
    manifest: Manifest,
    held: LabelledRows,
    contract: ModelContract,
    names: ClassNames,
    choice: OutputChoice,
) -> tuple[Array, tuple[str, ...]]:
    """What the model gives on the rows [rows, k], and the contract's classes in the order of its columns.

    Raises:
        PackageRefused: it does not say which class a column is, or contradicts itself.
        TailraceError: it does not run on the rows.
    """
    rows = len(held)
    try:
        model = OnnxModel(foreign.converted.data, manifest)
        columns = {i.name: plain(held.columns[i.name]) for i in foreign.converted.inputs}
        lengthened, total = padded(columns, rows)
        outputs = model.run(lengthened, total)[:rows]
        named = None
        if foreign.label_output is not None:
            named = model.named_classes(foreign.label_output, lengthened, total)[:rows]
    except PackageRefused:
        raise
    except Exception as error:  # a foreign model may raise anything
        raise TailraceError(
            f"the ONNX model does not run on the holdout: {first_line(error, 500)}"
        ) from error
    width = outputs.shape[1]
    if contract.task == "regression" and width != 1:
        raise PackageRefused("schema", f"{manifest.output} gives {width} values a row, one was expected")
    return outputs, classes_of(outputs, foreign.labels, named, contract, names, choice)


def refuse_raw_scores(outputs: Array, contract: ModelContract) -> None:
    """Raises TailraceError where outputs are no numbers, or should be probabilities and are none."""
    if missing := int((~np.isfinite(outputs).all(axis=1)).sum()):
        raise TailraceError(
            f"the ONNX model gives NaN or infinity for {missing:,} of {len(outputs):,} rows of the holdout: have it "
            "take missing values, or say in the contract what stands for them (missing: impute)"
        )
    if contract.task == "regression":
        return
    low, high = float(outputs.min()), float(outputs.max())
    what = None
    if low < -_EDGE_OFF or high > 1 + _EDGE_OFF:
        what = f"raw scores from {low:.4g} to {high:.4g}"
    elif outputs.shape[1] > 1 and np.abs(outputs.sum(axis=1) - 1).max() > _SUM_OFF:
        what = "outputs that do not add up to 1"
    if what is not None:
        raise TailraceError(
            f"the ONNX model gives {what}, where {contract.target.name} needs probabilities: export it with its "
            "sigmoid or softmax at the end, or choose another output with --output"
        )
