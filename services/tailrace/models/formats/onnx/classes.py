"""Which class each column of an ONNX model's output is: by its labels, and by the class that it names for each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.class_names import ClassNames
from tailrace.models.columns import Array
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.onnx.outputs import OutputChoice

_CLEAR = 1e-3
"""By how much the largest probability of a row exceeds the others where the row says which column is which class."""


def classes_of(
    outputs: Array,
    labels: Sequence[Any],
    named: Sequence[Any] | None,
    contract: ModelContract,
    names: ClassNames,
    choice: OutputChoice,
) -> tuple[str, ...]:
    """The contract's class of each column, in their order; of a single column the contract's, its positive meant.

    Args:
        outputs: [rows, k] of the holdout.
        labels: what the graph calls the columns; empty where it does not say.
        named: the class that the model names for each row; None where it names none.

    Raises:
        PackageRefused: labels and rows do not say it, or say something else than the contract; says how to choose.
    """
    if contract.task == "regression":
        return ()
    width = outputs.shape[1]
    if choice.classes:
        return _as_chosen(width, contract, choice)
    by_label = tuple(names.of(label) for label in labels)
    if width == 1 and (not labels or sorted(by_label) == sorted(contract.classes)):
        return tuple(contract.classes)
    by_row = {} if named is None or width == 1 else _by_row(outputs, [names.of(label) for label in named])
    classes = list(by_label) if len(by_label) == width else [by_row.get(at) for at in range(width)]
    unnamed = [at for at, each in enumerate(classes) if each is None]
    left = sorted(set(contract.classes) - set(classes))
    if len(unnamed) == len(left) == 1:
        classes[unnamed[0]] = left[0]
    differs = next((at for at, seen in by_row.items() if classes[at] != seen), None)
    if differs is not None:
        raise _unclear(
            f"it calls column {differs + 1} {classes[differs]}, and names {by_row[differs]} for rows in which that "
            "column is the largest",
            contract,
            width,
        )
    if None in classes:
        raise _unclear(f"it does not say which classes its {width} columns are", contract, width)
    if sorted(map(str, classes)) != sorted(contract.classes):
        listed = ", ".join(map(str, classes))
        raise _unclear(
            f"its classes are {listed}, the contract's {', '.join(contract.classes)}", contract, width
        )
    return tuple(map(str, classes))


def _as_chosen(width: int, contract: ModelContract, choice: OutputChoice) -> tuple[str, ...]:
    if unknown := [name for name in choice.classes if name not in contract.classes]:
        raise PackageRefused("schema", f"--class {unknown[0]}: the classes are {', '.join(contract.classes)}")
    if width == 1 and len(choice.classes) == 1 and contract.task == "binary":
        return tuple(contract.classes)
    if len(choice.classes) != width or sorted(choice.classes) != sorted(contract.classes):
        raise _unclear(f"--class was given {len(choice.classes)} times", contract, width)
    return choice.classes


def _by_row(outputs: Array, named: Sequence[str]) -> dict[int, str]:
    """By column, the class that the model names for most of the rows in which the column clearly is the largest."""
    ordered = outputs.argsort(axis=1)
    counts: dict[int, Counter[str]] = {}
    for row, (largest, next_one) in enumerate(ordered[:, :-3:-1].tolist()):
        if outputs[row, largest] - outputs[row, next_one] > _CLEAR:
            counts.setdefault(largest, Counter())[named[row]] += 1
    return {column: seen.most_common(1)[0][0] for column, seen in counts.items()}


def _unclear(what: str, contract: ModelContract, width: int) -> PackageRefused:
    if width == len(contract.classes):
        remedy = f"say --class for each column in order ({', '.join(contract.classes)} are the contract's)"
    elif width == 1 and contract.task == "binary":
        remedy = f"say whose probability it is, such as --class {contract.positive_class}"
    else:
        remedy = (
            f"the contract has {len(contract.classes)}, the output {width} columns; choose another --output"
        )
    return PackageRefused("schema", f"{what}: {remedy}")
