"""drift's surroundings in memory: a contract, versions with references, predictions; and drift's reports computed
from raw values by scipy, one window after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from tailrace.avro.codec import Codec
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.schemas import prediction_schema, subject
from tailrace.drift.windows import DriftWindows
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import Manifest
from tailrace.models.reference import Reference, category_profile, feature_profiles, number_profile
from tailrace.streaming.records import Message, PlainMessage, Record
from tailrace.testing.control_records import anybody, contract_record, manifest_record
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control

DAY = 86_400_000
NOW = 20_000 * DAY
"""Midnight of some day; append times are later than all event times."""

CONTRACT = """
model: credit
owner: {team: risk}
key: {name: loan_id, type: string}
event_time: {name: applied_at, lateness: 1h}
features:
  income: {type: number, missing: impute}
  age: {type: integer, missing: pass}
  employed: {type: boolean, missing: pass}
  purpose: {categories: [car, home, other], unseen: other, missing: pass}
context:
  region: {categories: [north, south]}
  note: {type: string}
target: {name: defaulted, type: boolean}
drift: {window: 1d, min_rows: 20, false_alerts: {at_most: 1, per: 30d}, by: [region]}
"""
FEATURES = ("income", "age", "employed", "purpose")
KINDS = {
    "income": "ks",
    "age": "ks",
    "employed": "chi2",
    "purpose": "chi2",
    "score": "ks",
    "predicted_class": "chi2",
}


def draw(
    n: int, rng: np.random.Generator, *, shift: float = 0.0, missing: float = 0.05
) -> list[dict[str, Any]]:
    """Requests and their answers; ``shift`` moves incomes, purposes and so scores."""
    income = np.round(rng.normal(shift, 1, n), 2)
    purposes = rng.choice(["car", "home", "other"], n, p=[0.5 - shift / 5, 0.3, 0.2 + shift / 5])
    rows = []
    for at in range(n):
        score = float(1 / (1 + np.exp(-income[at])))
        row = {
            "income": float(income[at]),
            "age": int(rng.integers(18, 90)),
            "employed": bool(rng.random() < 0.7),
            "purpose": str(purposes[at]),
            "region": str(rng.choice(["north", "south"])),
            "score": score,
            "predicted_class": "true" if score > 0.5 else "false",
        }
        for name in FEATURES:
            if rng.random() < missing:
                row[name] = None
        rows.append(row)
    return rows


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Any:
    """As models take it: objects, or float64 with NaN where missing."""
    values = [row[name] for row in rows]
    if any(isinstance(value, str) for value in values):
        return np.array([*values, None], dtype=object)[:-1]
    return np.array([np.nan if value is None else float(value) for value in values])


def reference(contract: ModelContract, rows: Sequence[Mapping[str, Any]]) -> Reference:
    inputs = formula_model(contract, 1).manifest.inputs
    return Reference(
        rows=len(rows),
        features=feature_profiles({name: column(rows, name) for name in FEATURES}, inputs),
        output_rows=len(rows),
        score=number_profile(column(rows, "score")),
        predicted_class=category_profile(column(rows, "predicted_class"), ("false", "true")),
    )


class DriftWorld:
    """Contracts and versions as records, and whatever reads them."""

    def __init__(self, text: str = CONTRACT) -> None:
        self.registry = MemoryRegistry()
        self.codec, self.control = Codec(self.registry), Control(self.registry)
        self.records: list[Record] = []
        self.contracts: list[ModelContract] = []
        self.contract = self.apply(text)
        self.opened: dict[int, tuple[Manifest, Reference] | Exception] = {}
        self.training: dict[int, Sequence[Mapping[str, Any]]] = {}

    def apply(self, text: str) -> ModelContract:
        self.contract = contract = load_contract(text)
        follows = len(self.contracts)
        self.contracts.append(contract)
        record = contract_record(contract, follows, at=NOW)
        self.records.append(self.control.record("Contract", record, b"credit"))
        topic = Lane(contract.lane).predictions
        self.schema_id = self.registry.register(
            subject(topic, contract.model, contract.lane), prediction_schema(contract)
        )
        return contract

    def publish(self, version: int, rows: Sequence[Mapping[str, Any]], why_not: str | None = None) -> None:
        manifest = formula_model(self.contracts[0], version).manifest
        self.training[version] = rows
        self.opened[version] = (
            PackageRefused("signature", why_not) if why_not else (manifest, reference(self.contract, rows))
        )
        record = manifest_record("credit", version, manifest.digest, at=NOW)
        key = f"credit/{version}".encode()
        self.records.append(self.control.record("ModelManifest", record, key))

    def open_reference(self, record: Mapping[str, Any]) -> tuple[Manifest, Reference]:
        opened = self.opened[record["version"]]
        if isinstance(opened, Exception):
            raise opened
        return opened

    def control_messages(self) -> list[Message]:
        return [PlainMessage(r.topic, 0, at, r.value, r.key, r.headers) for at, r in enumerate(self.records)]

    def windows(self) -> DriftWindows:
        """Knows nothing until it looks."""
        return DriftWindows(self.control.by("drift"), self.open_reference, anybody, self.control_messages)

    def artifact(self, version: int) -> str:
        return formula_model(self.contracts[0], version).manifest.digest

    def event(self, row: Mapping[str, Any], time: int, version: int = 1, **changed: Any) -> dict[str, Any]:
        request = {"loan_id": "l", "applied_at": time, "note": None, "request_id": "r"}
        request |= {name: row[name] for name in (*FEATURES, "region")}
        return {
            "prediction_id": "p",
            "request_id": "r",
            "key": "l",
            "event_time": time,
            "source": {"topic": "credit.requests", "partition": 0, "offset": 0},
            "model": "credit",
            "version": version,
            "artifact_digest": self.artifact(version),
            "contract_digest": self.contract.digest,
            "rollout_revision": 1,
            "runtime": {"python": "3"},
            "role": "champion",
            "served_by": "model",
            "request": request,
            "replaced": [],
            "score": row["score"],
            "probabilities": {},
            "predicted_class": row["predicted_class"],
            "action": "approve",
            "action_propensity": 1.0,
            "arm_propensity": 1.0,
            "guardrails": [],
            "guarded": False,
            "latency_ms": 1.0,
        } | changed

    def value(self, row: Mapping[str, Any], time: int, version: int = 1, **changed: Any) -> bytes:
        return self.codec.encode(self.schema_id, self.event(row, time, version, **changed))


# The oracle ---


def expected_tests(
    contract: ModelContract, window: Sequence[Mapping[str, Any]], training: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the report of a window says by feature, from raw values: statistic, p, q and whether it drifted."""
    tests: list[dict[str, Any]] = []
    for name, test in KINDS.items():
        values = [row[name] for row in window if row[name] is not None]
        others = [row[name] for row in training if row[name] is not None]
        if test == "ks":
            tests.append({"feature": name, "test": "ks", **_ks(values, others)})
        else:
            known = [value for value in values if value in set(others)]
            tests.append({"feature": name, "test": "chi2", **_chi2(known, others)})
        if name in FEATURES:
            gaps = len(window) - len(values), len(training) - len(others)
            tests.append({"feature": name, "test": "missing", **_share(*gaps, len(window), len(training))})
        if name == "purpose":
            unseen = sum(value not in set(others) for value in values)
            tests.append({"feature": name, "test": "unseen", **_share(unseen, 0, len(values), len(others))})
    defined = [test for test in tests if test["p_value"] is not None]
    corrected = stats.false_discovery_control([test["p_value"] for test in defined]) if defined else []
    for entry, q_value in zip(defined, corrected, strict=True):
        entry["q_value"] = float(q_value)
    segments = 1 + (2 if contract.drift.by else 0)
    budget = contract.drift.false_alerts
    alpha = min(0.05, budget.at_most * contract.drift.window_ms / budget.per_ms / segments)
    floors = contract.drift.min_effect
    for entry in tests:
        floor = floors.ks if entry["test"] == "ks" else floors.cramers_v
        entry["drifted"] = bool(
            len(window) >= contract.drift.min_rows
            and entry["p_value"] is not None
            and entry["q_value"] <= alpha
            and entry["effect"] >= floor
        )
    return tests


_UNDEFINED = {"statistic": None, "p_value": None, "q_value": None, "effect": None}


def _ks(values: Sequence[Any], others: Sequence[Any]) -> dict[str, Any]:
    if not values or not others:
        return dict(_UNDEFINED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = stats.ks_2samp(np.array(values, dtype=float), np.array(others, dtype=float))
    statistic = float(result.statistic)
    return {"statistic": statistic, "p_value": float(result.pvalue), "effect": statistic}


def _chi2(values: Sequence[Any], others: Sequence[Any]) -> dict[str, Any]:
    names = sorted({str(value) for value in others})
    table = np.array([[sum(str(v) == name for v in sample) for name in names] for sample in (values, others)])
    if len(names) < 2 or not table.sum(axis=1).all():
        return dict(_UNDEFINED)
    result = stats.chi2_contingency(table)
    balanced = table * table.sum(axis=1)[::-1, None]
    effect = stats.contingency.association(balanced, method="cramer")
    return {"statistic": float(result.statistic), "p_value": float(result.pvalue), "effect": float(effect)}


def _share(count: int, others: int, n: int, m: int) -> dict[str, Any]:
    if not n or not m:
        return dict(_UNDEFINED)
    table = np.array([[count, n - count], [others, m - others]])
    if count == others == 0:
        return {"statistic": 0.0, "p_value": 1.0, "effect": 0.0}
    balanced = table * np.array([[m], [n]])
    effect = 0.0
    if balanced.sum(axis=0).all():
        effect = float(stats.contingency.association(balanced, method="cramer"))
    return {"statistic": count / n, "p_value": float(stats.fisher_exact(table).pvalue), "effect": effect}
