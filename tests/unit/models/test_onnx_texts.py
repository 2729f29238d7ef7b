"""Categories as numbers: the same outputs, to the bit, as ONNX Runtime gives for the texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.support import models

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.models.formats.onnx.categories import number_texts, numbers
from tailrace.models.formats.onnx.run import OnnxModel

KNOWN = ("red", "", "grün", "red ")


def encoder(name: str, **attributes: Any) -> Any:
    about = {"cats_strings": KNOWN, "zeros": 1} | attributes
    return helper.make_node("OneHotEncoder", [name], [f"{name}_out"], domain="ai.onnx.ml", **about)


def model(*nodes: Any, **graph: Any) -> Any:
    text = helper.make_tensor_value_info("c", TensorProto.STRING, [None, 1])
    out = helper.make_tensor_value_info("c_out", TensorProto.FLOAT, None)
    made = helper.make_graph(list(nodes), "texts", [text], [out], **graph)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def asked(model: Any, column: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["c_out"], {"c": column})[0]


@given(st.lists(st.none() | st.sampled_from(KNOWN) | st.text(max_size=3), min_size=1))
def test_the_numbers_are_encoded_as_the_texts_were(values: list[str | None]) -> None:
    as_texts, as_numbers = model(encoder("c")), model(encoder("c"))
    assert number_texts(as_numbers) == {"c": KNOWN}
    texts = np.array([value or "" for value in values], dtype=object).reshape(-1, 1)
    outputs = asked(as_texts, texts)
    objects = np.array([*values, None], dtype=object)[:-1]
    for column in (CategoricalColumn.of(values), objects):
        assert np.array_equal(outputs, asked(as_numbers, numbers(column, KNOWN).reshape(-1, 1)))


def test_a_text_that_an_encoder_does_not_know_is_refused_as_before() -> None:
    strict = model(encoder("c", zeros=0))
    assert number_texts(strict) == {"c": KNOWN}
    for values, refused in ((["red", None], False), (["red", "blue"], True)):
        column = numbers(CategoricalColumn.of(values), KNOWN).reshape(-1, 1)
        if refused:
            with pytest.raises(Exception, match="Unknown Category"):
                asked(strict, column)
        else:
            assert asked(strict, column).shape == (2, 1, len(KNOWN))


OTHERWISE_USED: dict[str, Callable[[], Any]] = {
    "changed before": lambda: model(
        helper.make_node("StringNormalizer", ["c"], ["d"], case_change_action="LOWER"),
        helper.make_node("OneHotEncoder", ["d"], ["c_out"], domain="ai.onnx.ml", cats_strings=KNOWN),
    ),
    "as what to take": lambda: model(
        helper.make_node("Gather", ["table", "c"], ["d"]),
        helper.make_node("OneHotEncoder", ["d"], ["c_out"], domain="ai.onnx.ml", cats_strings=KNOWN),
    ),
    "in a circle": lambda: model(helper.make_node("Identity", ["c"], ["c"])),
    "lost": lambda: model(helper.make_node("Identity", ["c"], [])),
    "read by another node as well": lambda: model(encoder("c"), helper.make_node("Identity", ["c"], ["d"])),
    "given back": lambda: model(helper.make_node("Identity", ["c"], ["c_out"])),
    "a text twice": lambda: model(encoder("c", cats_strings=("a", "b", "a"))),
    "numbers beside the texts": lambda: model(encoder("c", cats_int64s=(1, 2))),
    "with a value of its own": lambda: model(
        encoder("c"), initializer=[helper.make_tensor("c", TensorProto.STRING, [1, 1], [b"red"])]
    ),
    "said more of": lambda: model(
        encoder("c"), value_info=[helper.make_tensor_value_info("c", TensorProto.STRING, [None, 1])]
    ),
    "of another domain": lambda: model(
        helper.make_node("OneHotEncoder", ["c"], ["c_out"], domain="elsewhere", cats_strings=KNOWN)
    ),
    "read by a graph within": lambda: model(
        encoder("c"),
        helper.make_node(
            "If",
            ["yes"],
            ["d"],
            then_branch=helper.make_graph([helper.make_node("Identity", ["c"], ["e"])], "then", [], []),
            else_branch=helper.make_graph([], "else", [], []),
        ),
    ),
}


@pytest.mark.parametrize("why", OTHERWISE_USED)
def test_a_text_that_is_used_otherwise_stays_one(why: str) -> None:
    made = OTHERWISE_USED[why]()
    before = made.SerializeToString()
    assert number_texts(made) == {}
    assert made.SerializeToString() == before


def test_a_model_of_many_long_lines_is_gone_through_once() -> None:
    """Several inputs lead into one line that has no end; a look at all nodes for each would take minutes."""
    line = [helper.make_node("Identity", [f"n{at}"], [f"n{at + 1}"]) for at in range(30_000)]
    made = model(helper.make_node("Identity", ["c"], ["n0"]), *line)
    for number in range(300):
        made.graph.input.append(helper.make_tensor_value_info(f"t{number}", TensorProto.STRING, [None, 1]))
        made.graph.node.append(helper.make_node("Identity", [f"t{number}"], ["n0"]))
    assert number_texts(made) == {}


def test_texts_that_are_no_texts_are_ones_that_nobody_says() -> None:
    broken = model(encoder("c", cats_strings=(b"red", b"\xff\xfe")))
    (known,) = number_texts(broken).values()
    assert numbers(CategoricalColumn.of(["red", "\ufffd", None]), known).tolist() == [0, -2, -1]


def test_a_converted_pipeline_takes_its_categories_as_codes() -> None:
    built = models.package()
    runner = OnnxModel(built.parts["model"], built.manifest)
    texts = {i.name for i in built.manifest.inputs if i.type == "category"}
    assert texts
    assert runner.coded == texts
    raw = onnx.load_from_string(built.parts["model"])
    assert {i.name for i in raw.graph.input if i.type.tensor_type.elem_type == TensorProto.STRING} == texts
