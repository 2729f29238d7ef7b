"""Runs an ONNX model with ONNX Runtime, on one thread."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tailrace.models.columns import Array, Coded, missing, plain
from tailrace.models.errors import PackageRefused, first_line
from tailrace.models.formats.onnx.categories import number_texts, numbers
from tailrace.models.manifest import Manifest

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_TYPES: Mapping[str, type[Any]] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}


class OnnxModel:
    """An ONNX model behind an ONNX Runtime session.

    Attributes:
        coded: inputs that may be given as `CategoricalColumn`, which saves making the texts.

    Raises:
        PackageRefused: the file is not an ONNX model, asks for files or operators from outside, or does not have the
            inputs and the output that the manifest says.
    """

    def __init__(self, data: bytes, manifest: Manifest) -> None:
        model = parse(data)
        check_self_contained(model)
        self._categories = number_texts(model)
        self.coded = frozenset(i.name for i in manifest.inputs if i.called in self._categories)
        self._session = session(model.SerializeToString() if self._categories else data)
        self._output = manifest.output
        self._matrix = manifest.feed == "matrix"
        self._names = [i.name for i in manifest.inputs]
        self._called = {i.name: i.called for i in manifest.inputs}
        self._types = {i.name: _type(i) for i in self._session.get_inputs()}
        if self._matrix:
            if len(self._types) != 1 or not {*self._types.values()} <= {np.float64, np.float32}:
                types = ", ".join(f"{name}: {kind.__name__}" for name, kind in self._types.items())
                raise PackageRefused("schema", f"one matrix of floats was expected as input, not {types}")
            ((self._matrix_name, self._matrix_type),) = self._types.items()
            width, named = self._session.get_inputs()[0].shape[-1], len(self._names)
            if isinstance(width, int) and width != named:
                raise PackageRefused("schema", f"the model reads {width} columns, the manifest names {named}")
        elif set(self._types) != set(self._called.values()):
            read, names = sorted(self._types), sorted(self._called.values())
            raise PackageRefused("schema", f"the model reads {read}, the manifest names {names}")
        if self._output not in [o.name for o in self._session.get_outputs()]:
            raise PackageRefused("schema", f"the model has no output {self._output}")

    def run(self, columns: Mapping[str, Coded], rows: int) -> Array:
        """The raw output, one row each."""
        (output,) = self._session.run([self._output], self._feed(columns, rows))
        return np.asarray(output, dtype=np.float64).reshape(rows, -1)

    def named_classes(self, output: str, columns: Mapping[str, Coded], rows: int) -> list[Any]:
        """What another output, of texts or whole numbers, says of each row."""
        (named,) = self._session.run([output], self._feed(columns, rows))
        return list(np.asarray(named).reshape(rows))

    def _feed(self, columns: Mapping[str, Coded], rows: int) -> dict[str, Array]:
        if not self._matrix:
            return {self._called[name]: self._tensor(name, columns[name]) for name in self._names}
        matrix = np.empty((rows, len(self._names)), dtype=self._matrix_type)
        for at, name in enumerate(self._names):
            matrix[:, at] = columns[name]
        return {self._matrix_name: matrix}

    def _tensor(self, name: str, column: Coded) -> Array:
        """A column as the [rows, 1] tensor that the model reads; a missing category is the empty text."""
        called = self._called[name]
        if called in self._categories:
            return numbers(column, self._categories[called]).reshape(-1, 1)
        values, dtype = plain(column), self._types[called]
        if dtype is np.object_:
            values = values.copy()
            values[missing(values)] = ""
            return values.reshape(-1, 1)
        if dtype in (np.int64, np.int32, np.bool_) and np.isnan(values).any():
            what = "is missing, and the model reads it as a type that has no missing values"
            raise ValueError(f"{name} {what}")
        return np.ascontiguousarray(values, dtype=dtype).reshape(-1, 1)


def session(data: bytes) -> Any:
    """An ONNX Runtime session on one thread.

    Raises:
        PackageRefused: ONNX Runtime does not take the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        # Without its fallback, which would print to stdout and try the same thing again.
        cpu = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(data, options, providers=cpu, enable_fallback=0)
    except Exception as error:  # the runtime's exceptions have no common type
        raise PackageRefused(
            "model", f"ONNX Runtime does not load the model: {first_line(error, 300)}"
        ) from None


def parse(data: bytes) -> Any:
    """The model's protobuf. Raises PackageRefused where the bytes are none."""
    try:
        return onnx.load_from_string(data)
    except Exception as error:
        raise PackageRefused("model", f"the model is not ONNX: {first_line(error, 300)}") from None


def check_self_contained(model: Any) -> None:
    """Raises PackageRefused where the model reads other files or needs operators that are not ONNX's own."""
    if foreign := {o.domain for o in model.opset_import} - _DOMAINS:
        what = f"the model needs operators of {sorted(foreign)}, which are not ONNX's own"
        raise PackageRefused("model", what)
    inside = (tensor for function in model.functions for tensor in _node_tensors(function.node))
    for tensor in itertools.chain(_tensors(model.graph), inside):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            what = f"the model keeps {tensor.name} in another file"
            raise PackageRefused("model", f"{what}: save it as one file (external data off)")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _tensors(graph)


def _type(given: Any) -> type[Any]:
    try:
        return _TYPES[given.type]
    except KeyError:
        raise PackageRefused("schema", f"input {given.name} is a {given.type}, which no feature is") from None
