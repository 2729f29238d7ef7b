"""Reads what an ONNX model from elsewhere takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.converted import DOUBLE, SINGLE, Converted
from tailrace.models.formats.onnx.labels import class_labels
from tailrace.models.formats.onnx.outputs import (
    FLOATS,
    OutputChoice,
    chosen_outputs,
    complement,
    drop_zipmaps,
    join_outputs,
    label_output,
)
from tailrace.models.formats.onnx.run import check_self_contained, parse, session
from tailrace.models.inputs import Input


@dataclass(frozen=True)
class ForeignModel:
    """An ONNX model from elsewhere, as it is run.

    Attributes:
        labels: what the graph calls the columns of its output, in order; empty where it does not say.
        label_output: the output that names each row's class, if there is one.
        producer: who made it.
    """

    converted: Converted
    labels: tuple[Any, ...]
    label_output: str | None
    producer: str


def read_onnx(
    data: bytes, features: tuple[Input, ...], contract: ModelContract, choice: OutputChoice
) -> ForeignModel:
    """How the model is run, and what its outputs are.

    Raises:
        PackageRefused: it is no ONNX model that stands alone, does not fit the contract, or does not say which of its
            outputs is meant.
    """
    model = parse(data)
    check_self_contained(model)
    labels = {o.name: class_labels(model.graph, o.name) for o in model.graph.output}
    before = [o.name for o in model.graph.output]
    changed = drop_zipmaps(model.graph)
    labels = {o.name: labels[name] for o, name in zip(model.graph.output, before, strict=True)}
    opened = session(model.SerializeToString(deterministic=True) if changed else data)
    feed, inputs = _inputs(opened, features)
    labelled = frozenset(name for name, each in labels.items() if each)
    names = chosen_outputs(opened.get_outputs(), labelled, contract, _renamed(choice, before, model))
    types = {o.name: o.type for o in opened.get_outputs()}
    output, own_labels = names[0], labels[names[0]]
    if len(names) > 1:
        output, own_labels, changed = join_outputs(model, names), (), True
    if _is_other_side(choice, contract, names):
        output, own_labels, changed = complement(model, output), (), True
    converted = Converted(
        model.SerializeToString(deterministic=True) if changed else data,
        "onnx",
        feed,
        inputs,
        "empty",
        output,
        DOUBLE if types[names[0]] == "tensor(double)" else SINGLE,
    )
    producer = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed tool"
    label = label_output(opened.get_outputs()) if contract.task != "regression" else None
    return ForeignModel(converted, own_labels, label, f"ONNX model made by {producer}")


def _renamed(choice: OutputChoice, before: list[str], model: Any) -> OutputChoice:
    """The choice by the names that outputs have without their ZipMaps."""
    names = dict(zip(before, (o.name for o in model.graph.output), strict=True))
    return OutputChoice(tuple(names.get(name, name) for name in choice.outputs), choice.classes)


def _is_other_side(choice: OutputChoice, contract: ModelContract, names: tuple[str, ...]) -> bool:
    """Whether a single output is the probability of the class that is not the positive one."""
    return (
        contract.task == "binary"
        and len(names) == len(choice.classes) == 1
        and choice.classes[0] in contract.classes
        and choice.classes[0] != contract.positive_class
    )


def _inputs(
    opened: Any, features: tuple[Input, ...]
) -> tuple[Literal["columns", "matrix"], tuple[Input, ...]]:
    by_name = {f.name: f for f in features} | {f.called: f for f in features}
    read = opened.get_inputs()
    if all(i.name in by_name for i in read):
        return "columns", tuple(
            by_name[i.name].model_copy(update=_called(by_name[i.name], i.name)) for i in read
        )
    if len(read) > 1 or read[0].type not in FLOATS:
        foreign = [i.name for i in read if i.name not in by_name]
        raise PackageRefused(
            "schema",
            f"it reads {', '.join(foreign)}, not among the features {', '.join(f.name for f in features)}: name its "
            "inputs after features, or give it one matrix of floats",
        )
    texts = [f.name for f in features if f.type == "category"]
    width = read[0].shape[-1] if len(read[0].shape) == 2 else None
    if texts or (isinstance(width, int) and width != len(features)):
        raise PackageRefused(
            "schema",
            f"it reads one matrix of {width} columns, and the features are {', '.join(f.name for f in features)}"
            + (f", of which {', '.join(texts)} are no numbers" if texts else "")
            + ": give the rows of the matrix's columns alone, or export the model with one input per feature",
        )
    return "matrix", features


def _called(feature: Input, name: str) -> dict[str, str | None]:
    return {"column": None if name == feature.name else name}
