"""Categories handed to ONNX Runtime as numbers instead of texts, where a model only one-hot encodes them.

A batch has thousands of rows and a few texts. Making a string of the runtime's own for each row, and looking each up in
the encoder's table, is a quarter of the time of a small model. The numbers are those of the encoder's own list, so its
output is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tailrace.avro.columns.categorical_column import UNKNOWN
from tailrace.models.columns import Coded, coded

Categories = tuple[str, ...]

_PASSING = {"Gather", "Identity", "Reshape"}
"""What converters put in between, and what does the same with numbers as with texts."""


def number_texts(model: Any) -> dict[str, Categories]:
    """Changes the model to take whole numbers for those of its text inputs that it only one-hot encodes, in place.

    Returns:
        These inputs, each with the texts that the numbers stand for.
    """
    texts = {}
    uses = Counter(_names(model.graph))
    readers = {name: node for node in model.graph.node for name in node.input if uses[name] == 1}
    for given in model.graph.input:
        if given.type.tensor_type.elem_type != onnx.TensorProto.STRING:
            continue
        encoder = _encoder(readers, given.name)
        if encoder is None:
            continue
        (categories,) = (a for a in encoder.attribute if a.name == "cats_strings")
        known = tuple(text.decode(errors="surrogateescape") for text in categories.strings)
        if not known or len(set(known)) != len(known):
            continue
        encoder.attribute.remove(categories)
        encoder.attribute.append(onnx.helper.make_attribute("cats_int64s", range(len(known))))
        given.type.tensor_type.elem_type = onnx.TensorProto.INT64
        texts[given.name] = known
    return texts


def numbers(column: Coded, known: Categories) -> NDArray[np.int64]:
    """The number of each row's text among the known ones; below zero where it is another. A missing one is the empty
    text.
    """
    codes = coded(column).in_terms_of(known)
    if "" in known:
        codes[codes == UNKNOWN] = known.index("")
    return codes


def _encoder(readers: dict[str, Any], name: str) -> Any:
    """The node that one-hot encodes what has this name, where nothing else is done with it; otherwise None.

    Args:
        readers: by the name of what is used once only, the node that reads it. Taken out on the way, so that a model
            that was made to go round in circles, or in very long lines, is gone through once.
    """
    while name in readers:
        reader = readers.pop(name)
        attributes = sorted(a.name for a in reader.attribute)
        if (reader.op_type, reader.domain) == ("OneHotEncoder", "ai.onnx.ml"):
            return reader if attributes in (["cats_strings"], ["cats_strings", "zeros"]) else None
        is_passing = reader.op_type in _PASSING and not reader.domain
        if not is_passing or reader.input[0] != name or len(reader.output) != 1:
            return None
        (name,) = reader.output
    return None


def _names(graph: Any) -> Iterator[str]:
    """The name of whatever is read, given back or said more of, once for each time, also by graphs within nodes."""
    for named in (*graph.output, *graph.initializer, *graph.value_info):
        yield named.name
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _names(inner)
