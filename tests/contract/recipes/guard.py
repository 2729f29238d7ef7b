"""The guard of CONTRIBUTING.md is everywhere: run in a copy of the tree to which its two files alone came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.scoring import CONTRACT, REQUEST, Bench, Publisher

from tailrace.contracts.language.guards.page import page
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.problems import ContractError
from tailrace.package_data import data_dir
from tailrace.testing.formula_model import Formula

NAME = "margin"
CLOSE = REQUEST | {"income": 20_000.0}  # half and half
CLEAR = REQUEST | {"income": 200_000.0}


def answers(guardrails: str) -> list[dict[str, Any]]:
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    contract = publisher.contract(CONTRACT + f"guardrails: {guardrails}\n")
    bench.control(contract, publisher.manifest(1), publisher.rollout(champion=1))
    return bench.events(bench.requests(CLOSE, CLEAR))


assert Formula(1).score(CLOSE) == 0.5
asked = load_contract(CONTRACT + f"guardrails: {{{NAME}: {{at_least: 10%}}}}\n")
assert asked.to_dict()["guardrails"][NAME] == {"at_least": "10%"}
with pytest.raises(ContractError, match="at_least"):
    load_contract(CONTRACT + f"guardrails: {{{NAME}: {{at_least: often}}}}\n")

close, clear = answers(f"{{{NAME}: {{at_least: 10%}}}}")
assert (close["guarded"], close["action"], clear["guarded"]) == (True, "person", False)
assert close["guardrails"] == [{"guard": NAME, "field": None, "detail": "0 is less than 0.1"}]
assert clear["guardrails"] == []

close, clear = answers(f"{{{NAME}: {{at_least: 10%}}, fallback: [{{constant: 0.7}}]}}")
assert (close["served_by"], close["served_cause"], close["score"]) == ("constant", NAME, 0.7)
assert clear["served_by"] == "model"
assert [event["guardrails"] for event in answers("{coverage: 90%}")] == [[], []]

editors = json.loads((data_dir("contracts") / "model-contract.schema.json").read_text())["$defs"]
assert NAME in editors["Guardrails"]["properties"]
assert "at_least" in editors["Margin"]["required"]
assert f"| `{NAME}` | `guardrails.{NAME}` | outputs |" in page()
assert f"| `guardrails.{NAME}.at_least` | |" in page()
