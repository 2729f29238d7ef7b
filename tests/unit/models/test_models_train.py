"""Training on a file: which rows are chosen, what each template makes of them; the example in the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import tailrace
from tailrace.contracts.instants import read_time
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import UsageError
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.package.build import build_package
from tailrace.models.reference import CategoryProfile, Reference
from tailrace.models.train import as_scored, frame_of, labelled_rows, train, training_rows

CONTRACT = """
model: pumps
owner: {team: plant}
event_time: {name: at}
features:
  heat: {type: number, missing: impute}
  load: {type: number}
  hours: {type: integer}
  new: {type: boolean}
  make: {categories: [x, y], missing: pass}
target: {name: failed, type: TARGET}
training: {template: TEMPLATE}
"""
DAY = 86_400_000


def contract(template: str = "logistic-regression", target: str = "boolean") -> ModelContract:
    return load_contract(CONTRACT.replace("TEMPLATE", template).replace("TARGET", target))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 days of readings, newest first; the last 100 days have no label yet."""
    draw = np.random.default_rng(0)
    n = 1000
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2020-01-01", periods=n, freq="1D").strftime("%Y-%m-%dT00:00:00Z"),
            "heat": draw.normal(60, 10, n),
            "load": draw.uniform(0, 1, n),
            "hours": draw.integers(0, 1000, n),
            "new": draw.random(n) < 0.5,
            "make": draw.choice(["x", "y"], n),
        }
    )
    failed = frame.heat / 10 + 4 * frame.load + draw.normal(size=n) > 8
    frame["failed"] = failed.map({True: "1", False: "0"}).where(np.arange(n) < 900, None)
    frame.loc[draw.random(n) < 0.1, "heat"] = np.nan
    frame.loc[draw.random(n) < 0.1, "make"] = None
    path = tmp_path_factory.mktemp("data") / "pumps.csv"
    frame[::-1].to_csv(path, index=False)
    return path


def test_rows_are_the_earliest_fifth_or_those_asked_for(file: Path) -> None:
    def chosen(**how: Any) -> tuple[int, int, int, str | None]:
        rows = training_rows(file, None, contract(), **how)
        on = rows.trained_on
        first = read_time("2020-01-01T00:00:00Z")
        return rows.frame.height, (on.first_ms - first) // DAY, (on.last_ms - first) // DAY, on.where

    assert chosen() == (180, 0, 179, None)
    assert chosen(until_ms=read_time("2020-03-01T00:00:00Z")) == (61, 0, 60, None)
    everything = chosen(where="TRUE")
    assert everything == (900, 0, 899, "TRUE")
    hot, _, _, where = chosen(where="heat > 70")
    assert 100 < hot < 200
    assert where == "heat > 70"
    both = chosen(where="hours >= 0", until_ms=read_time("2020-03-01T00:00:00Z"))
    assert both[:3] == (61, 0, 60)
    with pytest.raises(UsageError, match="9 labelled rows are too few"):
        chosen(until_ms=read_time("2020-01-09T00:00:00Z"))
    assert labelled_rows(file, None, contract())[1] == 1000


@pytest.mark.parametrize(
    ("template", "target", "form"),
    [
        ("logistic-regression", "boolean", "onnx"),
        ("logistic-regression", "number", "onnx"),
        ("random-forest", "boolean", "onnx"),
        ("hist-gradient-boosting", "boolean", "skops"),
        ("river-linear", "boolean", "onnx"),
        ("river-linear", "number", "onnx"),
    ],
)
def test_every_template_learns_from_numbers_integers_booleans_and_categories(
    template: str, target: str, form: str, file: Path
) -> None:
    wanted = contract(template, target)
    messages: list[str] = []
    built = train(file, None, wanted, where="TRUE", say=messages.append)
    manifest = built.manifest
    assert messages[0] == "reading pumps.csv"
    assert "900 rows of pumps.csv" in messages[1]
    assert "the last 180 of them (20%) held out" in messages[1]
    # The online learner goes over the rows once: it has not seen those that are held out.
    learned = 720 if template == "river-linear" else 900
    assert (manifest.format, manifest.lineage.rows, manifest.holdout.rows) == (form, learned, 180)
    assert manifest.lineage.trained_on is not None
    assert manifest.lineage.seeds == {"random_state": 0}
    assert list(manifest.impute) == ["heat"]
    if target == "boolean":
        assert manifest.holdout.metrics["auc"] > 0.8
    else:
        assert manifest.holdout.metrics["r2"] > 0.2
    new = Reference.from_bytes(built.parts["reference"]).features["new"]
    assert isinstance(new, CategoryProfile)
    assert sum(new.counts.values()) == learned
    model = LoadedModel(manifest, load_model(manifest, built.parts["model"]))
    rows, _ = labelled_rows(file, None, wanted)
    frame = frame_of(rows, wanted)
    columns = {n: frame[n].to_numpy() for n in frame}
    predictions = model.predict(columns, len(frame))
    values = predictions.value if predictions.score is None else predictions.score
    assert values is not None
    assert np.isfinite(values).all()


def test_training_again_gives_the_same_package(file: Path) -> None:
    once, again = (train(file, None, contract(), where="TRUE").manifest.digest for _ in range(2))
    assert once == again


def test_the_example_in_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    match = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert match
    draw = np.random.default_rng(0)
    history = pd.DataFrame(
        {
            "tenure": draw.integers(0, 60, 300),
            "charges": draw.normal(50, 9, 300),
            "plan": draw.choice(["a", "b"], 300),
        }
    )
    history["churned"] = (history.tenure < 20).astype(int)
    history.to_csv(tmp_path / "churn.csv", index=False)
    churn = load_contract(
        "model: churn\nowner: {team: t}\ntarget: {name: churned, type: boolean}\n"
        "features:\n  tenure: {type: integer}\n  charges: {type: number}\n  plan: {categories: [a, b]}\n"
    )
    published: list[Any] = []

    def publish(estimator: Any, x: Any, y: Any, *, model: str) -> Any:
        assert model == "churn"
        published.append(build_package(estimator, x, y, churn).manifest)
        return type("Published", (), {"version": 1, "metrics": published[0].holdout.metrics})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tailrace, "publish", publish, raising=False)
    exec(compile(match[1], "docs/models.md", "exec"), {})
    assert published[0].format == "onnx"
    assert published[0].holdout.metrics["auc"] > 0.95


@pytest.mark.parametrize(("unseen", "rows", "value"), [("x", 3, "x"), ("reject", 2, None)])
def test_unseen_categories_are_taken_in_training_as_in_scoring(
    unseen: str, rows: int, value: str | None
) -> None:
    text = CONTRACT.replace("TEMPLATE", "logistic-regression").replace("TARGET", "boolean")
    known = load_contract(text.replace("[x, y], ", f"[x, y], unseen: {unseen}, "))
    frame = pl.DataFrame({"make": ["y", None, "z"]})
    notes: list[str] = []
    taken = as_scored(frame, known, notes.append)
    assert taken["make"].to_list() == ["y", None, value][:rows]
    assert len(notes) == 1
    assert "'z'" in notes[0]
