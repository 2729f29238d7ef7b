"""The steps between the checks and the event: filling in, scoring, choosing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.support.scoring import CONTRACT, REQUEST

from tailrace.contracts.language.load import load_contract
from tailrace.models.columns import Array, Columns
from tailrace.models.formats.onnx.run import OnnxModel
from tailrace.models.predictions import Predictions
from tailrace.scorer.steps.model import score
from tailrace.scorer.steps.policy import Policy
from tailrace.testing.formula_model import formula_model

CREDIT = load_contract(CONTRACT)


class Picky:
    """Raises where a value is 666, and gives NaN where it is 13."""

    def __init__(self) -> None:
        self.calls = 0

    def run(self, columns: Columns, rows: int) -> Array:
        self.calls += 1
        values = columns["debt_ratio"]
        if (values == 666).any():
            raise RuntimeError("poisoned")
        return np.where(values == 13, np.nan, values / 1000).reshape(rows, 1)


def columns_of(ratios: list[float]) -> dict[str, Any]:
    rows = len(ratios)
    texts = np.array(["a"] * rows, dtype=object)
    return {
        "income": np.ones(rows),
        "debt_ratio": np.array(ratios),
        "age": np.ones(rows),
        "purpose": texts,
        "grade": texts,
    }


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0, 13.0, 666.0]), min_size=1, max_size=80))
@settings(max_examples=60)
def test_rows_that_a_model_cannot_score_fail_alone(ratios: list[float]) -> None:
    scored = score(formula_model(CREDIT, 1, Picky()), columns_of(ratios), len(ratios))
    assert scored.failed.keys() == {row for row, ratio in enumerate(ratios) if ratio in (13.0, 666.0)}
    assert scored.outputs.score is not None
    for row, ratio in enumerate(ratios):
        if row not in scored.failed:
            assert scored.outputs.score[row] == ratio / 1000


def test_one_bad_row_costs_few_calls() -> None:
    runner = Picky()
    ratios = [1.0] * 5000
    ratios[1234] = 666.0
    scored = score(formula_model(CREDIT, 1, runner), columns_of(ratios), len(ratios))
    assert list(scored.failed) == [1234]
    assert "RuntimeError: poisoned" in scored.failed[1234]
    assert runner.calls <= 2 * 13 + 1


PAIR = load_contract(
    """
model: pair
owner: {team: t}
features: {index: {type: number}, width: {type: number}}
target: {name: bad, type: boolean}
"""
)


def looking_up() -> bytes:
    """An ONNX model: the entry of a table at ``index``, plus the logarithm of ``width``. ONNX Runtime fails on an index
    beyond the table, and has no number for the logarithm of a negative one.
    """
    columns = helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, 2])
    out = helper.make_tensor_value_info("p", TensorProto.DOUBLE, [None, 1])
    nodes = [
        helper.make_node("Split", ["x"], ["index", "width"], axis=1, num_outputs=2),
        helper.make_node("Cast", ["index"], ["at"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "at"], ["entry"]),
        helper.make_node("Log", ["width"], ["log"]),
        helper.make_node("Add", ["entry", "log"], ["p"]),
    ]
    table = numpy_helper.from_array(np.array([0.1, 0.2, 0.3]), "table")
    graph = helper.make_graph(nodes, "looking-up", [columns], [out], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def test_rows_on_which_onnx_runtime_fails_or_has_no_number_fail_alone() -> None:
    about = {"feed": "matrix", "output": "p"}
    runner = OnnxModel(looking_up(), formula_model(PAIR, 1, Picky(), **about).manifest)
    model = formula_model(PAIR, 1, runner, **about)
    index = np.array([float(row % 3) for row in range(300)])
    width = np.ones(300)
    index[[5, 77, 299]], width[[5, 130]] = 666.0, -1.0
    scored = score(model, {"index": index, "width": width}, 300)
    assert scored.failed.keys() == {5, 77, 130, 299}
    assert "the model raises" in scored.failed[77]
    assert "out of data bounds" in scored.failed[77]
    assert scored.failed[130] == "the model's output is not a finite number"
    assert scored.outputs.score is not None
    good = [row for row in range(300) if row not in scored.failed]
    assert scored.outputs.score[good].tolist() == [(0.1, 0.2, 0.3)[row % 3] for row in good]


def request_columns(**changes: Any) -> dict[str, Array]:
    values = {k: v for k, v in (REQUEST | changes).items() if k in CREDIT.features or k in CREDIT.context}
    columns: dict[str, Array] = {}
    for name, value in values.items():
        if isinstance(value, str) or name == "note":
            columns[name] = np.array([value], dtype=object)
        else:
            columns[name] = np.array([np.nan if value is None else float(value)])
    return columns


def chosen(score: float, **changes: Any) -> tuple[str | None, str | None]:
    policy = Policy(CREDIT)
    outputs = Predictions(np.array([[1 - score, score]]), np.array([score]), None, ("false", "true"))
    (index,) = policy.choose(request_columns(**changes), outputs, 1).tolist()
    return policy.choices[index]


@pytest.mark.parametrize(
    ("score", "changes", "expected"),
    [
        (0.29, {}, ("approve", "small-and-safe")),
        (0.3, {}, ("refer", "refer-4")),
        (0.29, {"amount": 50_000.0}, ("refer", "refer-4")),
        (0.29, {"amount": None}, ("refer", "refer-4")),
        (0.4, {"vip": True}, ("approve", "approve-3")),
        (0.55, {"vip": True}, ("refer", "refer-4")),
        (0.55, {"vip": None}, ("refer", "refer-4")),
        (0.6, {}, ("refuse", "refuse-5")),
    ],
)
def test_the_first_rule_that_matches_decides(
    score: float, changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert chosen(score, **changes) == expected


MINIMAL = "{{model: m, owner: {{team: t}}, features: {{x: {{type: number}}}}, target: {target}{policy}}}"


def test_without_a_policy_the_action_is_the_class() -> None:
    policy = Policy(load_contract(MINIMAL.format(target="{name: y, type: boolean}", policy="")))
    outputs = Predictions(np.array([[0.2, 0.8]] * 3), np.array([0.8] * 3), None, ("false", "true"))
    assert policy.choose({"x": np.ones(3)}, outputs, 3).tolist() == [0, 0, 0]
    assert policy.choices == [(None, None)]


def test_a_value_without_a_policy_calls_for_no_action() -> None:
    policy = Policy(load_contract(MINIMAL.format(target="{name: y, type: number}", policy="")))
    assert policy.choices == [("none", None)]


def test_a_policy_over_values() -> None:
    contract = load_contract(
        MINIMAL.format(target="{name: y, type: number}", policy=", policy: [{when: 'value > 10', do: sell}]")
    )
    policy = Policy(contract)
    outputs = Predictions(None, None, np.array([9.0, 11.0]), ())
    choices = [policy.choices[i] for i in policy.choose({"x": np.ones(2)}, outputs, 2).tolist()]
    assert choices == [("none", None), ("sell", "sell-1")]


def test_with_several_classes_the_score_is_that_of_the_predicted_one() -> None:
    contract = load_contract(
        MINIMAL.format(
            target="{name: y, categories: [a, b, c]}", policy=", policy: [{when: 'score < 0.5', do: ask}]"
        )
    )
    policy = Policy(contract)
    outputs = Predictions(np.array([[0.4, 0.3, 0.3], [0.1, 0.8, 0.1]]), None, None, ("a", "b", "c"))
    choices = [policy.choices[i] for i in policy.choose({"x": np.ones(2)}, outputs, 2).tolist()]
    assert choices == [("ask", "ask-1"), (None, None)]
    assert outputs.predicted_class is not None
    assert outputs.predicted_class.tolist() == ["a", "b"]


def test_a_policy_of_constants() -> None:
    contract = load_contract(
        MINIMAL.format(target="{name: y, type: boolean}", policy=", policy: [{when: 'TRUE', do: go}]")
    )
    policy = Policy(contract)
    outputs = Predictions(np.array([[0.2, 0.8]] * 3), np.array([0.8] * 3), None, ("false", "true"))
    assert policy.choose({"x": np.ones(3)}, outputs, 3).tolist() == [0, 0, 0]


def test_running_out_of_memory_is_no_row_s_fault() -> None:
    class Starved:
        def run(self, columns: Columns, rows: int) -> Array:
            raise MemoryError

    with pytest.raises(MemoryError):
        score(formula_model(CREDIT, 1, Starved()), columns_of([1.0, 2.0]), 2)
