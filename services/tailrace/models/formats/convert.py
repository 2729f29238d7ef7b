"""Turns an estimator into the bytes of a model part: ONNX where that is faithful, else skops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import skops.io

from tailrace.errors import TailraceError
from tailrace.models.columns import Array, Columns, padded
from tailrace.models.errors import PackageRefused, first_line
from tailrace.models.formats.compare import MOST_DIFFERENCE, OutputDifference, compare
from tailrace.models.formats.converted import DOUBLE, SINGLE, Converted
from tailrace.models.formats.load import load_model
from tailrace.models.formats.onnx.boosters import boosters
from tailrace.models.formats.onnx.to_onnx import onnx_forms
from tailrace.models.formats.original import Original, parts_of
from tailrace.models.formats.skops.archive import canonical
from tailrace.models.formats.skops.neighbours import with_brute_force
from tailrace.models.manifest import Conversion, Manifest, Tolerance


def convert(
    original: Original,
    columns: Columns,
    rows: int,
    as_manifest: Callable[[Converted], Manifest],
    most: float = MOST_DIFFERENCE,
) -> Converted:
    """The first form that gives what the estimator gives, on the rows given.

    Args:
        as_manifest: makes the manifest under which a form is run.
        most: the tolerance: largest difference of an output, as a share of the outputs' spread.

    Raises:
        TailraceError: neither ONNX nor skops can carry the estimator; says why.
    """
    expected = original.run(columns, rows)
    why: list[str] = []
    for form in onnx_forms(original, why):
        tolerance = DOUBLE if form.double else SINGLE
        converted = Converted(form.data, "onnx", form.feed, form.inputs, "empty", form.output, tolerance)
        try:
            outputs = _run(as_manifest(converted), form.data, columns, rows, expected.shape[1])
        except Exception as error:  # whatever the runtime raises, the next form may do
            why.append(f"{form.precision}: {first_line(error)}")
            continue
        difference = compare(outputs, expected, original.task)
        if difference.of_spread <= most:
            converted = replace(converted, tolerance=_of_scale(tolerance, difference, original.task))
            return _compared(converted, rows, difference, most, f"ONNX in {form.precision} precision")
        why.append(
            f"in {form.precision} precision an output is off by {difference.of_spread:.2g} of its spread "
            f"({difference.spread:.3g}), and the tolerance is {most:.2g}"
        )
    return _skops(original, columns, rows, expected, as_manifest, why[-1] if why else "no converter", most)


def _skops(
    original: Original,
    columns: Columns,
    rows: int,
    expected: Array,
    as_manifest: Callable[[Converted], Manifest],
    reason: str,
    most: float,
) -> Converted:
    if libraries := boosters(original.estimator):
        raise TailraceError(
            f"{original.name} can be published as ONNX only, as all of {' and '.join(libraries)}, and {reason}: change "
            "that (publish takes conversion_tolerance=), or export it to ONNX yourself, `tailrace publish model.onnx`"
        )
    neither = f"{original.name} can be published neither as ONNX ({reason}) nor as skops"
    try:
        carried = with_brute_force(original.estimator, list(parts_of(original.estimator)))
        data = canonical(skops.io.dumps(carried))
        converted = Converted(
            data, "skops", original.feed, original.inputs, original.missing_category, original.method, DOUBLE
        )
        outputs = _run(as_manifest(converted), data, columns, rows, expected.shape[1])
    except PackageRefused as refused:
        raise TailraceError(
            f"{neither} ({refused.reason}): use transformers and estimators of scikit-learn itself, or "
            "export it to ONNX yourself and `tailrace publish model.onnx`"
        ) from None
    except Exception as error:
        raise TailraceError(f"{neither} ({first_line(error)})") from error
    difference = compare(outputs, expected, original.task)
    allowed = 0.0 if carried is original.estimator else most
    if difference.of_spread > allowed:
        raise TailraceError(
            f"{neither} (the archive gives outputs that differ by up to {difference.largest:.2g})"
        )
    return _compared(converted, rows, difference, allowed, f"skops, not ONNX: {reason}")


def _run(manifest: Manifest, data: bytes, columns: Columns, rows: int, width: int) -> Array:
    lengthened, total = padded({i.name: columns[i.name] for i in manifest.inputs}, rows)
    outputs = load_model(manifest, data).run(lengthened, total)[:rows]
    if outputs.shape[1] != width:
        raise ValueError(f"{outputs.shape[1]} outputs a row where the estimator has {width}")
    return outputs


def _compared(
    converted: Converted, rows: int, difference: OutputDifference, most: float, note: str
) -> Converted:
    conversion = Conversion(
        rows=rows,
        max_abs_difference=difference.largest,
        class_agreement=difference.agreement,
        note=note,
        tolerance=most,
        spread=difference.spread,
    )
    return replace(converted, conversion=conversion)


def _of_scale(tolerance: Tolerance, difference: OutputDifference, task: str) -> Tolerance:
    """Of values, the absolute tolerance is in units of their spread."""
    if task != "regression":
        return tolerance
    return Tolerance(absolute=tolerance.absolute * difference.spread, relative=tolerance.relative)
