"""Packages: built, signed, opened, predicted with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support import models

from tailrace.models.package.open import open_package
from tailrace.signing.keys import SigningKey
from tailrace.signing.trust import TrustStore, signing_key
from tailrace.testing import signed_records
from tailrace.testing.sealed_package import sealed

KINDS = [
    ("logistic", "binary", "onnx"),
    ("forest", "binary", "onnx"),
    ("boosting", "binary", "skops"),
    ("logistic", "multiclass", "onnx"),
    ("forest", "multiclass", "onnx"),
    ("linear", "regression", "onnx"),
]


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path)


@pytest.fixture
def trust(tmp_path: Path) -> TrustStore:
    return TrustStore(signed_records.make_home(tmp_path) / "keys")


@pytest.mark.parametrize(("kind", "task", "form"), KINDS)
def test_a_package_predicts_what_the_estimator_did(
    kind: str, task: str, form: str, key: SigningKey, trust: TrustStore
) -> None:
    built = models.package(kind, task)
    record, fetch = sealed(built, key)
    model = open_package(record, fetch, trust, models.contract(task))
    assert model.manifest.format == form
    assert model.digest == record["digest"]

    frame, truth = models.rows(task)
    fitted = models.estimator(kind).fit(frame, truth)
    fresh, _ = models.rows(task, 200, seed=1)
    predictions = model.predict(models.columns_of_frame(fresh), len(fresh))
    limit = 1e-12 if form == "skops" or kind in ("logistic", "linear") else 1e-5
    if task == "regression":
        assert predictions.value == pytest.approx(fitted.predict(fresh), rel=limit)
        assert predictions.score is predictions.predicted_class is predictions.probabilities is None
        return
    expected = fitted.predict_proba(fresh)
    assert predictions.probabilities is not None
    assert np.abs(predictions.probabilities - expected).max() < limit
    assert predictions.predicted_class is not None
    assert list(predictions.predicted_class) == [str(c).lower() for c in fitted.predict(fresh)]
    if task == "binary":
        assert predictions.score is not None
        assert (predictions.score == predictions.probabilities[:, 1]).all()
