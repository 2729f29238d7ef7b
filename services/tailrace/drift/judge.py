"""Judges a closed window of one version, role and segment against its training reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tailrace.contracts.language.fields import Feature
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.drift import false_alerts
from tailrace.drift.count import DriftSubject
from tailrace.drift.counts import DriftCounts
from tailrace.drift.histogram import Bin, category_histogram, number_histogram
from tailrace.drift.layout import MISSING, UNSEEN, Categories, Field, NumberSlots, SlotLayout
from tailrace.drift.segments import segment_names
from tailrace.statistics.chi_squared import chi_squared_test
from tailrace.statistics.fisher import share_test
from tailrace.statistics.ks import ks_test
from tailrace.statistics.result import Ints, TestResult
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


@dataclass(frozen=True)
class DriftReport:
    """What came of it; ``record`` is the whole of it, as schema ``drift_report.avsc``."""

    subject: DriftSubject
    record: dict[str, Any]

    @property
    def verdict(self) -> str:
        return str(self.record["verdict"])

    @property
    def drifted(self) -> list[str]:
        """The features (and outputs) that drifted, each once, the largest effect first."""
        drifted = [test for test in self.record["tests"] if test["drifted"]]
        drifted.sort(key=lambda test: -test["effect"])
        return list(dict.fromkeys(test["feature"] for test in drifted))


class _Test(NamedTuple):
    feature: str
    test: str
    result: TestResult | None
    n: int
    reference_n: int
    floor: float
    histogram: list[Bin]


def judge(
    window: DriftWindow, subject: DriftSubject, counts: DriftCounts, layout: SlotLayout | None
) -> DriftReport:
    """The report of a window. Everything in it follows from the arguments."""
    contract = window.applied.contract
    budget = contract.drift.false_alerts
    alpha = false_alerts.level(
        budget.at_most, budget.per_ms, contract.drift.window_ms, len(segment_names(contract))
    )
    known = layout is not None and len(counts.slots) == layout.width
    tests = list(_tests(contract, counts.slots, layout)) if layout is not None and known else []
    defined = [test.result.p_value for test in tests if test.result is not None]
    q_values = iter(false_alerts.adjusted(defined))
    enough = counts.rows >= contract.drift.min_rows
    entries = [
        _entry(test, None if test.result is None else next(q_values), alpha, enough=enough) for test in tests
    ]
    if not enough:
        verdict = TOO_FEW_ROWS
    elif not known:
        verdict = NO_REFERENCE
    else:
        verdict = DRIFT if any(entry["drifted"] for entry in entries) else QUIET
    record = {
        "report_id": report_id(window, subject),
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
    return DriftReport(subject, record)


def report_id(window: DriftWindow, subject: DriftSubject) -> str:
    """The same for the same window, however often it is judged."""
    parts = ("drift", window.model, *subject, window.start, window.applied.digest)
    return record_id(*parts)


def _tests(contract: ModelContract, slots: Ints, layout: SlotLayout) -> Iterator[_Test]:
    for field in layout.fields:
        counts = slots[field.first : field.first + field.width]
        yield _distribution(contract, field, counts)
        if not field.is_output:
            yield from _shares(contract, field, counts)


def _distribution(contract: ModelContract, field: Field, counts: Ints) -> _Test:
    floors = contract.drift.min_effect
    reference_n = int(field.reference.sum())
    if isinstance(field, NumberSlots):
        values = counts[MISSING + 1 :]
        result = ks_test(values, field.reference)
        histogram = number_histogram(values, field.points, field.reference)
        return _Test(field.name, "ks", result, int(values.sum()), reference_n, floors.ks, histogram)
    values = counts[UNSEEN + 1 :]
    result = chi_squared_test(values, field.reference)
    histogram = category_histogram(values, field.seen, field.reference)
    return _Test(field.name, "chi2", result, int(values.sum()), reference_n, floors.cramers_v, histogram)


def _shares(contract: ModelContract, field: Field, counts: Ints) -> Iterator[_Test]:
    """What is missing and what was never seen, where the contract or the reference allows for it: which tests
    there are must not depend on what the window holds."""
    floor = contract.drift.min_effect.cramers_v
    said = contract.features.get(field.name)
    rows, present, profile = int(counts.sum()), int(counts.sum() - counts[MISSING]), field.profile
    if said is None or said.missing != "reject" or profile.missing:
        trained = profile.present + profile.missing
        yield _share(field.name, "missing", int(counts[MISSING]), rows, profile.missing, trained, floor)
    if isinstance(field, Categories) and (said is None or _lets_unseen_in(said, field)):
        yield _share(field.name, "unseen", int(counts[UNSEEN]), present, 0, profile.present, floor)


def _lets_unseen_in(said: Feature, field: Categories) -> bool:
    allowed = set(said.categories or ("false", "true"))
    return said.unseen not in (None, "reject") or not allowed <= set(field.seen)


def _share(
    feature: str, test: str, some: int, n: int, reference_some: int, reference_n: int, floor: float
) -> _Test:
    result = share_test(some, n, reference_some, reference_n)
    share = reference_some / reference_n if reference_n else 0.0
    histogram = [Bin(label=test, count=some, reference=share)]
    return _Test(feature, test, result, n, reference_n, floor, histogram)


def _entry(test: _Test, q_value: float | None, alpha: float, *, enough: bool) -> dict[str, Any]:
    result = test.result
    drifted = (
        enough
        and result is not None
        and q_value is not None
        and q_value <= alpha
        and result.effect >= test.floor
    )
    return {
        "feature": test.feature,
        "test": test.test,
        "statistic": None if result is None else result.statistic,
        "p_value": None if result is None else result.p_value,
        "q_value": q_value,
        "effect": None if result is None else result.effect,
        "n": test.n,
        "reference_n": test.reference_n,
        "drifted": drifted,
        "histogram": test.histogram,
    }
