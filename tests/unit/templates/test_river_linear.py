"""What is published equals what river has learned, and stays finite whatever comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.training import contract_text

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.package.build import build_package
from tailrace.models.package.table import columns_of, inputs_of
from tailrace.models.train import learning_task
from tailrace.templates.river_linear import RiverLinear, fit_river_linear

TARGETS = {
    "binary": "target: {name: defaulted, type: boolean}",
    "classes": "target: {name: defaulted, categories: [a, b, c]}",
    "number": "target: {name: defaulted, type: number}",
}


def contract_of(task: str) -> ModelContract:
    text = contract_text("credit", template="river-linear")
    return load_contract(text.replace(TARGETS["binary"], TARGETS[task]))


def rows(task: str, n: int = 400) -> tuple[Any, Array]:
    rng = np.random.default_rng(3)
    income = rng.normal(40_000, 9_000, n)
    income[::17] = np.nan
    purpose = rng.choice(["car", "home"], n).astype(object)
    z = np.nan_to_num((income - 40_000) / 9_000) + (purpose == "car") + rng.normal(0, 0.3, n)
    truth = {
        "binary": z > 0.5,
        "classes": np.array(["a", "b", "c"], dtype=object)[np.digitize(z, [0.0, 1.0])],
        "number": 1e6 + 5e4 * z,
    }[task]
    return pd.DataFrame({"income": income, "purpose": pd.Series(purpose, dtype=object)}), truth


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_the_exported_pipeline_says_what_river_says(task: str) -> None:
    contract = contract_of(task)
    x, y = rows(task)
    pipeline = fit_river_linear(x, y, learning_task(contract))
    learner = RiverLinear(learning_task(contract), [] if task == "number" else sorted(set(y.tolist())))
    for row, truth in zip(x.to_dict("records"), y.tolist(), strict=True):
        learner.learn(row, truth)
    for number, row in enumerate(x.head(50).to_dict("records")):
        one = x.iloc[[number]]
        predicted = learner.predict(row)
        if task == "number":
            assert pipeline.predict(one)[0] == pytest.approx(predicted, rel=1e-12)
        else:
            expected = [predicted[c] for c in pipeline.classes_]
            assert pipeline.predict_proba(one)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_it_learns_and_can_be_published(task: str) -> None:
    contract = contract_of(task)
    x, y = rows(task, 1_000)
    held = x[800:], y[800:]
    package = build_package(
        fit_river_linear(x[:800], y[:800], learning_task(contract)), x[:800], y[:800], contract, holdout=held
    )
    assert package.manifest.format == "onnx"
    model = LoadedModel(package.manifest, load_model(package.manifest, package.parts["model"]))
    predictions = model.predict(columns_of(held[0], inputs_of(list(x.columns), x, contract)), 200)
    if task == "number":
        assert predictions.value is not None
        assert np.sqrt(np.mean((predictions.value - held[1]) ** 2)) < 0.5 * np.std(held[1])
    else:
        texts = [str(v).lower() for v in held[1]]
        assert predictions.predicted_class is not None
        assert np.mean(predictions.predicted_class == np.array(texts, dtype=object)) > 0.75


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_no_row_makes_its_state_infinite(task: str) -> None:
    contract = contract_of(task)
    x, y = rows(task, 60)
    x.loc[[3, 5, 7, 9], "income"] = [1e300, -1e300, np.inf, 1e308]
    if task == "number":
        y[[4, 6]] = [1e150, -1e150]
    learner = RiverLinear(learning_task(contract), [] if task == "number" else sorted(set(y.tolist())))
    for row, truth in zip(x.to_dict("records"), y.tolist(), strict=True):
        learner.learn(row, truth)
    coef, intercept = learner.weights()
    assert np.isfinite(coef).all()
    assert np.isfinite(intercept).all()
    assert all(np.isfinite(of).all() for of in learner.scale())
