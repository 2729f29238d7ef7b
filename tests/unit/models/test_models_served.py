"""An estimator answers requests as it answers rows of X, or is refused; what is no table or no truth is a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from tests.support.published_models import CODED, coded, contract, encoded, rows

from tailrace.errors import TailraceError
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.package.build import BuildChecks, Package, build_package

CODES = contract(CODED)


def answers(built: Package, values: list[Any]) -> Any:
    """What the package gives for values of ``r`` as a scorer hands them over."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    return model.outputs({"r": column}, len(values))


def texts(missing: Any) -> tuple[pd.DataFrame, Any]:
    """Texts, a quarter of them missing, which says the most."""
    x, y = coded()
    column = x.r.astype(str).astype(object)
    column[::4] = missing
    y[::4] = True
    return pd.DataFrame({"r": column}), y


@pytest.mark.parametrize("missing", [None, np.nan], ids=["None", "NaN"])
def test_a_missing_category_is_what_the_estimator_was_fitted_on(missing: Any) -> None:
    x, y = texts(missing)
    fitted = encoded().fit(x, y)
    built = build_package(fitted, x, y, CODES)
    expected = fitted.predict_proba(x)
    given = [None if v is missing or v != v else v for v in x.r]
    assert np.abs(answers(built, given) - expected).max() < 1e-9


def test_an_imputer_of_texts_gets_the_nan_that_it_replaces() -> None:
    x, y = texts(np.nan)
    steps = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    fitted = make_pipeline(ColumnTransformer([("r", steps, ["r"])]), LogisticRegression()).fit(x, y)
    built = build_package(fitted, x, y, CODES)
    assert built.manifest.missing_category == "nan"
    assert (
        np.abs(answers(built, [None] * 3) - fitted.predict_proba(pd.DataFrame({"r": [np.nan] * 3}))).max()
        < 1e-9
    )


def published_or_refusal(fitted: Any, x: Any, y: Any) -> Package | str:
    try:
        return build_package(fitted, x, y, CODES)
    except TailraceError as refused:
        return str(refused)


@pytest.mark.parametrize("dtype", ["Int64", "string"])
def test_rows_with_pd_na_are_served_alike_or_refused_by_name(dtype: str) -> None:
    x, y = coded()
    x = x.astype(dtype)
    x.loc[::4, "r"] = pd.NA
    built = published_or_refusal(encoded(), x, y)  # fitted on what requests bring where it must be
    assert isinstance(built, Package)
    assert built.manifest.holdout.metrics["accuracy"] > 0.7
    try:
        fitted = encoded().fit(x, y)
    except (TypeError, ValueError):
        return  # scikit-learn itself refuses such rows
    outcome = published_or_refusal(fitted, x, y)
    if isinstance(outcome, str):
        assert outcome.startswith("r is ")
    else:
        given = [None if v is pd.NA else str(v) for v in x.r]
        assert np.abs(answers(outcome, given) - fitted.predict_proba(x)).max() < 1e-9


def test_the_column_that_is_served_otherwise_is_named_among_others() -> None:
    x, y = coded()
    x = x.assign(a=np.arange(len(x), dtype=float))
    both = contract('{a: {type: number}, r: {categories: ["1", "2", "3"]}}')
    encoder = ColumnTransformer(
        [("r", OneHotEncoder(handle_unknown="ignore"), ["r"])], remainder="passthrough"
    )
    fitted = make_pipeline(encoder, RandomForestClassifier(5, random_state=0)).fit(x, y)
    with pytest.raises(
        TailraceError, match=r"^r is \d in X where requests bring '\d'.*X\['r'\].astype\(str\)"
    ):
        build_package(fitted, x, y, both)


@pytest.mark.parametrize("missing", ["reject", "impute"])
def test_rows_that_no_model_will_see_say_nothing_against_or_for_it(missing: str) -> None:
    x, y = coded()
    x = x.assign(a=np.arange(len(x), dtype=float))
    both = contract(f'{{a: {{type: number, missing: {missing}}}, r: {{categories: ["1", "2", "3"]}}}}')
    encoder = ColumnTransformer(
        [("r", OneHotEncoder(handle_unknown="ignore"), ["r"])], remainder="passthrough"
    )
    fitted = make_pipeline(encoder, LogisticRegression(max_iter=5_000)).fit(x, y)
    x.loc[::4, "a"] = np.nan  # which it does not take
    with pytest.raises(TailraceError, match=r"^r is \d in X where requests bring '\d'"):
        build_package(fitted, x, y, both)


def test_columns_that_are_chosen_by_their_type_stay_those_of_the_fit() -> None:
    x, y = rows()
    x = (x * 100).round().astype("int64")
    chosen = ColumnTransformer([("whole", "passthrough", make_column_selector(dtype_include="int64"))])
    built = build_package(make_pipeline(chosen, LogisticRegression()), x, y, contract())
    assert built.manifest.holdout.metrics["auc"] > 0.99


SHAPES: list[tuple[Any, Any, str]] = [
    (lambda x: x.to_dict("list"), lambda y: y, "X is a dict, no table"),
    (lambda x: x.a, lambda y: y, "X is a Series, no table"),
    (lambda x: pl.from_pandas(x).lazy(), lambda y: y, "X is a LazyFrame, no table"),
    (lambda x: x, lambda y: np.column_stack([y, y]), "X has 200 rows, y has 400"),
    (lambda x: x, lambda y: [np.nan, *y[1:]], "y is missing in 1 rows"),
    (lambda x: x, lambda y: [pd.NA, *y[1:]], "y is missing in 1 rows"),
    (
        lambda x: x.assign(a=pd.Timestamp("2025-01-01")),
        lambda y: y,
        "a is a number, and X holds something else",
    ),
    (lambda x: x.assign(a=1e155), lambda y: y, "a is 1e+155, beyond 1e+100, in 200 rows of X"),
    (lambda x: x[:0], lambda y: y[:0], "0 rows are too few"),
    (lambda x: x.set_axis([0], axis=1), lambda y: y, "not features of m: 0"),
]


@pytest.mark.parametrize(("change_x", "change_y", "words"), SHAPES, ids=[words for *_, words in SHAPES])
def test_what_is_no_table_or_no_truth_is_a_sentence(change_x: Any, change_y: Any, words: str) -> None:
    x, y = rows()
    with pytest.raises(TailraceError) as refused:
        build_package(LogisticRegression(), change_x(x), change_y(y), contract())
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([None] * 200, "missing in 200 rows"),
        (["x"] * 200, "holds something else"),
        ([np.inf] * 200, "infinite"),
    ],
)
def test_a_truth_that_is_no_number_is_a_sentence(y: Any, words: str) -> None:
    x, _ = rows()
    with pytest.raises(TailraceError, match=words):
        build_package(Ridge(), x, y, contract(target="{name: y, type: number}"))


def doubtful(n: int = 2000) -> tuple[pd.DataFrame, Any]:
    draw = np.random.default_rng(0)
    x = pd.DataFrame({"a": draw.normal(size=n)})
    return x, draw.random(n) < 1 / (1 + np.exp(-x.a))


def test_calibration_is_said_with_metrics_before_and_can_be_forgone() -> None:
    x, y = doubtful()
    sure = LogisticRegression().fit(x, y)
    sure.coef_ = sure.coef_ * 8  # says what it knows far too surely
    late = doubtful(1000)
    built = build_package(sure, x, y, contract(), holdout=late)
    holdout = built.manifest.holdout
    assert built.manifest.calibration is not None
    assert holdout.uncalibrated is not None
    assert holdout.metrics["log_loss"] < holdout.uncalibrated["log_loss"]
    assert holdout.metrics["auc"] == pytest.approx(holdout.uncalibrated["auc"], abs=1e-3)
    assert "metric before calibration" in built.parts["card"].decode()
    asked_not_to = build_package(sure, x, y, contract(), holdout=late, checks=BuildChecks(calibrate="never"))
    never = contract().model_copy(
        update={"training": contract().training.model_copy(update={"calibrate": "never"})}
    )
    for plain in (asked_not_to, build_package(sure, x, y, never, holdout=late)):
        assert plain.manifest.calibration is plain.manifest.holdout.uncalibrated is None
        assert b"uncalibrated" not in plain.manifest.to_bytes()


def test_a_tolerance_is_named_and_can_be_set() -> None:
    x, y = rows()
    forest = RandomForestClassifier(5, random_state=0).fit(x, y)
    conversion = build_package(forest, x, y, contract()).manifest.conversion
    assert conversion is not None
    assert (conversion.tolerance, conversion.note) == (1e-4, "ONNX in single precision")
    assert conversion.spread == pytest.approx(0.5, abs=0.1)
    strict = build_package(forest, x, y, contract(), checks=BuildChecks(conversion_tolerance=0.0)).manifest
    assert strict.format == "skops"
    assert "and the tolerance is 0" in strict.conversion.note  # type: ignore[union-attr]
