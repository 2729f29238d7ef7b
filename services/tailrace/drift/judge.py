"""Judges a closed window of one version, role and segment against its training reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tailrace.contracts.language.fields import Feature
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import DriftReportRecord, DriftTestRecord
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.drift import false_alerts
from tailrace.drift.count import DriftSubject
from tailrace.drift.counts import DriftCounts
from tailrace.drift.layout import MISSING, UNSEEN, Categories, Field, NumberSlots, SlotLayout
from tailrace.drift.segments import segment_names
from tailrace.statistics.drift_test import DriftTest, FieldCounts, TestedField
from tailrace.statistics.drift_tests import DRIFT_TESTS
from tailrace.statistics.result import Ints
from tailrace.streaming.ids import record_id

QUIET, DRIFT, TOO_FEW_ROWS, NO_REFERENCE = "quiet", "drift", "too-few-rows", "no-reference"


class DriftWindow(NamedTuple):
    """Whose window, half-open, in event time."""

    model: str
    applied: AppliedContract
    start: int

    @property
    def end(self) -> int:
        return self.start + self.applied.contract.drift.window_ms


def drifted_features(report: DriftReportRecord) -> list[str]:
    """The features (and outputs) that drifted, each once, the largest effect first."""
    drifted = [test for test in report["tests"] if test["drifted"]]
    drifted.sort(key=lambda test: -(test["effect"] or 0.0))
    return list(dict.fromkeys(test["feature"] for test in drifted))


class _Tested(NamedTuple):
    feature: str
    test: DriftTest
    comparison: TestedField


def judge(
    window: DriftWindow, subject: DriftSubject, counts: DriftCounts, layout: SlotLayout | None
) -> DriftReportRecord:
    """The report of a window. Everything in it follows from the arguments."""
    contract = window.applied.contract
    budget = contract.drift.false_alerts
    segments = len(segment_names(contract))
    alpha = false_alerts.level(budget.at_most, budget.per_ms, contract.drift.window_ms, segments)
    known = layout is not None and len(counts.slots) == layout.width
    tests = list(_tests(contract, counts.slots, layout)) if layout is not None and known else []
    results = [tested.comparison.result for tested in tests]
    p_values = [None if result is None else result.p_value for result in results]
    q_values = iter(false_alerts.adjusted([p_value for p_value in p_values if p_value is not None]))
    enough = counts.rows >= contract.drift.min_rows
    entries = [
        _entry(contract, tested, None if p_value is None else next(q_values), alpha, enough=enough)
        for tested, p_value in zip(tests, p_values, strict=True)
    ]
    if not enough:
        verdict = TOO_FEW_ROWS
    elif not known:
        verdict = NO_REFERENCE
    else:
        verdict = DRIFT if any(entry["drifted"] for entry in entries) else QUIET
    return {
        "report_id": record_id("drift", window.model, *subject, window.start, window.applied.digest),
        "model": window.model,
        "version": subject.version,
        "role": subject.role,
        "segment": subject.segment,
        "window_start": window.start,
        "window_end": window.end,
        "contract_digest": window.applied.digest,
        "artifact_digest": subject.artifact_digest,
        "rows": counts.rows,
        "late": counts.late,
        "alpha": alpha,
        "verdict": verdict,
        "tests": entries,
    }


def _tests(contract: ModelContract, slots: Ints, layout: SlotLayout) -> Iterator[_Tested]:
    for field in layout.fields:
        counts = _counted(contract, field, slots[field.first : field.first + field.width])
        for test in DRIFT_TESTS:
            if test.name in contract.drift.tests and counts.kind in test.kinds and test.applies(counts):
                yield _Tested(field.name, test, test.compare(counts))


def _counted(contract: ModelContract, field: Field, counts: Ints) -> FieldCounts:
    """What a field may be follows from the contract and the reference; outputs are never missing or new by right."""
    feature, profile = contract.features.get(field.name), field.profile
    is_number = isinstance(field, NumberSlots)
    return FieldCounts(
        kind="number" if is_number else "category",
        labels=field.points if isinstance(field, NumberSlots) else field.seen,
        values=counts[(MISSING if is_number else UNSEEN) + 1 :],
        reference=field.reference,
        rows=int(counts.sum()),
        missing=int(counts[MISSING]),
        unseen=0 if is_number else int(counts[UNSEEN]),
        reference_present=profile.present,
        reference_missing=profile.missing,
        may_miss=not field.is_output
        and (feature is None or feature.missing != "reject" or profile.missing > 0),
        may_be_unseen=not field.is_output
        and isinstance(field, Categories)
        and (feature is None or _lets_unseen_in(feature, field)),
    )


def _lets_unseen_in(feature: Feature, field: Categories) -> bool:
    allowed = set(feature.categories or ("false", "true"))
    return feature.unseen not in (None, "reject") or not allowed <= set(field.seen)


def _entry(
    contract: ModelContract, tested: _Tested, q_value: float | None, alpha: float, *, enough: bool
) -> DriftTestRecord:
    """A test without a p-value is judged by its effect alone."""
    test, (result, n, reference_n, histogram) = tested.test, tested.comparison
    drifted = (
        enough
        and result is not None
        and (result.p_value is None or (q_value is not None and q_value <= alpha))
        and result.effect >= contract.drift.min_effect.of(test.effect.name)
    )
    return {
        "feature": tested.feature,
        "test": test.name,
        "statistic": None if result is None else result.statistic,
        "p_value": None if result is None else result.p_value,
        "q_value": q_value,
        "effect": None if result is None else result.effect,
        "n": n,
        "reference_n": reference_n,
        "drifted": drifted,
        "histogram": histogram,
    }
