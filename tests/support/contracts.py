"""Contracts to test with."""

from __future__ import annotations

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract

CREDIT = """
model: credit
owner: {team: risk}
key: {name: loan_id, type: string}
event_time: {name: applied_at}
features:
  income: {type: number, unit: EUR/year, min: 0, missing: impute}
  age: {type: integer, min: 18, max: 120}
  employed: {type: boolean}
  purpose: {categories: [car, home, other], unseen: other}
context:
  amount: {type: number, unit: EUR}
  region: {categories: [north, south]}
  note: {type: string}
target: {name: defaulted, type: boolean}
labels: {horizon: 90d}
policy:
  - {when: "score < 0.2", do: approve}
  - {do: refer}
"""


def contract(text: str = CREDIT, **replaced: str) -> ModelContract:
    """A contract: ``text`` with each word replaced, e.g. ``contract(income="salary")``."""
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return load_contract(text)
