"""Reports: what the counts of a closed window say about each version, slice and pair of versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.record_types import (
    MetricValueRecord,
    PairedMetricRecord,
    PerformanceReportRecord,
)
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.metrics import metrics_of, positive_index
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.models.manifest import Holdout, Manifest
from tailrace.statistics.drop import SIGNIFICANT, drop
from tailrace.statistics.exact_sum import Sum
from tailrace.statistics.metric import Metric
from tailrace.statistics.metrics import COVERAGE, VALUE
from tailrace.streaming.ids import record_id
from tailrace.windows.subject import read_subject, subject_text

LEAST_LABELLED = 30
"""No verdict on fewer labelled outcomes."""

ManifestOf = Callable[[str, int, str], Manifest | None]
"""What a package says of itself, by model, version and artifact digest; None where it is not known."""


@dataclass(frozen=True)
class JudgedWindow:
    """A closed window at one age."""

    model: str
    applied: AppliedContract
    start: int
    age_ms: int

    @property
    def contract(self) -> ModelContract:
        return self.applied.contract

    @property
    def end(self) -> int:
        return self.start + self.contract.quality.window_ms

    @property
    def judged_at(self) -> int:
        return self.end + self.age_ms


def reports(
    window: JudgedWindow, subjects: Mapping[str, PerformanceCounts], manifest_of: ManifestOf
) -> list[PerformanceReportRecord]:
    """A record (schema ``performance_report.avsc``) for each subject, in their order, slices first: so whoever decides
    on what a window's report says of all rows has read what it says of the slices.
    """
    read = [(read_subject(PerformanceSubject, text), counts) for text, counts in subjects.items()]
    return [
        _report(window, subject, counts, subjects, manifest_of)
        for subject, counts in sorted(read, key=lambda each: each[0].segment == "")
    ]


def _report(
    window: JudgedWindow,
    subject: PerformanceSubject,
    counts: PerformanceCounts,
    subjects: Mapping[str, PerformanceCounts],
    manifest_of: ManifestOf,
) -> PerformanceReportRecord:
    version, role, artifact, segment, against = subject
    # How many of a pair's labels are in is known of the version by itself: who answered is known of outcomes only.
    alone = subject_text(subject._replace(against=None))
    own = counts if against is None else subjects.get(alone, PerformanceCounts())
    share = _label_share(own)
    contract = window.contract
    mature = share is not None and share >= contract.quality.mature
    metrics: list[MetricValueRecord] = []
    paired: list[PairedMetricRecord] = []
    if against is None:
        # The holdout's metrics are of all its rows: no slice is compared with them.
        manifest = manifest_of(window.model, version, artifact)
        holdout = None if segment or manifest is None else manifest.holdout
        metrics = [_metric(metric, counts, contract, holdout) for metric in metrics_of(contract)]
        if contract.guardrails.coverage is not None and manifest and manifest.conformal is not None:
            metrics.append(_metric(COVERAGE, counts, contract, None))
    else:
        compared = [*metrics_of(contract), *([VALUE] if contract.value is not None else [])]
        gains = [metric.gain(counts, positive_index(contract)) for metric in compared]
        paired = [cast(PairedMetricRecord, gain._asdict()) for gain in gains]
    worth = counts.sums.get(VALUE.name, Sum()) if against is None and contract.value is not None else None
    record: PerformanceReportRecord = {
        "report_id": _report_id(window, subject),
        "model": window.model,
        "version": version,
        "role": role,
        "segment": segment,
        "against": against,
        "window_start": window.start,
        "window_end": window.end,
        "age": window.age_ms,
        "judged_at": window.judged_at,
        "contract_digest": window.applied.digest,
        "artifact_digest": artifact,
        "predictions": own.tallies["predictions"],
        "fallbacks": own.tallies["fallbacks"],
        "labelled": counts.tallies["labelled"],
        "assumed": counts.tallies["assumed"],
        "unlabelled": counts.tallies["unlabelled"],
        "late_labels": counts.tallies["late"],
        "label_share": share,
        "mature": mature,
        "metrics": metrics,
        "paired": paired,
        "value_total": None if worth is None else worth.value,
        "value_squares": None if worth is None else worth.total_squares,
        "value_mean": None if worth is None else worth.mean,
        "verdict": "undefined",
        "reasons": [],
    }
    record["verdict"], record["reasons"] = _verdict(contract, record)
    return record


def dropped(contract: ModelContract, metric: MetricValueRecord) -> bool:
    """Whether the metric of a report is worse than the holdout by more than the contract lets it be, and surely so."""
    most = contract.quality.drop.get(metric["metric"])
    if most is None or metric["drop"] is None or metric["p_value"] is None:
        return False
    return bool(metric["drop"] > most and metric["p_value"] < SIGNIFICANT / len(contract.quality.drop))


def _metric(
    metric: Metric, counts: PerformanceCounts, contract: ModelContract, holdout: Holdout | None
) -> MetricValueRecord:
    now = metric.estimate(counts, positive_index(contract))
    then, rows = (None, 0) if holdout is None else (holdout.metrics.get(metric.name), holdout.rows)
    fallen = drop(metric, now, then, rows)
    return {
        "metric": metric.name,
        "value": now.value,
        "low": now.low,
        "high": now.high,
        "n": now.n,
        "interval": now.interval,
        "error": now.error,
        "holdout": fallen.holdout,
        "drop": fallen.drop,
        "p_value": fallen.p_value,
    }


def _label_share(counts: PerformanceCounts) -> float | None:
    """Labelled among those that can ever be labelled; None where there are none."""
    possible = counts.tallies["labelable"]
    return min(counts.tallies["labelled"] / possible, 1.0) if possible > 0 else None


def _verdict(contract: ModelContract, record: PerformanceReportRecord) -> tuple[str, list[str]]:
    share, labelled = record["label_share"], record["labelled"]
    if share is None:
        return "undefined", ["none of the predictions can ever be labelled"]
    if not record["mature"]:
        return "immature", [f"{share:.1%} of the labels are in; {contract.quality.mature:.1%} are needed"]
    if labelled < LEAST_LABELLED:
        return "too-few", [f"{labelled} labelled outcomes; {LEAST_LABELLED} are the least"]
    if record["against"] is not None or record["segment"] or not contract.quality.drop:
        return "ok", []
    watched = [metric for metric in record["metrics"] if metric["metric"] in contract.quality.drop]
    fallen = [_drop_text(metric) for metric in watched if dropped(contract, metric)]
    if fallen:
        return "drop", fallen
    if all(metric["drop"] is None for metric in watched):
        no_holdout, no_value = "the package has no holdout value", "not defined on these outcomes"
        whys = [(m["metric"], no_holdout if m["holdout"] is None else no_value) for m in watched]
        return "undefined", [f"{name}: {why}" for name, why in whys]
    return "ok", []


def _drop_text(metric: MetricValueRecord) -> str:
    return (
        f"{metric['metric']} {metric['value']:.4g} against {metric['holdout']:.4g} on the holdout "
        f"(p {metric['p_value']:.2g})"
    )


def _report_id(window: JudgedWindow, subject: PerformanceSubject) -> str:
    version, role, _, segment, against = subject
    about = (version, role, segment, "" if against is None else against)
    return record_id("performance", window.model, *about, window.start, window.age_ms, window.applied.digest)
