"""What an ONNX graph calls the classes of an output's columns.

The classes stand on the classifier, which may be steps before the output. They are taken from there where every step in
between leaves the columns as they are; behind a step that chooses or orders columns nothing is known of them.
"""

from __future__ import annotations

from typing import Any

import onnx

_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_ORDERING = frozenset(
    {
        *(
            "ArrayFeatureExtractor",
            "Compress",
            "Concat",
            "Gather",
            "GatherElements",
            "GatherND",
            "OneHot",
            "Scan",
        ),
        *("ScatterElements", "ScatterND", "Slice", "Split", "TopK", "Transpose"),
    }
)


def class_labels(graph: Any, output: str) -> tuple[Any, ...]:
    """Labels of the output's columns in order, as texts or numbers; empty where the graph does not say, or says two
    things.
    """
    producers = {name: node for node in graph.node for name in node.output}
    waiting, seen, labels = [output], set(), set()
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        own = _own_labels(node)
        if own:
            labels.add(own)
        elif node.op_type in _ORDERING:
            return ()
        else:
            waiting.extend(node.input)
    return labels.pop() if len(labels) == 1 else ()


def _own_labels(node: Any) -> tuple[Any, ...]:
    for attribute in node.attribute:
        if attribute.name in _LABELS:
            values = onnx.helper.get_attribute_value(attribute)
            if len(values):
                return tuple(v.decode(errors="replace") if isinstance(v, bytes) else v for v in values)
    return ()
