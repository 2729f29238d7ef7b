"""Contracts to test with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.control.apply import ApplyPlan

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


def contract_record(contract: ModelContract, follows: int = 0, *, at: int = 0) -> dict[str, Any]:
    """The record of a contract that is applied behind this revision."""
    return ApplyPlan("", contract, "", follows, []).record("test", at)


def anybody(record: Mapping[str, Any]) -> None:
    """Verifies a manifest record: whoever has published it counts."""


def manifest_record(model: str, version: int, digest: str, *, at: int = 0) -> dict[str, Any]:
    """The record of a version that nobody has signed, and of which there is nothing but its digest."""
    return {
        "model": model,
        "version": version,
        "manifest": b"{}",
        "digest": digest,
        "signature": b"",
        "key_id": "",
        "chunks": [],
        "published_at": at,
        "published_by": "test",
    }
