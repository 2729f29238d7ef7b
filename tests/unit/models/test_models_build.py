"""What a package is made of: manifest, reference profile, golden pairs, lineage; from estimators and from ONNX."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn import metrics as sk
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC
from tests.support import models

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.manifest import Manifest, canonical_json
from tailrace.models.package.build import BuildChecks, build_from_onnx, build_package
from tailrace.models.reference import Reference, category_profile, number_profile

NUMERIC = """
model: plain
owner: {team: t}
features:
  a: {type: number}
  b: {type: number}
target: {name: yes, type: boolean}
"""


def numeric(task: str = "boolean") -> ModelContract:
    return load_contract(NUMERIC.replace("type: boolean", f"type: {task}"))


def plain_rows(n: int = 200) -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(n, 2))
    return x, x[:, 0] + x[:, 1] ** 2 > 0.8


# --- manifest


@given(
    impute=st.dictionaries(
        st.sampled_from(["income", "age"]), st.floats(allow_nan=False, allow_infinity=False)
    ),
    metrics=st.dictionaries(
        st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
    selection=st.text(max_size=20),
    version=st.integers(1, 2**31 - 1),
)
@settings(max_examples=60)
def test_a_manifest_has_one_form_in_bytes(
    impute: dict[str, float], metrics: dict[str, float], selection: str, version: int
) -> None:
    made = models.package().manifest
    changed = made.model_copy(
        update={
            "impute": impute,
            "holdout": made.holdout.model_copy(update={"metrics": metrics}),
            "lineage": made.lineage.model_copy(update={"selection": selection}),
            "version": version,
        }
    )
    try:
        data = changed.to_bytes()
    except UnicodeEncodeError:
        return  # half a surrogate pair is no text
    again = Manifest.from_bytes(data)
    assert again == changed
    assert again.to_bytes() == data
    assert again.digest == changed.digest
    assert again.content_digest == changed.model_copy(update={"version": 1}).content_digest


def test_manifests_that_contradict_themselves_are_refused() -> None:
    fields = json.loads(models.package().manifest.to_bytes())
    contradictions: list[dict[str, Any]] = [
        {"classes": ["false"]},
        {"classes": ["false", "false"]},
        {"positive": None},
        {"positive": "maybe"},
        {"task": "regression"},
        {"inputs": [fields["inputs"][0]] * 2},
        {"inputs": []},
        {"impute": {"shoe_size": 1.0}},
        {"parts": {"model": fields["parts"]["model"]}},
        {"version": 0},
        {"version": 2**31},
    ]
    for change in contradictions:
        with pytest.raises(PackageRefused) as refused:
            Manifest.from_bytes(canonical_json({**fields, **change}))
        assert refused.value.check == "manifest"


# --- reference profile


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=80),
    st.lists(st.integers(-2, 32), min_size=2, max_size=80),
)
@settings(max_examples=60)
def test_counts_at_and_between_the_points_give_the_exact_ks_statistic(
    train: list[int], later: list[int]
) -> None:
    profile = number_profile(np.array(train, dtype=float), limit=40)
    points, n = np.array(profile.points), len(later)
    at = np.array([later.count(p) for p in points])
    below = np.array([sum(v < p for v in later) for p in points])
    m = sum(profile.counts)
    reference_at = np.cumsum(profile.counts)
    after = np.abs((below + at) / n - reference_at / m)
    before = np.abs(below / n - (reference_at - profile.counts) / m)
    expected = stats.ks_2samp(profile.sample, later, method="asymp").statistic
    assert max(after.max(), before.max()) == pytest.approx(expected, abs=1e-12)


def test_a_profile_is_the_whole_of_few_rows_and_evenly_spaced_ranks_of_many() -> None:
    few = np.array([3.0, 1.0, np.nan, 1.0])
    profile = number_profile(few)
    assert (profile.points, profile.counts, profile.present, profile.missing) == ((1.0, 3.0), (2, 1), 3, 1)
    many = np.random.default_rng(0).normal(size=100_000)
    sample = number_profile(many).sample
    assert len(sample) == 1000
    assert stats.ks_2samp(sample, many).statistic <= 0.5 / 1000 + 1e-12
    empty = number_profile(np.array([np.nan]))
    assert (empty.points, empty.missing) == ((), 1)
    texts = np.array(["b", None, "b", "z"], dtype=object)
    counted = category_profile(texts, ("a", "b"))
    assert (counted.counts, counted.present, counted.missing) == ({"a": 0, "b": 2, "z": 1}, 3, 1)


def test_the_reference_travels_with_the_package() -> None:
    frame, _ = models.rows()
    built = models.package()
    reference = Reference.from_bytes(built.parts["reference"])
    assert reference.rows == len(frame)
    assert reference.features["income"].missing == int(frame.income.isna().sum())
    purpose = reference.features["purpose"]
    assert purpose.kind == "category"
    assert purpose.counts == {p: int((frame.purpose == p).sum()) for p in models.PURPOSES}
    assert reference.score is not None
    assert reference.score.present == reference.output_rows == built.manifest.holdout.rows
    assert reference.predicted_class is not None
    assert list(reference.predicted_class.counts) == ["false", "true"]


# --- what it was judged by, where it comes from


def test_metrics_are_those_of_a_model_that_has_not_seen_the_holdout() -> None:
    frame, truth = models.rows()
    cut = 320
    early = models.estimator("logistic").fit(frame[:cut], truth[:cut])
    late = frame[cut:].copy()
    late["income"] = late.income.fillna(sorted(frame.income.dropna())[(frame.income.count() - 1) // 2])
    expected = early.predict_proba(late)[:, 1]
    holdout = models.package().manifest.holdout
    assert holdout.rows == 80
    assert holdout.metrics["auc"] == pytest.approx(sk.roc_auc_score(truth[cut:], expected), abs=1e-12)
    assert holdout.metrics["log_loss"] == pytest.approx(sk.log_loss(truth[cut:], expected), abs=1e-9)
    assert holdout.metrics["brier"] == pytest.approx(sk.brier_score_loss(truth[cut:], expected), abs=1e-9)
    assert holdout.metrics["accuracy"] == sk.accuracy_score(truth[cut:], expected > 0.5)


def test_an_estimator_that_is_not_fitted_is_fitted_on_all_but_the_holdout() -> None:
    frame, truth = models.rows()
    built = build_package(models.estimator("logistic"), frame, truth, models.contract())
    expected = models.estimator("logistic").fit(frame[:320], truth[:320]).predict_proba(frame)
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    probabilities = model.predict(models.columns_of_frame(frame), len(frame)).probabilities
    assert np.abs(probabilities - expected).max() < 1e-12


def test_golden_pairs_hold_missing_values_and_extremes() -> None:
    frame, _ = models.rows()
    inputs = json.loads(models.package().parts["golden"])["inputs"]
    assert 32 < len(inputs["age"]) <= 64
    assert None in inputs["debt_ratio"]
    assert None in inputs["purpose"]
    assert None not in inputs["income"]  # the scorer imputes it
    assert {18.0, 120.0, float(frame.age.min()), float(frame.age.max())} <= set(inputs["age"])
    assert set(models.PURPOSES) <= set(inputs["purpose"])


# --- estimators


def test_trees_take_the_branch_that_scikit_learn_takes_where_a_value_is_on_a_threshold() -> None:
    """Thresholds lie halfway between values; there a tree in double precision parts ways with scikit-learn."""
    built = models.package("forest", "multiclass")
    frame, truth = models.rows("multiclass")
    fitted = models.estimator("forest").fit(frame, truth)
    later, _ = models.rows("multiclass", 3000, seed=7)
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    probabilities = model.predict(models.columns_of_frame(later), len(later)).probabilities
    assert np.abs(probabilities - fitted.predict_proba(later)).max() < 1e-6
    assert built.manifest.conversion is not None
    assert built.manifest.conversion.note == "ONNX in mixed precision"


def test_a_matrix_is_read_in_the_contracts_order() -> None:
    x, y = plain_rows()
    for last in (LogisticRegression(), RandomForestClassifier(5, random_state=0)):
        fitted = last.fit(x, y)
        built = build_package(fitted, x, y, numeric())
        assert (built.manifest.format, built.manifest.feed) == ("onnx", "matrix")
        model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
        probabilities = model.predict({"b": x[:, 1], "a": x[:, 0]}, len(x)).probabilities
        assert np.abs(probabilities - fitted.predict_proba(x)).max() < 1e-6
    framed = pd.DataFrame({"b": x[:, 1], "a": x[:, 0]})
    built = build_package(Ridge().fit(framed, x[:, 0]), framed, x[:, 0], numeric("number"))
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    assert model.predict({"b": x[:, 1], "a": x[:, 0]}, len(x)).value == pytest.approx(x[:, 0], abs=0.05)


def test_polars_frames_and_categorical_columns_work_too() -> None:
    frame, truth = models.rows()
    columns = models.columns_of_frame(frame)
    fitted = models.estimator("logistic").fit(frame, truth)
    polars = pl.DataFrame({n: list(c) for n, c in columns.items()}).with_columns(
        pl.col(pl.Float64).fill_nan(None)
    )
    assert (
        build_package(fitted, polars, pl.Series(truth), models.contract()).numbered(1, 1) == models.package()
    )

    categorical = frame.assign(purpose=frame.purpose.astype("category"))

    boosting = HistGradientBoostingClassifier(max_iter=5).fit(categorical, truth)
    built = build_package(boosting, categorical, truth, models.contract())
    assert built.manifest.inputs[3].levels == ("car", "education", "home", "other")
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    probabilities = model.predict(columns, len(frame)).probabilities
    assert (probabilities == boosting.predict_proba(categorical)).all()


def test_an_encoder_that_knows_nan_as_a_category_gets_nan() -> None:
    frame, truth = models.rows()
    missing = frame.assign(purpose=frame.purpose.astype(object).where(frame.purpose.notna(), np.nan))
    fitted = make_pipeline(models.preprocessing(OneHotEncoder()), LogisticRegression()).fit(missing, truth)
    built = build_package(fitted, missing, truth, models.contract())
    assert (built.manifest.format, built.manifest.missing_category) == ("skops", "nan")
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    probabilities = model.predict(models.columns_of_frame(frame), len(frame)).probabilities
    assert np.abs(probabilities - fitted.predict_proba(missing)).max() < 1e-12


def test_what_cannot_be_published_says_why_and_what_to_do() -> None:
    frame, truth = models.rows()
    x, y = plain_rows()
    credit, plain = models.contract(), numeric()

    def refused(*args: Any, **more: Any) -> str:
        with pytest.raises(TailraceError) as caught:
            build_package(*args, **more)
        return str(caught.value)

    assert "CalibratedClassifierCV" in refused(LinearSVC().fit(x, y), x, y, plain)
    build_package(CalibratedClassifierCV(LinearSVC(), cv=2).fit(x, y), x, y, plain)
    own = make_pipeline(FunctionTransformer(np.cbrt), LogisticRegression()).fit(x, y)
    assert "neither as ONNX" in refused(own, x, y, plain)
    assert "not a scikit-learn estimator" in refused(object(), x, y, plain)
    assert "3 columns, the contract has 2 features" in refused(
        LogisticRegression(), np.ones((20, 3)), y[:20], plain
    )
    assert "not features of credit: shoe" in refused(
        LogisticRegression(), frame.assign(shoe=1), truth, credit
    )
    assert "categories in X that the contract has not: boat" in refused(
        models.estimator("logistic"), frame.assign(purpose="boat"), truth, credit
    )
    assert "income is infinite in 400 rows" in refused(
        models.estimator("logistic"), frame.assign(income=np.inf), truth, credit
    )
    assert "age is a integer, and X holds something else" in refused(
        models.estimator("logistic"), frame.assign(age="old"), truth, credit
    )
    assert "the contract's classes are false, true" in refused(
        models.estimator("logistic"), frame, ["x"] * 400, credit
    )
    assert "y has 399" in refused(models.estimator("logistic"), frame, truth[:-1], credit)
    assert "too few" in refused(models.estimator("logistic"), frame[:5], truth[:5], credit)
    fewer = models.estimator("logistic").fit(frame, truth)
    assert "was fitted on debt_ratio" in refused(fewer, frame.drop(columns="debt_ratio"), truth, credit)
    one_class = np.array([True] * 400)
    assert "must hold every class" in refused(models.estimator("forest"), frame, one_class, credit)
    late = np.where(np.arange(400) < 350, np.where(truth, "a", "b"), "c")
    grades = models.contract("multiclass")
    assert "the last fifth" in refused(models.estimator("logistic").fit(frame, late), frame, late, grades)
    assert "cannot be fitted on 320 of the rows" in refused(
        models.estimator("logistic"), frame, one_class, credit
    )


# --- ONNX from elsewhere


def converted(estimator: Any, types: Any, **options: Any) -> bytes:
    data: bytes = convert_sklearn(estimator, initial_types=types, **options).SerializeToString()
    return data


def sigmoid_of_sum(one: str, other: str) -> bytes:
    """An ONNX model with an input per feature."""
    make = onnx.helper
    nodes = [make.make_node("Add", [one, other], ["sum"]), make.make_node("Sigmoid", ["sum"], ["risk"])]
    kinds = [make.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, [None, 1]) for n in (one, other, "risk")]
    graph = make.make_graph(nodes, "g", kinds[:2], kinds[2:])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def test_a_bare_onnx_model_is_published_with_a_holdout() -> None:
    x, y = plain_rows()
    fitted = LogisticRegression().fit(x, y.astype(int))
    expected = fitted.predict_proba(x)
    matrix = [("x", FloatTensorType([None, 2]))]
    for options in (
        {"zipmap": False},
        {},
    ):  # as a matrix, and as the dictionaries that are skl2onnx's default
        data = converted(fitted, matrix, options={id(fitted): options} if options else None)
        built = build_from_onnx(data, x, y, numeric())
        model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
        predictions = model.predict({"a": x[:, 0], "b": x[:, 1]}, len(x))
        assert np.abs(predictions.probabilities - expected).max() < 1e-6
        assert built.manifest.holdout.metrics["auc"] == pytest.approx(
            sk.roc_auc_score(y, expected[:, 1]), abs=1e-3
        )
        assert built.manifest.conversion is None
        assert built.manifest.lineage.estimator.startswith("ONNX model made by skl2onnx")


def test_a_bare_onnx_model_may_name_its_inputs_and_give_one_probability() -> None:
    data = sigmoid_of_sum("b", "a")
    x, y = plain_rows()
    built = build_from_onnx(data, x, y, numeric())
    assert [i.name for i in built.manifest.inputs] == ["b", "a"]
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    predictions = model.predict({"a": x[:, 0], "b": x[:, 1]}, len(x))
    assert predictions.score == pytest.approx(1 / (1 + np.exp(-x.sum(axis=1))), abs=1e-12)
    assert predictions.probabilities.sum(axis=1) == pytest.approx(1.0)


def test_an_onnx_model_that_does_not_fit_says_how_it_should() -> None:
    x, y = plain_rows()
    wide = LogisticRegression().fit(np.column_stack([x, x]), y)
    data = converted(wide, [("x", FloatTensorType([None, 4]))], options={id(wide): {"zipmap": False}})
    with pytest.raises(TailraceError, match="matrix of 4 columns"):
        build_from_onnx(data, x, y, numeric())
    fitted = LogisticRegression().fit(x, y)
    with pytest.raises(TailraceError, match="reads c, d"):
        build_from_onnx(sigmoid_of_sum("c", "d"), x, y, numeric())
    with pytest.raises(TailraceError, match="not ONNX"):
        build_from_onnx(b"\x80\x04pickle", x, y, numeric())
    frame, truth = models.rows()
    narrow = converted(fitted, [("x", FloatTensorType([None, 2]))], options={id(fitted): {"zipmap": False}})
    with pytest.raises(TailraceError, match="purpose are no numbers"):
        build_from_onnx(narrow, frame, truth, models.contract())


@pytest.mark.parametrize(
    ("estimator", "precision"),
    [
        (GradientBoostingClassifier(n_estimators=3, random_state=0), "single"),
        (
            VotingClassifier(
                [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))],
                voting="soft",
                flatten_transform=False,
            ),
            "double",
        ),
        (make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0)), "mixed"),
        (make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)), "double"),
    ],
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_each_kind_of_estimator_has_its_precision(estimator: Any, precision: str) -> None:
    x, y = plain_rows()
    checks = BuildChecks(allow_inverted=True)  # the network has learned next to nothing
    conversion = build_package(estimator.fit(x, y), x, y, numeric(), checks=checks).manifest.conversion
    assert conversion is not None
    assert conversion.note == f"ONNX in {precision} precision"
    assert conversion.max_abs_difference < (1e-12 if precision == "double" else 1e-5)
