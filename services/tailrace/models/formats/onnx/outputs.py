"""Which outputs of an ONNX model hold probabilities or values: chosen by what they mean, never by where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.errors import PackageRefused

FLOATS = ("tensor(double)", "tensor(float)")
_LABEL_TYPES = ("tensor(string)", "tensor(int64)", "tensor(int32)", "tensor(bool)")
_JOINED = "tailrace_outputs"


@dataclass(frozen=True)
class OutputChoice:
    """What a publisher says about a model's outputs, where the model does not say it itself.

    Attributes:
        outputs: names of the outputs that count. Several hold one column each.
        classes: the contract's class of each column, in their order. One alone is the class whose probability a single
            column is.
    """

    outputs: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


AS_THE_MODEL_SAYS = OutputChoice()


def chosen_outputs(
    outputs: Sequence[Any], labelled: frozenset[str], contract: ModelContract, choice: OutputChoice
) -> tuple[str, ...]:
    """Names of the outputs that hold the probabilities by class, that of one class, or the values.

    Args:
        outputs: the session's.
        labelled: names of those whose columns the graph calls after classes.

    Raises:
        PackageRefused: no output can be meant, or more than one; names the option that says which.
    """
    floats = {o.name: o for o in outputs if o.type in FLOATS}
    if choice.outputs:
        if unknown := [name for name in choice.outputs if name not in floats]:
            raise PackageRefused(
                "schema",
                f"--output {unknown[0]} is not among its outputs of floats: {_listed(floats.values())}",
            )
        return choice.outputs
    classes = len(contract.classes)
    widths = {classes or 1, *([1] if contract.task == "binary" else [])}
    fits = [o.name for o in floats.values() if _width(o) is None or _width(o) in widths]
    single = [o.name for o in floats.values() if _width(o) == 1]
    if classes and len(single) > 1 and len(single) == len(fits):
        options = " ".join(f"--output {name} --class CLASS" for name in single[:classes])
        raise PackageRefused(
            "schema",
            f"it gives one output a class ({', '.join(single)}): say which is which, {options}, where CLASS is one of "
            f"{', '.join(contract.classes)}",
        )
    if not fits:
        columns = " or ".join(map(str, sorted(widths)))
        raise PackageRefused(
            "schema", f"none of its outputs ({_listed(outputs)}) holds floats in {columns} columns"
        )
    by_name = [name for name in fits if "prob" in name.lower()]
    for meant in (fits, [name for name in fits if name in labelled], by_name if classes else []):
        if len(meant) == 1:
            return (meant[0],)
    raise PackageRefused(
        "schema",
        f"its outputs {' and '.join(fits)} could all be meant: choose one, such as --output {fits[0]}",
    )


def label_output(outputs: Sequence[Any]) -> str | None:
    """The output that names each row's class; None where there is none, or more than one."""
    named = [o.name for o in outputs if o.type in _LABEL_TYPES and _width(o) in (None, 1)]
    return named[0] if len(named) == 1 else None


def join_outputs(model: Any, names: Sequence[str]) -> str:
    """Changes the model to give these outputs of one column side by side, in place; the name of what it gives them as.

    Raises:
        PackageRefused: they are not all of one type.
    """
    types = {o.type.tensor_type.elem_type for o in model.graph.output if o.name in names}
    if len(types) > 1:
        raise PackageRefused("schema", f"its outputs {', '.join(names)} are not of one type")
    shape = helper.make_tensor(f"{_JOINED}_shape", TensorProto.INT64, [2], [-1, 1])
    model.graph.initializer.append(shape)
    columns = [f"{_JOINED}_{number}" for number in range(len(names))]
    for name, column in zip(names, columns, strict=True):
        model.graph.node.append(helper.make_node("Reshape", [name, shape.name], [column]))
    model.graph.node.append(helper.make_node("Concat", columns, [_JOINED], axis=1))
    return _give(model, types.pop(), [None, len(names)])


def complement(model: Any, name: str) -> str:
    """Changes the model to give one less this output, in place; the name of what it gives it as."""
    (kind,) = {o.type.tensor_type.elem_type for o in model.graph.output if o.name == name}
    one = helper.make_tensor(f"{_JOINED}_one", kind, [1], [1.0])
    model.graph.initializer.append(one)
    model.graph.node.append(helper.make_node("Sub", [one.name, name], [_JOINED]))
    return _give(model, kind, [None, 1])


def _give(model: Any, kind: int, shape: list[int | None]) -> str:
    model.graph.output.append(helper.make_tensor_value_info(_JOINED, kind, shape))
    if not any(o.domain == "" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 13))
    return _JOINED


def drop_zipmaps(graph: Any) -> bool:
    """Gives probabilities as the matrix that they were before a ZipMap made dictionaries of them."""
    zipmaps = [n for n in graph.node if n.op_type == "ZipMap"]
    for node in zipmaps:
        graph.node.remove(node)
        matrix = onnx.helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, [None, None])
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(matrix)
    return bool(zipmaps)


def _width(output: Any) -> int | None:
    """Columns of an output, 1 where it is a vector; None where the model leaves them open."""
    if len(output.shape) < 2:
        return 1
    width = output.shape[1]
    return width if isinstance(width, int) else None


def _listed(outputs: Any) -> str:
    return ", ".join(f"{o.name} {o.type}{list(o.shape)}" for o in outputs)
