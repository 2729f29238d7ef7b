"""Training and judging on rows in memory: who is compared on what, what the gates let through."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.distributions import install
from tests.support.training import contract_text
from tests.unit.trainer.test_trainer_dataset import CODEC, CONTRACT, RUN, messages, plain

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.errors import TailraceError
from tailrace.models.formats.load import LoadedModel, load_model
from tailrace.models.manifest import Manifest
from tailrace.models.package.holdout_metrics import holdout_metrics
from tailrace.templates.table import TEMPLATE
from tailrace.trainer import work
from tailrace.trainer.dataset import Dataset, dataset
from tailrace.trainer.loop import best_of
from tailrace.trainer.run import PUBLISHED
from tailrace.trainer.work import Trained, train


def nothing(progress: float, doing: str) -> None:
    assert 0 <= progress <= 1
    assert doing


def rows_under(contract: ModelContract, rows: int = 150, **changed: Any) -> Dataset:
    return dataset(RUN, contract, CODEC, messages(plain(rows=rows, **changed)))


def trained_under(
    options: dict[str, str],
    champion: LoadedModel | None = None,
    best: dict[str, float] | None = None,
    **changed: Any,
) -> Trained:
    contract = load_contract(contract_text("credit", **options))
    return train(RUN, rows_under(contract, **changed), champion, best or {}, nothing)


def model_of(trained: Trained) -> LoadedModel:
    manifest = trained.package.numbered(1, 1).manifest
    return LoadedModel(manifest, load_model(manifest, trained.package.parts["model"]))


@cache
def champion_of(flipped: bool) -> LoadedModel:
    return model_of(trained_under({}, flipped=flipped))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is trained for comparison, which no gate looks at."""
    monkeypatch.setattr(work, "TEMPLATES", ())


def value(trained: Trained, who: str, metric: str) -> float:
    (number,) = {
        e["value"] for e in trained.record["evaluations"] if e["who"] == who and e["metric"] == metric
    }
    assert isinstance(number, float)
    return number


def test_candidate_champion_baseline_and_the_other_templates_are_judged_on_the_same_rows() -> None:
    old = champion_of(flipped=True)  # trained before the change
    trained = trained_under({}, old)
    record = trained.record
    assert trained.failed == ()
    assert (record["rows"], record["held_back"]) == (240, 60)
    assert record["templates"] == [
        "logistic-regression",
        "random-forest",
        "hist-gradient-boosting",
        "river-linear",
    ]
    assert {e["n"] for e in record["evaluations"]} == {60}
    others = {e["template"] for e in record["evaluations"] if e["who"] == "other"}
    assert others == {"random-forest", "hist-gradient-boosting", "river-linear"}
    assert value(trained, "candidate", "auc") > 0.9 > 0.5 > value(trained, "champion", "auc")
    assert value(trained, "baseline", "auc") == 0.5
    # The champion's value is what its package gives for these rows.
    held = rows_under(CONTRACT).held_rows
    expected = holdout_metrics(old.predict(held.columns, len(held)), held.truth, "true")
    assert value(trained, "champion", "log_loss") == pytest.approx(expected["log_loss"], abs=1e-12)
    # And the candidate's is what its package says about itself.
    of_itself = trained.package.manifest.holdout.metrics
    assert value(trained, "candidate", "log_loss") == pytest.approx(of_itself["log_loss"], abs=1e-9)


@pytest.mark.parametrize("template", TEMPLATE)
def test_the_same_run_gives_the_same_candidate(template: str) -> None:
    first, second = (trained_under({"template": template}) for _ in range(2))
    assert first.record == second.record
    assert first.package.parts == second.package.parts
    assert first.record["content_digest"] == first.package.manifest.content_digest


@pytest.mark.usefixtures("alone")
def test_a_team_s_template_is_named_in_run_and_lineage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    install(
        tmp_path,
        "acme-bayes",
        {
            "acme_bayes.py": "from sklearn.linear_model import LogisticRegression\n"
            "from tailrace.templates.scaled_columns import scaled\n"
            "from tailrace.templates.template import Template\n"
            "from sklearn.pipeline import make_pipeline\n"
            "FLAT = Template('flat', '', lambda t, options, seed: make_pipeline(scaled(t), LogisticRegression()))\n"
        },
        "[tailrace.templates]\nflat = acme_bayes:FLAT\n",
    )
    trained = trained_under({"template": "'acme-bayes:flat'"})
    origin = trained.package.manifest.lineage.template
    assert origin is not None
    assert (origin.distribution, origin.version) == ("acme-bayes", "1.2")
    named = {name: value for name, value in trained.record.items() if name.startswith("template")}
    assert named == {
        "templates": ["acme-bayes:flat"],
        "template": "acme-bayes:flat",
        "template_distribution": "acme-bayes",
        "template_version": "1.2",
        "template_digest": origin.digest,
    }
    manifest = trained.package.manifest
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    ours = trained_under({})
    assert not {"template_distribution", "template_digest"} & set(ours.record)
    assert b'"template"' not in ours.package.manifest.to_bytes()


@pytest.mark.usefixtures("alone")
def test_another_run_or_other_rows_give_another_candidate() -> None:
    rows = rows_under(CONTRACT)
    digests = {
        train(run, data, None, {}, nothing).record["content_digest"]
        for run, data in (
            (RUN, rows),
            (replace(RUN, run_id="1" * 32), rows),
            (RUN, dataset(RUN, CONTRACT, CODEC, messages(plain(rows=149)))),
        )
    }
    assert len(digests) == 3


@pytest.mark.usefixtures("alone")
def test_a_candidate_has_to_beat_the_champion_by_what_the_contract_says() -> None:
    same = champion_of(flipped=False)
    assert "beat_champion: log_loss is" in trained_under({}, same).failed[0]  # equal is not better
    asked = {"gates": "{beat_champion: {metric: accuracy, by: 0.5}}"}
    assert trained_under(asked, champion_of(flipped=True)).failed == ()
    asked = {"gates": "{beat_champion: {metric: accuracy, by: 0.99}}"}
    (why,) = trained_under(asked, champion_of(flipped=True)).failed
    assert why.endswith("0.99 better was asked for")


@pytest.mark.usefixtures("alone")
def test_a_candidate_has_to_beat_the_baseline() -> None:
    contract = load_contract(contract_text("credit"))
    # What is held back, the latest fifth, is the other way round: to know nothing is better.
    outcomes = [*plain((10,), 240), *plain((11,), 60, flipped=True)]
    trained = train(RUN, dataset(RUN, contract, CODEC, messages(outcomes)), None, {}, nothing)
    assert [why.split(":")[0] for why in trained.failed] == ["beat_baseline"]


@pytest.mark.usefixtures("alone")
def test_the_ratchet_holds_to_the_best_ever() -> None:
    asked = {"gates": "{ratchet: {metric: auc, tolerance: 0.001}}"}
    reached = value(trained_under({}), "candidate", "auc")
    assert trained_under(asked).failed == ()  # nothing was published before
    assert trained_under(asked, best={"auc": reached + 0.0005}).failed == ()
    (why,) = trained_under(asked, best={"auc": reached + 0.01}).failed
    assert why.startswith("ratchet: auc is")


def test_the_best_ever_is_of_published_candidates_alone() -> None:
    def run(number: int, state: str, who: str, auc: float, log_loss: float) -> tuple[str, Any]:
        evaluations = [
            {"who": who, "metric": m, "value": v} for m, v in (("auc", auc), ("log_loss", log_loss))
        ]
        return str(number), replace(RUN, run_id=str(number), state=state, evaluations=tuple(evaluations))

    runs = [
        run(1, PUBLISHED, "candidate", 0.8, 0.4),
        run(2, PUBLISHED, "candidate", 0.7, 0.3),
        run(3, "rejected", "candidate", 0.9, 0.1),
        run(4, PUBLISHED, "champion", 0.95, 0.05),
    ]
    assert best_of(dict(runs)) == {"auc": 0.8, "log_loss": 0.3}


@pytest.mark.usefixtures("alone")
def test_no_slice_may_be_worse_than_the_champions() -> None:
    rows = rows_under(CONTRACT, 300).held_rows
    truth = dict(zip(rows.columns["income"], rows.truth == "true", strict=True))

    class Oracle:
        """Right about cars, wrong about homes."""

        def run(self, columns: Any, rows: int) -> Any:
            known = np.array([truth[income] for income in columns["income"]])
            right = columns["purpose"] == "car"
            return np.where(known == right, 0.999, 0.001).reshape(-1, 1)

    champion = LoadedModel(champion_of(flipped=False).manifest, Oracle())
    asked = "{{not_worse_on: {{slices: [{}], metric: log_loss, tolerance: {}}}}}"
    for slices, tolerance, named in (
        ("purpose", 0.0, ["not_worse_on purpose=car"]),
        ("\"purpose = 'car' AND income > 0\"", 0.0, ["not_worse_on purpose = 'car' AND income > 0"]),
        ("purpose", 5.0, []),
        ('"income > 100"', 0.0, []),  # no rows
    ):
        trained = trained_under({"gates": asked.format(slices, tolerance)}, champion, rows=300)
        assert [why.split(":")[0] for why in trained.failed] == named, slices


@pytest.mark.usefixtures("alone")
def test_directions_are_tried_on_the_rows() -> None:
    up, down = (f"{{directions: [{{raise: income, score: {way}}}]}}" for way in ("not_down", "not_up"))
    assert trained_under({"gates": up}).failed == ()
    (why,) = trained_under({"gates": down}).failed
    assert why == "directions: the score goes up where income rises, all else equal, in 60 of 60 rows tried"


def test_a_class_that_is_missing_is_said() -> None:
    outcomes = plain(rows=150)
    for outcome in outcomes:
        outcome["label"] = True
    with pytest.raises((TailraceError, ValueError), match="class"):
        train(RUN, dataset(RUN, CONTRACT, CODEC, messages(outcomes)), None, {}, nothing)
