"""Calibration: what is fitted, when it is taken, and that a row comes to the same bits wherever it stands."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import optimize
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from tests.support import models
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.models.columns import Array
from tailrace.models.errors import PackageRefused
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.guards.calibration import Calibration, calibration_rows, elementwise, fit_calibration
from tailrace.models.guards.conformal import nonconformity
from tailrace.models.manifest import Manifest
from tailrace.models.package.build import build_from_onnx, build_package
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.models.predictions import Predictions
from tailrace.testing.formula_model import formula_model


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def binary(rows: int, slope: float, offset: float, seed: int = 0) -> tuple[Predictions, Array]:
    """Scores whose true log-odds are theirs times ``slope`` plus ``offset``."""
    draw = np.random.default_rng(seed)
    z = draw.normal(0, 2, rows)
    score = sigmoid(z)
    truth = np.where(draw.random(rows) < sigmoid(slope * z + offset), "yes", "no")
    return Predictions(np.column_stack([1 - score, score]), score, None, ("no", "yes")), truth


def several(rows: int, temperature: float, seed: int = 0) -> tuple[Predictions, Array]:
    """Of three classes, with probabilities as they would be at another temperature."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (rows, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shares = np.exp(temperature * logits) / np.exp(temperature * logits).sum(axis=1, keepdims=True)
    truth = np.array(["a", "b", "c"])[(draw.random((rows, 1)) > true.cumsum(axis=1)).sum(axis=1)]
    return Predictions(shares, None, None, ("a", "b", "c")), truth


def of(method: str, slope: float, offset: float = 0.0) -> Calibration:
    return Calibration(
        method=method,  # type: ignore[arg-type]
        slope=slope,
        offset=offset,
        rows=100,
        log_loss_before=1.0,
        log_loss=0.5,
    )


def test_a_sigmoid_is_found_and_is_that_of_the_greatest_likelihood() -> None:
    predictions, truth = binary(20_000, 0.4, -0.7)
    calibration = fit_calibration(predictions, truth, "yes")
    assert calibration is not None
    assert (calibration.method, calibration.rows) == ("sigmoid", 10_000)
    assert (calibration.slope, calibration.offset) == (
        pytest.approx(0.4, abs=0.03),
        pytest.approx(-0.7, abs=0.08),
    )
    first = predictions.probabilities[:10_000, 1]  # type: ignore[index]
    known = truth[:10_000] == "yes"
    z = np.log(first) - np.log1p(-first)
    target = np.where(known, (known.sum() + 1) / (known.sum() + 2), 1 / ((~known).sum() + 2))
    by_scipy = optimize.minimize(
        lambda w: np.sum(np.logaddexp(0, w[0] * z + w[1]) - target * (w[0] * z + w[1])), [1.0, 0.0], tol=1e-12
    ).x
    np.testing.assert_allclose([calibration.slope, calibration.offset], by_scipy, rtol=1e-5)


def test_a_temperature_is_found() -> None:
    calibration = fit_calibration(*several(20_000, 2.5), None)
    assert calibration is not None
    assert (calibration.method, calibration.offset) == ("temperature", 0.0)
    assert 1 / calibration.slope == pytest.approx(2.5, rel=0.05)
    predictions, _ = several(1000, 2.5, seed=1)
    assert predictions.probabilities is not None
    mapped = calibration.apply(predictions.probabilities, None)
    np.testing.assert_allclose(mapped.sum(axis=1), 1.0, atol=1e-12)
    assert (mapped.argmax(axis=1) == predictions.probabilities.argmax(axis=1)).all()
    powered = np.clip(predictions.probabilities, 1e-6, 1) ** calibration.slope
    np.testing.assert_allclose(mapped, powered / powered.sum(axis=1, keepdims=True), rtol=1e-9)


def test_what_is_calibrated_stays_as_it_is_but_for_few_false_alarms() -> None:
    """At a significance of 5 %; of 400 models that need no map more than 35 get one with a probability below 0.001."""
    taken = [fit_calibration(*binary(400, 1.0, 0.0, seed), "yes") for seed in range(400)]
    assert sum(one is not None for one in taken) <= 35


def test_too_few_rows_and_values_are_not_calibrated() -> None:
    assert fit_calibration(*binary(199, 0.3, 2.0), "yes") is None
    assert fit_calibration(*binary(400, 0.3, 2.0), "yes") is not None
    assert fit_calibration(Predictions(None, None, np.zeros(500), ()), np.zeros(500), None) is None


def test_a_score_the_wrong_way_round_is_not_turned() -> None:
    assert fit_calibration(*binary(4000, -1.0, 0.0), "yes") is None


@pytest.mark.parametrize("made", [of("sigmoid", 0.37, -0.21), of("temperature", 0.43)])
def test_a_row_comes_to_the_same_bits_in_every_batch_and_place(made: Calibration) -> None:
    draw = np.random.default_rng(3)
    raw = np.concatenate([draw.dirichlet((0.3, 0.2), 3000), [[0.0, 1.0], [1.0, 0.0], [1e-300, 1.0]]])
    positive = 1 if made.method == "sigmoid" else None
    together = made.apply(raw, positive)
    assert np.isfinite(together).all()
    for size in (1, 2, 3, 5, 7, 8, 15, 63, 64, 65, 1000):
        for start in range(0, len(raw), max(size, 97)):
            batch = raw[start : start + size]
            assert made.apply(batch, positive).tobytes() == together[start : start + size].tobytes()
    strided = np.asfortranarray(raw)[::-1]
    assert made.apply(strided, positive).tobytes() == np.ascontiguousarray(together[::-1]).tobytes()


def test_the_order_of_scores_stays() -> None:
    scores = np.sort(np.random.default_rng(0).random(2000))
    mapped = of("sigmoid", 0.2, 1.0).apply(np.column_stack([1 - scores, scores]), 1)[:, 1]
    assert (np.diff(mapped) >= 0).all()


def test_a_package_brings_its_map_and_everything_said_of_it_is_calibrated() -> None:
    frame, truth = models.rows("binary", 4000, seed=1)
    boosting = GradientBoostingClassifier(n_estimators=100, max_depth=5, learning_rate=0.3, random_state=0)
    built = build_package(make_pipeline(models.preprocessing(), boosting), frame, truth, models.contract())
    made = built.manifest.calibration
    assert made is not None
    assert made.log_loss < made.log_loss_before
    assert built.manifest.holdout.rows == 800 - calibration_rows(800) == 400
    assert Manifest.from_bytes(built.manifest.to_bytes()) == built.manifest
    model = LoadedModel(built.manifest, load_model(built.manifest, built.parts["model"]))
    held = frame.iloc[-400:]
    held = held.assign(income=held.income.fillna(built.manifest.impute["income"]))
    texts = np.array(["false", "true"])[truth[-400:].astype(int)]
    predictions = model.predict(models.columns_of_frame(held), 400)
    measured = holdout_metrics(predictions, texts, "true")
    assert built.manifest.holdout.metrics == pytest.approx(measured, abs=1e-6)
    assert measured["log_loss"] == pytest.approx(made.log_loss, abs=1e-6)
    raw = model.predictions(model.outputs(models.columns_of_frame(held), 400))
    assert holdout_metrics(raw, texts, "true")["log_loss"] == pytest.approx(made.log_loss_before, abs=1e-6)
    assert built.manifest.conformal is not None
    assert built.manifest.conformal.rows == 400
    covered = np.mean(nonconformity(predictions, texts) <= built.manifest.conformal.at(0.9))
    assert covered == pytest.approx(361 / 400, abs=0.005)
    assert "Probabilities are calibrated" in built.parts["card"].decode()


def test_without_a_map_a_manifest_has_the_bytes_that_it_had() -> None:
    made = models.package().manifest
    assert made.calibration is None
    assert b"calibration" not in made.to_bytes()


@pytest.mark.parametrize("changed", [{"method": "temperature"}, {"slope": 0.0}, {"slope": float("nan")}])
def test_a_map_that_means_nothing_is_refused(changed: dict[str, Any]) -> None:
    facts = json.loads(models.package().manifest.to_bytes())
    facts["calibration"] = of("sigmoid", 0.5).model_dump() | changed
    with pytest.raises(PackageRefused, match="calibrat"):
        Manifest.from_bytes(json.dumps(facts).encode())


def test_answers_are_calibrated_before_uncertainty_and_policy_and_behind_the_output_guard() -> None:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    record = publisher.contract(CONTRACT + "guardrails: {score: {max: 0.9}}\nexplain: {sample: 0%}\n")
    contract = publisher.contracts["credit"][-1]
    model = formula_model(contract, 1, calibration=of("sigmoid", 1.0, -2.0))
    made.control(record, publisher.manifest(1, model), publisher.rollout(champion=1))
    plain, beyond = made.events(
        made.requests(
            REQUEST | {"income": 40_000.0, "debt_ratio": 2.0}, REQUEST | {"income": 0.1, "debt_ratio": 4.0}
        )
    )
    # The log-odds are debt_ratio - income / 40,000, less 2 by the calibration.
    assert plain["score"] == pytest.approx(1 / (1 + np.exp(1.0)), rel=1e-12)
    assert (plain["action"], plain["guardrails"]) == ("approve", [])
    assert beyond["score"] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-5)
    assert [(g["guard"], g["detail"][:5]) for g in beyond["guardrails"]] == [("score", "0.982")]


def test_a_model_from_elsewhere_answers_as_it_is() -> None:
    frame, truth = models.rows("binary", 4000, seed=1)
    boosting = GradientBoostingClassifier(n_estimators=60, max_depth=5, learning_rate=0.4, random_state=0)
    pipeline = make_pipeline(models.preprocessing(), boosting).fit(frame[:2000], truth[:2000])
    contract, held = models.contract(), (frame[2000:], truth[2000:])
    built = build_package(pipeline, frame[:2000], truth[:2000], contract, holdout=held)
    elsewhere = build_from_onnx(built.parts["model"], *held, contract).manifest
    assert built.manifest.calibration is not None
    assert elsewhere.calibration is None
    assert elsewhere.holdout.rows == 2 * built.manifest.holdout.rows


@pytest.mark.parametrize("function", [np.exp, np.log, np.log1p])
def test_elementwise_functions_do_not_depend_on_how_numbers_lie(function: np.ufunc) -> None:
    values = np.random.default_rng(6).uniform(0.01, 3.0, 5000)
    together = elementwise(function, values)
    assert elementwise(function, values[::-1])[::-1].tobytes() == together.tobytes()
    assert elementwise(function, np.column_stack([values, values])[:, 1]).tobytes() == together.tobytes()
    for start in range(0, 5000, 33):
        assert (
            elementwise(function, values[start : start + 33]).tobytes()
            == together[start : start + 33].tobytes()
        )
