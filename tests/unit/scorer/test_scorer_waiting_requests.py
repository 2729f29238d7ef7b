"""Requests that wait for a person raise one alert with the remedy, which is resolved when they go on."""

from __future__ import annotations

from typing import Any

from tests.support.scoring import CONTRACT, REFUSED, REQUEST, Bench, Publisher, serving

from tailrace.contracts.language.load import load_contract
from tailrace.streaming.processor import Output
from tailrace.testing.formula_model import IMPUTE, formula_model

NEEDS_A_VALUE = CONTRACT.replace("debt_ratio: {", "debt_ratio: {missing: impute, ")


def waits(bench: Bench, output: Output) -> list[tuple[str, str]]:
    return [(a["state"], a["alert_id"]) for a in bench.alerts(output) if a["kind"] == "requests-wait"]


def fitting(publisher: Publisher, version: int) -> Any:
    impute = {**IMPUTE, "debt_ratio": 0.5}
    return publisher.manifest(version, formula_model(load_contract(CONTRACT), version, impute=impute))


def test_a_contract_that_the_champion_cannot_serve_raises_an_alert_that_resolves_itself() -> None:
    bench = serving()
    bench.control(bench.publisher.contract(NEEDS_A_VALUE))
    output = bench.requests(REQUEST)
    assert output.paused
    (alert,) = bench.alerts(output)
    assert (alert["kind"], alert["state"], alert["severity"]) == ("requests-wait", "raised", "severe")
    assert (alert["model"], alert["version"]) == ("credit", None)
    assert "the contract imputes debt_ratio, and the package has no value for it" in alert["summary"]
    assert "tailrace rollback" in alert["summary"]
    assert bench.alerts(bench.requests(REQUEST)) == []  # it is open

    bench.control(fitting(bench.publisher, 2), bench.publisher.rollout(champion=2, previous=1))
    output = bench.requests(REQUEST)
    assert not output.paused
    assert waits(bench, output) == [("resolved", alert["alert_id"])]
    assert waits(bench, bench.requests(REQUEST)) == []


def test_without_a_version_and_with_a_refused_one_requests_wait_for_a_person() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    bench.control(publisher.contract())
    ((state, first),) = waits(bench, bench.requests(REQUEST))
    assert state == "raised"
    bench.control(publisher.manifest(1, REFUSED), publisher.rollout(champion=1))
    assert waits(bench, bench.requests(REQUEST)) == []
    bench.control(publisher.manifest(2), publisher.rollout(champion=2))
    assert waits(bench, bench.requests(REQUEST)) == [("resolved", first)]


def test_the_next_owner_resolves_what_the_last_one_raised() -> None:
    bench = serving()
    bench.control(bench.publisher.contract(NEEDS_A_VALUE))
    output = bench.requests(REQUEST)
    ((_, raised),) = waits(bench, output)

    other = Bench(bench.publisher.logic(), bench.publisher, {0: output.metadata})
    records = bench.publisher
    follows = {"follows": 0, "champion": 1}
    other.control(
        records.contract(CONTRACT, follows=0),
        records.contract(NEEDS_A_VALUE, follows=1),
        records.manifest(1),
        records.rollout(**follows),
    )
    assert waits(other, other.requests(REQUEST)) == []  # it goes on waiting, and the alert is open
    other.control(fitting(records, 2), records.rollout(follows=1, champion=2, previous=1))
    output = other.requests(REQUEST)
    assert waits(other, output) == [("resolved", raised)]
    third = Bench(bench.publisher.logic(), bench.publisher, {0: output.metadata})
    third.control(records.contract(CONTRACT, follows=0), records.manifest(1), records.rollout(**follows))
    assert waits(third, third.requests(REQUEST)) == []


def test_one_model_that_waits_does_not_make_the_scorer_unready() -> None:
    bench = serving()
    other = load_contract(CONTRACT.replace("model: credit", "model: loans"))
    bench.control(bench.publisher.contract(other))
    assert bench.logic.by_model() == {"credit": None, "loans": None}  # type: ignore[attr-defined]
    bench.control(bench.publisher.contract(NEEDS_A_VALUE))
    bench.requests(REQUEST)
    by_model = bench.logic.by_model()  # type: ignore[attr-defined]
    assert by_model["loans"] is None
    assert "does not fit its contract any more" in by_model["credit"]
    assert bench.logic.waiting() is None
