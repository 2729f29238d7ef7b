"""Which class a column of an ONNX model is: by labels, by rows, or by what the publisher says."""

from __future__ import annotations

from types import SimpleNamespace as NodeArg
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from tests.support.published_models import contract, converted, from_onnx, rows

from tailrace.errors import TailraceError
from tailrace.files.data_mapping import DataMapping
from tailrace.models.class_names import ClassNames
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.onnx import to_onnx as forms
from tailrace.models.formats.onnx.classes import classes_of
from tailrace.models.formats.onnx.labels import class_labels
from tailrace.models.formats.onnx.outputs import OutputChoice, label_output
from tailrace.models.formats.original import Original
from tailrace.models.inputs import Input
from tailrace.models.package.build import build_from_onnx

GRADES = contract(target="{name: y, categories: [a, b, c]}")
NOTHING = OutputChoice()


def test_labels_come_from_the_classifier_before_the_output_alone() -> None:
    graph = onnx.load_from_string(converted(lambda y: np.where(y, "yes", "no"), False)).graph
    assert class_labels(graph, "probabilities") == ("no", "yes")
    parted = onnx.load_from_string(converted(lambda y: y.astype(int), "columns")).graph
    assert class_labels(parted, "i0") == ()  # one of the columns, and which it is nobody says


def test_rows_say_what_labels_do_not() -> None:
    outputs = np.eye(3)[[0, 1, 2, 0]] * 0.9 + 0.03
    named = ["c", "a", "b", "c"]
    assert classes_of(outputs, (), named, GRADES, ClassNames(GRADES), NOTHING) == ("c", "a", "b")
    seldom = classes_of(outputs[:2], (), named[:2], GRADES, ClassNames(GRADES), NOTHING)
    assert seldom == ("c", "a", "b")  # what is left is the last one's
    with pytest.raises(PackageRefused, match="does not say which classes"):
        classes_of(outputs[:1], (), named[:1], GRADES, ClassNames(GRADES), NOTHING)


def test_labels_and_rows_must_not_contradict_each_other() -> None:
    outputs = np.eye(3)[[0, 1, 2]] * 0.9 + 0.03
    with pytest.raises(PackageRefused, match="calls column 1 a, and names b for rows"):
        classes_of(outputs, ("a", "b", "c"), ["b", "a", "c"], GRADES, ClassNames(GRADES), NOTHING)
    in_doubt = np.full((3, 3), 1 / 3)
    assert classes_of(in_doubt, ("c", "b", "a"), ["a"] * 3, GRADES, ClassNames(GRADES), NOTHING) == (
        "c",
        "b",
        "a",
    )


@pytest.mark.parametrize(
    ("classes", "words"),
    [(("a", "b", "d"), "--class d: the classes are a, b, c"), (("a", "b"), "say --class for each column")],
)
def test_a_choice_must_be_one_of_the_contracts(classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(PackageRefused, match=words):
        classes_of(np.eye(3), (), None, GRADES, ClassNames(GRADES), OutputChoice(classes=classes))


def test_an_output_that_is_not_there_is_named_with_those_that_are() -> None:
    data = converted(lambda y: y, False)
    with pytest.raises(TailraceError, match=r"--output risk is not among.*probabilities"):
        from_onnx(data, OutputChoice(("risk",)))
    with pytest.raises(TailraceError, match="--output label is not among"):
        from_onnx(data, OutputChoice(("label",)))


def test_columns_behind_a_calibration_are_named_by_rows() -> None:
    x, y = rows()
    fitted = CalibratedClassifierCV(LinearSVC(), cv=2).fit(x.to_numpy(), np.where(y, "a-bad", "z-good"))
    data = to_onnx(fitted, x.to_numpy(), options={id(fitted): {"zipmap": False}}).SerializeToString()
    texts = contract(target="{name: y, categories: [z-good, a-bad], positive: a-bad}")
    built = build_from_onnx(data, x, np.where(y, "a-bad", "z-good"), texts)
    assert built.manifest.classes == ("a-bad", "z-good")
    assert built.manifest.holdout.metrics["auc"] == pytest.approx(1.0)


def test_classes_are_called_as_the_data_file_has_them_where_that_tells_all_of_them() -> None:
    yes = ClassNames(contract(), "\"Churn?\" = 'Yes'", ["Yes", "No", "Yes"])
    assert [yes.of(v) for v in ("Yes", "No", True, 0)] == ["true", "false", "true", "false"]
    second = ClassNames(contract(), "rating = 2", np.array([1, 2]))
    assert [second.of(v) for v in (1, 2, 2.0)] == ["false", "true", "2.0"]
    coded = ClassNames(contract(), "\"Churn?\" = 'Yes'", [0, 1])  # numbers of the user's own
    assert [coded.of(v) for v in (0, 1)] == ["false", "true"]


def test_an_imputer_converts_for_the_operators_that_boosters_converters_write(monkeypatch: Any) -> None:
    """LightGBM's and XGBoost's converters write operators of 2021, and so has an imputer before them."""
    x, y = rows()
    x = x.astype(np.float64)
    x.loc[::7, "a"] = np.nan
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(x.to_numpy(), y)
    monkeypatch.setattr(forms, "boosters", lambda _: ["lightgbm"])
    monkeypatch.setattr(forms, "register", lambda _: None)
    why: list[str] = []
    form = next(forms.onnx_forms(Original(fitted, (Input(name="a", type="number"),), "binary"), why), None)
    assert form is not None, why
    model = onnx.load_from_string(form.data)
    assert {o.domain: o.version for o in model.opset_import}[""] <= forms.OPERATORS[""]


def test_inputs_may_be_called_as_the_data_file_has_them() -> None:
    node = helper.make_node("Sigmoid", ["Monthly Charges"], ["risk"])
    kinds = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 1]) for n in ("Monthly Charges", "risk")
    ]
    made = helper.make_model(
        helper.make_graph([node], "g", kinds[:1], kinds[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    x, y = rows()
    named = pd.DataFrame({"Monthly Charges": x.a})
    mapping = DataMapping.model_validate({"model": "m", "time": "at", "columns": {"a": "Monthly Charges"}})
    for frame in (x, named):
        built = build_from_onnx(made.SerializeToString(), frame, y, contract(), mapping=mapping)
        assert [(i.name, i.called) for i in built.manifest.inputs] == [("a", "Monthly Charges")]
        assert built.manifest.holdout.metrics["auc"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kinds", "label"),
    [
        (["tensor(float)"], None),
        (["tensor(float)", "tensor(int64)"], "o1"),
        (["tensor(string)", "tensor(float)"], "o0"),
        (
            ["tensor(int64)", "tensor(string)", "tensor(float)"],
            None,
        ),  # which of them is the class nobody says
    ],
)
def test_a_row_s_class_is_in_the_one_output_that_may_hold_it(kinds: list[str], label: str | None) -> None:
    outputs = [NodeArg(name=f"o{number}", type=kind, shape=[None]) for number, kind in enumerate(kinds)]
    assert label_output(outputs) == label
