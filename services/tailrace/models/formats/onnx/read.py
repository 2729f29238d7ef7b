"""Reads what an ONNX model from elsewhere takes and gives."""

from __future__ import annotations

from typing import Any, Literal

import onnx

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.class_names import class_text
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.converted import DOUBLE, SINGLE, Converted
from tailrace.models.formats.onnx.run import check_self_contained, parse, session
from tailrace.models.inputs import Input

_FLOATS = {"tensor(double)", "tensor(float)"}


def read_onnx(
    data: bytes, features: tuple[Input, ...], contract: ModelContract
) -> tuple[Converted, tuple[str, ...], str]:
    """How the model is run, its classes in the order of its outputs, and who made it.

    Raises:
        PackageRefused: it is no ONNX model that stands alone, or does not fit the contract.
    """
    model = parse(data)
    check_self_contained(model)
    labels = _class_labels(model.graph)
    if _drop_zipmap(model.graph):
        data = model.SerializeToString(deterministic=True)
    opened = session(data)
    feed, inputs = _inputs(opened, features)
    output = _output(opened, contract)
    classes = _classes(labels, contract)
    tolerance = DOUBLE if output.type == "tensor(double)" else SINGLE
    producer = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed tool"
    converted = Converted(data, "onnx", feed, inputs, "empty", output.name, tolerance)
    return converted, classes, f"ONNX model made by {producer}"


def _inputs(
    opened: Any, features: tuple[Input, ...]
) -> tuple[Literal["columns", "matrix"], tuple[Input, ...]]:
    by_name = {f.name: f for f in features}
    read = opened.get_inputs()
    if all(i.name in by_name for i in read):
        return "columns", tuple(by_name[i.name] for i in read)
    if len(read) > 1 or read[0].type not in _FLOATS:
        foreign = [i.name for i in read if i.name not in by_name]
        raise PackageRefused(
            "schema",
            f"it reads {', '.join(foreign)}, not among the features {', '.join(by_name)}: name its inputs "
            "after features, or give it one matrix of floats",
        )
    texts = [f.name for f in features if f.type == "category"]
    width = read[0].shape[-1] if len(read[0].shape) == 2 else None
    if texts or (isinstance(width, int) and width != len(features)):
        raise PackageRefused(
            "schema",
            f"it reads one matrix of {width} columns, and the features are {', '.join(by_name)}"
            + (f", of which {', '.join(texts)} are no numbers" if texts else "")
            + ": give the rows of the matrix's columns alone, or export the model with one input per feature",
        )
    return "matrix", features


def _output(opened: Any, contract: ModelContract) -> Any:
    """The output with probabilities or values: floats with as many columns as there are classes, or one."""
    widths = {len(contract.classes) or 1, *([1] if contract.task == "binary" else [])}
    fits = [
        o
        for o in opened.get_outputs()
        if o.type in _FLOATS and (len(o.shape) < 2 or not isinstance(o.shape[1], int) or o.shape[1] in widths)
    ]
    named = [o for o in fits if "prob" in o.name.lower()]
    if not fits:
        outputs = ", ".join(f"{o.name} {o.type}{o.shape}" for o in opened.get_outputs())
        columns = " or ".join(map(str, sorted(widths)))
        raise PackageRefused("schema", f"none of its outputs ({outputs}) holds floats in {columns} columns")
    return (named or fits)[0]


def _classes(labels: list[Any], contract: ModelContract) -> tuple[str, ...]:
    if contract.task == "regression":
        return ()
    classes = tuple(class_text(v, contract) for v in labels)
    if sorted(classes) == sorted(contract.classes):
        return classes
    if labels and len(labels) == len(contract.classes) and contract.target.type != "boolean":
        expected = ", ".join(contract.classes)
        raise PackageRefused("schema", f"its classes are {', '.join(classes)}, the contract's {expected}")
    return tuple(contract.classes)


def _class_labels(graph: Any) -> list[Any]:
    """What the graph's classifiers call their classes; empty where it does not say."""
    for node in reversed(graph.node):
        for attribute in node.attribute:
            if attribute.name in ("classlabels_strings", "classlabels_int64s", "classlabels_ints"):
                values = onnx.helper.get_attribute_value(attribute)
                if len(values):
                    return [v.decode() if isinstance(v, bytes) else v for v in values]
    return []


def _drop_zipmap(graph: Any) -> bool:
    """Gives the probabilities as the matrix that they were before a ZipMap made dictionaries of them."""
    zipmaps = [n for n in graph.node if n.op_type == "ZipMap"]
    for node in zipmaps:
        graph.node.remove(node)
        matrix = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, [None, None])
        for output in graph.output:
            if output.name == node.output[0]:
                output.CopyFrom(matrix)
    return bool(zipmaps)
