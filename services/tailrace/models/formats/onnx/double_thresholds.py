"""LightGBM's trees in ONNX with thresholds in double precision, in which LightGBM compares.

Its converter writes them in single precision. A threshold lies in the middle between two values of the training rows,
and behind a step that computes (a StandardScaler) a value is next to one often enough to take the other branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_WEIGHTS = ("class_weights", "target_weights", "base_values")


def compare_in_double(model: Any, booster: Any) -> None:
    """Replaces the numbers of the model's trees, and has its outputs in single precision, as such trees give them.

    Args:
        model: ONNX, converted for inputs in double precision.
        booster: LightGBM's, the only trees in the model.

    Raises:
        NotImplementedError: a threshold of the model is not known to be one of the booster's.
    """
    from onnx import TensorProto, helper, numpy_helper

    exact = _thresholds(booster)
    for node in model.graph.node:
        if node.op_type not in _TREES:
            continue
        numbers = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        doubles = {name: numbers[name] for name in _WEIGHTS if name in numbers}
        doubles["nodes_values"] = [
            _threshold(exact, *place) if place[-1] == b"BRANCH_LEQ" else place[2]
            for place in zip(
                numbers["nodes_treeids"],
                numbers["nodes_featureids"],
                numbers["nodes_values"],
                numbers["nodes_modes"],
                strict=True,
            )
        ]
        kept = [a for a in node.attribute if a.name not in doubles and a.name != "nodes_hitrates"]
        for name, values in doubles.items():
            tensor = numpy_helper.from_array(np.array(values, np.float64), name)
            kept.append(helper.make_attribute(f"{name}_as_tensor", tensor))
        del node.attribute[:]
        node.attribute.extend(kept)
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == TensorProto.DOUBLE:
            output.type.tensor_type.elem_type = TensorProto.FLOAT


def _threshold(
    exact: dict[tuple[int, int, float], set[float]], tree: int, feature: int, single: float, _: bytes
) -> float:
    candidates = exact.get((tree, feature, single), set())
    if len(candidates) != 1:
        raise NotImplementedError(
            f"a threshold of tree {tree}, {single!r}, is none of the booster's, or two in single precision"
        )
    return next(iter(candidates))


def _thresholds(booster: Any) -> dict[tuple[int, int, float], set[float]]:
    """By tree, feature and the threshold in single precision."""
    exact: dict[tuple[int, int, float], set[float]] = {}
    for number, tree in enumerate(booster.dump_model()["tree_info"]):
        for node in _nodes(tree["tree_structure"]):
            if node["decision_type"] == "<=":
                place = number, node["split_feature"], float(np.float32(node["threshold"]))
                exact.setdefault(place, set()).add(node["threshold"])
    return exact


def _nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that branch."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if "threshold" in node:
            yield node
            waiting += [node["left_child"], node["right_child"]]
