"""Kinds of models that people have, and what becomes of each when it is published.

``python -m tests.support.published_models > docs/published-models.md`` makes the page of this table, and
tests/contract/test_published_models.py tries each line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pandas as pd
import scipy.sparse
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.files.data_mapping import DataMapping
from tailrace.models.formats.onnx.outputs import OutputChoice
from tailrace.models.package.build import BuildChecks, Package, build_from_onnx, build_package

ROWS = 200
_HEAD = """\
# Models that are published, and models that are refused

Made by `python -m tests.support.published_models > docs/published-models.md`; do not edit.
`tests/contract/test_published_models.py` tries each line. [models.md](models.md) says how a model is published.

A refusal names what is wrong and what to do. The words here are a part of it.
"""


class ModelKind(NamedTuple):
    """Attributes:
    name: what people have, in Markdown.
    publish: publishes it.
    refused: words of the refusal; empty where it is published.
    becomes: what it is published as: ``onnx`` or ``skops``.
    """

    name: str
    publish: Callable[[], Package]
    refused: str = ""
    becomes: str = "onnx"

    @property
    def outcome(self) -> str:
        form = {"onnx": "ONNX", "skops": "skops archive"}[self.becomes]
        return f"refused: {self.refused}" if self.refused else f"published as {form}"


def contract(
    features: str = "{a: {type: number}}", target: str = "{name: y, type: boolean}"
) -> ModelContract:
    return load_contract(f"model: m\nowner: {{team: t}}\ntarget: {target}\nfeatures: {features}")


def rows() -> tuple[pd.DataFrame, Any]:
    values = np.random.default_rng(0).normal(size=(ROWS, 1)).astype(np.float32)
    return pd.DataFrame(values, columns=["a"]), values[:, 0] > 0


def coded() -> tuple[pd.DataFrame, Any]:
    """A column of whole numbers that are categories."""
    codes = np.random.default_rng(0).integers(1, 4, ROWS)
    return pd.DataFrame({"r": codes}), codes == 3


CODED = '{r: {categories: ["1", "2", "3"], missing: pass}}'


def encoded(last: Any = None, **options: Any) -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore", **options)
    columns = ColumnTransformer([("r", encoder, ["r"])], sparse_threshold=1.0)
    return make_pipeline(columns, last or LogisticRegression())


def from_frame(estimator: Any, **more: Any) -> Package:
    x, y = rows()
    return build_package(estimator.fit(x, y), x, y, contract(), **more)


def of_codes(kind: type, *, was_fitted: bool, last: Any = None) -> Package:
    x, y = coded()
    x = x.astype(kind)
    estimator = encoded(last)
    return build_package(estimator.fit(x, y) if was_fitted else estimator, x, y, contract(CODED))


def with_missing(missing: Any) -> Package:
    x, y = coded()
    texts = x.r.astype(str).astype(object)
    texts[::5] = missing
    x = pd.DataFrame({"r": texts})
    return build_package(encoded().fit(x, y), x, y, contract(CODED))


def under_the_files_names() -> Package:
    x, y = rows()
    frame, answers = x.rename(columns={"a": "Monthly Charges"}), np.where(y, "Yes", "No")
    mapping = DataMapping.model_validate(
        {
            "model": "m",
            "target": "\"Churn?\" = 'Yes'",
            "time": "At",
            "columns": {"a": "Monthly Charges"},
        }
    )
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, answers)
    return build_package(pipeline, frame, answers, contract(), mapping=mapping)


def with_truth(change: Callable[[Any], Any], estimator: Any = None, **more: Any) -> Package:
    x, y = rows()
    return build_package(estimator or LogisticRegression(), x, change(y), contract(), **more)


def twice() -> Package:
    x, y = rows()
    return build_package(LogisticRegression(), pd.concat([x, x], axis=1), y, contract())


def from_sparse() -> Package:
    x, y = rows()
    matrix = scipy.sparse.csr_matrix(x.to_numpy())
    return build_package(LogisticRegression().fit(matrix, y), matrix, y, contract())


def backwards(values: bool, **more: Any) -> Package:
    x, y = rows()
    late = (x, ~y)
    if not values:
        return build_package(LogisticRegression().fit(x, y), x, y, contract(), holdout=late, **more)
    number = contract(target="{name: y, type: number}")
    return build_package(Ridge().fit(x, x.a), x, x.a, number, holdout=(x, -x.a), **more)


def from_onnx(
    data: bytes, choice: OutputChoice | None = None, target: str = "{name: y, type: boolean}"
) -> Package:
    x, y = rows()
    more = {} if choice is None else {"choice": choice}
    return build_from_onnx(data, x, y, contract(target=target), **more)


def converted(labels: Any, zipmap: Any) -> bytes:
    x, y = rows()
    estimator = LogisticRegression().fit(x.to_numpy(), labels(y))
    model = to_onnx(estimator, x.to_numpy(), options={id(estimator): {"zipmap": zipmap}})
    return bytes(model.SerializeToString())


_MORE: dict[str, dict[str, Any]] = {"Concat": {"axis": 1}}


def graph(outputs: dict[str, list[tuple[str, list[str]]]], widths: dict[str, int]) -> bytes:
    """An ONNX model without labels: for each output the operators that make it of the input ``a``."""
    nodes = [
        helper.make_node(operator, inputs, [name if last else f"{name}_{at}"], **_MORE.get(operator, {}))
        for name, steps in outputs.items()
        for at, (operator, inputs) in enumerate(steps)
        for last in (at == len(steps) - 1,)
    ]
    given = helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, 1])
    results = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, w]) for n, w in widths.items()]
    ten = helper.make_tensor("ten", TensorProto.FLOAT, [1], [10.0])
    model = helper.make_model(
        helper.make_graph(nodes, "g", [given], results, [ten]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


RISK: list[tuple[str, list[str]]] = [("Sigmoid", ["a"])]
SAFE: list[tuple[str, list[str]]] = [("Neg", ["a"]), ("Sigmoid", ["safe_0"])]
BOTH: list[tuple[str, list[str]]] = [
    ("Neg", ["a"]),
    ("Sigmoid", ["both_0"]),
    ("Sigmoid", ["a"]),
    ("Concat", ["both_1", "both_2"]),
]
TEXTS = converted(lambda y: np.where(y, "default", "paid"), False)
COLUMNS = converted(lambda y: y.astype(int), "columns")

KINDS: tuple[ModelKind, ...] = (
    ModelKind(
        "a linear pipeline, fitted", lambda: from_frame(make_pipeline(StandardScaler(), LogisticRegression()))
    ),
    ModelKind("a forest", lambda: from_frame(RandomForestClassifier(5, random_state=0))),
    ModelKind(
        "gradient boosting over histograms",
        lambda: from_frame(HistGradientBoostingClassifier(max_iter=5)),
        becomes="skops",
    ),
    ModelKind(
        "nearest neighbours behind a sparse one-hot encoding",
        lambda: of_codes(str, was_fitted=True, last=KNeighborsClassifier()),
        becomes="skops",
    ),
    ModelKind(
        "nearest neighbours of numbers",
        lambda: from_frame(KNeighborsClassifier(3)),
    ),
    ModelKind("an estimator that was fitted on a sparse matrix", from_sparse),
    ModelKind("a pipeline under the file's own column names and classes", under_the_files_names),
    ModelKind("whole numbers as categories, not fitted yet", lambda: of_codes(int, was_fitted=False)),
    ModelKind(
        "whole numbers as categories, fitted",
        lambda: of_codes(int, was_fitted=True),
        "in X where requests bring '3'",
    ),
    ModelKind("categories missing as None", lambda: with_missing(None), becomes="skops"),
    ModelKind("categories missing as NaN", lambda: with_missing(np.nan), becomes="skops"),
    ModelKind(
        "a classifier without `predict_proba`", lambda: from_frame(LinearSVC()), "CalibratedClassifierCV"
    ),
    ModelKind("a column twice", twice, "X has a more than once"),
    ModelKind(
        "None in y",
        lambda: with_truth(lambda y: [None, *y.tolist()[1:]]),
        "y is missing in 1 rows: leave those rows out",
    ),
    ModelKind(
        "scores in y where the target is boolean",
        lambda: with_truth(lambda y: y * 0.7),
        "Scores are no classes: compare them with a threshold",
    ),
    ModelKind(
        "a version that ranks the holdout backwards", lambda: backwards(False), "significantly below 0.5"
    ),
    ModelKind("the same of values", lambda: backwards(True), "significantly below 0"),
    ModelKind(
        "the same with `allow_inverted=True`",
        lambda: backwards(False, checks=BuildChecks(allow_inverted=True)),
    ),
    ModelKind(
        "ONNX with dictionaries of probabilities (ZipMap)", lambda: from_onnx(converted(lambda y: y, True))
    ),
    ModelKind("ONNX with a matrix of probabilities", lambda: from_onnx(converted(lambda y: y, False))),
    ModelKind(
        "ONNX with one output a class", lambda: from_onnx(COLUMNS), "it gives one output a class (i0, i1)"
    ),
    ModelKind(
        "the same with `--output i1 --class true`",
        lambda: from_onnx(COLUMNS, OutputChoice(("i1",), ("true",))),
    ),
    ModelKind(
        "the same with `--output i0 --class false`",
        lambda: from_onnx(COLUMNS, OutputChoice(("i0",), ("false",))),
    ),
    ModelKind(
        "the same with both outputs and their classes",
        lambda: from_onnx(COLUMNS, OutputChoice(("i1", "i0"), ("true", "false"))),
    ),
    ModelKind(
        "ONNX with labels that the contract has not",
        lambda: from_onnx(TEXTS),
        "its classes are default, paid, the contract's false, true",
    ),
    ModelKind(
        "the same with `--class true --class false`",
        lambda: from_onnx(TEXTS, OutputChoice(classes=("true", "false"))),
    ),
    ModelKind(
        "the same with the classes mixed up",
        lambda: from_onnx(TEXTS, OutputChoice(classes=("false", "true"))),
        "significantly below 0.5",
    ),
    ModelKind(
        "ONNX that gives the positive class's probability",
        lambda: from_onnx(graph({"risk": RISK}, {"risk": 1})),
    ),
    ModelKind(
        "ONNX that gives the other class's probability",
        lambda: from_onnx(graph({"safe": SAFE}, {"safe": 1})),
        "significantly below 0.5",
    ),
    ModelKind(
        "ONNX with two columns and no labels",
        lambda: from_onnx(graph({"both": BOTH}, {"both": 2})),
        "it does not say which classes its 2 columns are",
    ),
    ModelKind(
        "ONNX with raw scores",
        lambda: from_onnx(graph({"margin": [("Mul", ["a", "ten"])]}, {"margin": 1})),
        "where y needs probabilities: export it with its sigmoid or softmax",
    ),
    ModelKind(
        "ONNX with several outputs of values",
        lambda: from_onnx(
            graph({"mean": [("Identity", ["a"])], "other": [("Abs", ["a"])]}, {"mean": 1, "other": 1}),
            target="{name: y, type: number}",
        ),
        "its outputs mean and other could all be meant: choose one, such as --output mean",
    ),
)


def page() -> str:
    lines = [f"| {kind.name} | {kind.outcome} |" for kind in KINDS]
    return "\n".join([_HEAD, "| what is published | what becomes of it |", "| --- | --- |", *lines]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
