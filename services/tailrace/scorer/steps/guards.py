"""Has GUARDS look at rows and at the version's outputs, and notes how sure an answer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tailrace.models.guards.domain_kernels  # noqa: F401 - at start, so that no request waits for it
from tailrace.contracts.language.guards.guard import Distances, Finding
from tailrace.contracts.language.guards.guards import GUARDS
from tailrace.models.columns import Coded
from tailrace.models.formats.load import LoadedModel
from tailrace.models.guards.prediction_sets import PredictionSets, uncertainty
from tailrace.models.predictions import Predictions
from tailrace.scorer.routed_rows import RoutedRows
from tailrace.scorer.rows import Findings


@dataclass(frozen=True)
class _Guarded:
    """Rows at a version: see `GuardedRows`."""

    columns: Mapping[str, Coded]
    outputs: Predictions
    rows: int
    model: LoadedModel

    def distances(self, level: float) -> Distances | None:
        reference = self.model.reference
        if reference is None or reference.domain is None:
            return None
        inputs, domain = self.model.manifest.inputs, reference.domain
        measured = domain.measure(self.columns, self.rows, inputs)
        return Distances(*measured, [each.name for each in inputs], domain.distances.at(level))


def inspect_rows(routed: RoutedRows) -> None:
    """Flags the rows in which a guard finds something; the policy decides what comes of it."""
    for findings in _findings(routed, "rows"):
        routed.findings.add(findings, "guarded")


def inspect_outputs(routed: RoutedRows) -> None:
    """Finds the answers that cannot be used; of several guards the first says why."""
    for findings in _findings(routed, "outputs"):
        routed.broken = {**findings, **routed.broken}


def _findings(routed: RoutedRows, at: str) -> Iterator[Mapping[int, Finding]]:
    guardrails = routed.plan.contract.guardrails
    guarded = _Guarded(routed.rows.columns, routed.outputs, len(routed), routed.model)
    for guard in GUARDS:
        setting = guardrails.of(guard)
        if guard.look and guard.looks_at == at and (guard.section is None or setting is not None):
            yield guard.look(setting, guarded)


def note_certainty(routed: RoutedRows) -> None:
    """Notes sets or intervals where the contract asks for a coverage."""
    note_uncertainty(routed.findings, routed.outputs, routed.model, routed.plan.contract.guardrails.coverage)


def note_uncertainty(
    findings: Findings, outputs: Predictions, model: LoadedModel, coverage: float | None
) -> None:
    """Notes the set or the interval of each answer, and raises the flag of those that are uncertain.

    Nothing is noted where the contract asks for no coverage, or the package is of before it could know.
    """
    quantiles = model.manifest.conformal
    if coverage is None or quantiles is None:
        return
    findings.uncertainty = known = uncertainty(outputs, quantiles, coverage)
    if isinstance(known, PredictionSets) and known.uncertain.any():
        findings.flags["uncertain"] = known.uncertain
