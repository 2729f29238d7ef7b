"""What a contract would refuse of the requests that producers send now."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.control.latest_requests import SentRequest, newly_refused

TEXT = """\
model: m
owner: {team: t}
features:
  a: {type: number, missing: pass, max: 10}
  b: {categories: [x, y], missing: pass}
target: {name: t, type: boolean}
"""


def contract(was: str = "", is_: str = "") -> ModelContract:
    assert was in TEXT
    return load_contract(TEXT.replace(was, is_, 1))


def sent(**record: Any) -> SentRequest:
    return SentRequest("JSON", record)


@pytest.mark.parametrize(
    ("was", "is_", "what"),
    [
        ("number, missing: pass", "number", "a is missing in 1 of the latest 3 requests"),
        ("max: 10", "max: 4", "a is outside of min and max in 1 of"),
        ("[x, y]", "[x]", "b has a category that the contract has not in 1 of"),
        ("  a:", "  c: {type: boolean}\n  a:", "c is missing in 3 of"),
        ("target:", "context: {d: {type: string, missing: reject}}\ntarget:", "d is missing in 3 of"),
    ],
)
def test_it_says_how_many_of_which_producers_and_the_remedy(was: str, is_: str, what: str) -> None:
    requests = [sent(a=1.0, b="x"), SentRequest("Avro of schema 7", {"a": None, "b": "x"}), sent(a=5, b="y")]
    (sentence,) = newly_refused(requests, contract(), contract(was, is_))
    assert sentence.startswith(what)
    assert "Have their producers changed first, or write " in sentence
    if "missing: pass" in was:
        assert "1 of 1 in Avro of schema 7" in sentence


def test_what_is_refused_already_and_what_nobody_sends_says_nothing() -> None:
    bad = [sent(a=99, b="z"), sent(a=float("nan"), b=None)]
    assert newly_refused(bad, contract(), contract("max: 10", "max: 9")) == []
    assert newly_refused([], contract(), contract("number, missing: pass", "number")) == []
    fine = [sent(a=1, b="x")]
    assert newly_refused(fine, contract(), contract("[x, y]", "[x, y, z]")) == []


def test_a_category_that_becomes_another_is_not_refused() -> None:
    new = contract("[x, y]", "[x], unseen: x")
    assert newly_refused([sent(a=1, b="y")], contract(), new) == []
