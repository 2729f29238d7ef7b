"""A model that is switched off: who answers, under whose name, and what stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher, serving

from tailrace.contracts.language.load import load_contract

RULE = "CASE WHEN debt_ratio > 2 THEN 0.9 WHEN income > 50000 THEN 7.5 ELSE 0.2 END"


def off(chain: str = "", role: Any = "champion", contract: str = CONTRACT, **state: Any) -> Bench:
    publisher = Publisher()
    bench = Bench(publisher.logic(role), publisher)
    text = contract + (f"guardrails: {{fallback: [{chain}]}}\n" if chain else "")
    model = load_contract(text).model
    bench.control(
        publisher.contract(text),
        publisher.manifest(1, model=model),
        publisher.rollout(model, **({"champion": 1} | state)),
        publisher.rollout(model, step="off", **({"champion": 1} | state), off=True),
    )
    return bench


def answers(bench: Bench, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    return bench.events(bench.requests(*(REQUEST | change for change in changes)))


def test_without_a_chain_a_person_sees_to_it_in_the_champions_place() -> None:
    (event,) = answers(off(), {})
    assert (event["served_by"], event["served_cause"], event["action"], event["rule"]) == (
        "person",
        "off",
        "refer",
        None,
    )
    assert (event["role"], event["version"], event["rollout_revision"]) == ("champion", 1, 2)
    output_fields = ("score", "probabilities", "predicted_class", "value")
    assert [event[name] for name in output_fields] == [None, {}, None, None]
    other = serving()
    (on,) = other.events(other.requests(REQUEST))
    same = (
        "prediction_id",
        "artifact_digest",
        "source",
        "request",
        "request_id",
        "key",
        "event_time",
        "runtime",
    )
    assert [event[name] for name in same] == [on[name] for name in same]


def test_a_constant_answers_as_a_model_would_and_the_policy_chooses() -> None:
    (event,) = answers(off("{previous: true}, {constant: 0.25}"), {})
    assert (event["served_by"], event["score"], event["predicted_class"]) == ("constant", 0.25, "false")
    assert (event["action"], event["rule"]) == ("approve", "small-and-safe")


def test_what_a_rule_cannot_answer_goes_on_to_the_next_step() -> None:
    chain = f"{{rule: '{RULE}'}}, {{do: person}}"
    events = answers(
        off(chain), {"debt_ratio": 3.0}, {"income": 60_000.0}, {"income": 40_000.0}, {"age": None}
    )
    contents = [(e["served_by"], e["score"], e["predicted_class"], e["action"]) for e in events]
    assert contents == [
        ("rule", 0.9, "true", "refuse"),
        ("person", None, None, "person"),  # 7.5 is no probability
        ("rule", 0.2, "false", "approve"),
        ("rule", 0.2, "false", "approve"),
    ]


def test_where_a_rule_is_silent_for_a_missing_value_a_person_sees_to_it() -> None:
    events = answers(off("{rule: 'age / 100'}"), {"age": 25}, {"age": None})
    assert [(e["served_by"], e["score"], e["action"]) for e in events] == [
        ("rule", 0.25, "approve"),
        ("person", None, "refer"),
    ]


def test_what_breaks_the_contract_is_a_dead_letter_all_the_same() -> None:
    bench = off()
    output = bench.requests(REQUEST | {"income": -1.0}, REQUEST)
    assert [letter.code for letter in output.dead_letters] == ["out-of-range"]
    assert len(bench.events(output)) == 1


REGRESSION = """
model: credit
owner: {team: t}
features: {income: {type: number}, debt_ratio: {type: number}}
target: {name: y, type: number}
"""
CLASSES = """
model: credit
owner: {team: t}
features: {income: {type: number}, debt_ratio: {type: number}}
target: {name: y, categories: [low, middle, high]}
"""


@pytest.mark.parametrize(
    ("contract", "chain", "answer"),
    [
        (REGRESSION, "{constant: 12.5}", ("constant", 12.5, None, "none")),
        (REGRESSION, "{rule: 'income / 1000'}", ("rule", 40.0, None, "none")),
        (REGRESSION, "", ("person", None, None, "refer")),
        (CLASSES, "{constant: high}", ("constant", None, "high", "high")),
        (
            CLASSES,
            "{rule: \"CASE WHEN income > 1 THEN 'middle' ELSE 'low' END\"}",
            ("rule", None, "middle", "middle"),
        ),
        (CLASSES, "{do: low}", ("person", None, None, "low")),
    ],
)
def test_other_tasks(contract: str, chain: str, answer: tuple[Any, ...]) -> None:
    request = {name: REQUEST[name] for name in ("request_id", "income", "debt_ratio")}
    bench = off(chain, contract=contract)
    (event,) = bench.events(bench.requests(request))
    assert (event["served_by"], event["value"], event["predicted_class"], event["action"]) == answer
    assert event["probabilities"] == {}
    assert event["score"] is None


def test_shadows_go_on() -> None:
    bench = off(role="shadow", shadow=[1])
    (event,) = bench.events(bench.requests(REQUEST), "credit.shadow-predictions")
    assert (event["served_by"], event["served_cause"], event["role"]) == ("model", None, "shadow")
    assert event["score"] is not None


def test_on_again_the_champion_answers_from_the_next_batch_on() -> None:
    bench = off()
    answers(bench, {})
    bench.control(bench.publisher.rollout(champion=1, step="on"))
    (event,) = answers(bench, {})
    assert (event["served_by"], event["rollout_revision"]) == ("model", 3)


def test_a_champion_that_cannot_be_opened_does_not_keep_it_from_being_off() -> None:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    bench.control(
        publisher.contract(),
        publisher.manifest(1, RuntimeError("bang")),
        publisher.rollout(champion=1, off=True),
    )
    assert [event["served_by"] for event in answers(bench, {})] == ["person"]


def test_the_order_of_requests_is_kept_whoever_answers() -> None:
    chain = f"{{rule: '{RULE}'}}, {{do: person}}"
    changes = [{"request_id": f"r{n}", "income": 60_000.0 if n % 2 else 1.0} for n in range(9)]
    assert [e["request_id"] for e in answers(off(chain), *changes)] == [f"r{n}" for n in range(9)]
