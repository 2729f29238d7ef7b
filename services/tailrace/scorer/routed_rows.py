"""Rows on their way through the steps of the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tailrace.avro.columns.decoder import Ints
from tailrace.contracts.language.guards.guard import Finding
from tailrace.models.columns import Array
from tailrace.models.formats.load import LoadedModel
from tailrace.models.predictions import Predictions
from tailrace.scorer.answers import AnswerIdentity, Choice, ScoredAnswers, Unscored
from tailrace.scorer.batch import Batch
from tailrace.scorer.plans import ServingPlan
from tailrace.scorer.rows import CheckedRows, Findings, others
from tailrace.scorer.versions import ServingVersion
from tailrace.streaming.processor import Clock

NOTHING_SAID = Unscored(None, None, None, ())


@dataclass
class RoutedRows:
    """Rows of one model that go to one version, and what the steps have come to.

    Attributes:
        batch: takes the events.
        received: the rows with nothing filled in.
        version: who is run, if anybody.
        previous: whom the contract's fallback may ask.
        rows: those that are still to be answered; by row are ``findings``, ``outputs`` and ``choices``.
        broken: rows whose outputs cannot be used, and what a guard found.
        failed: rows on which the model fails, and why.
        choices: what is done, by number of the ``options``, each with its propensity.
    """

    batch: Batch
    clock: Clock
    received: CheckedRows
    identity: AnswerIdentity
    findings: Findings
    version: ServingVersion | None = None
    previous: ServingVersion | None = None
    rows: CheckedRows = field(init=False)
    outputs: Predictions = NOTHING_SAID
    broken: dict[int, Finding] = field(default_factory=dict)
    failed: dict[int, Finding] = field(default_factory=dict)
    choices: Array = field(init=False)
    options: Sequence[Choice] = ()
    propensities: Sequence[float] = ()
    answers: ScoredAnswers = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.received

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def plan(self) -> ServingPlan:
        return self.received.plan

    @property
    def model(self) -> LoadedModel:
        assert self.version is not None, "a step runs a version where there is none"
        return self.version.model

    def part(self, rows: Ints, **identity: Any) -> RoutedRows:
        """Some of the rows as they were received, to be answered by something else."""
        return RoutedRows(
            self.batch,
            self.clock,
            self.received.take(rows),
            replace(self.identity, **identity),
            self.findings.take(rows),
            previous=self.previous,
        )

    def leave_out(self, rows: Collection[int]) -> None:
        """Goes on without these rows."""
        if rows:
            kept = others(rows, len(self))
            self.rows, self.outputs = self.rows.take(kept), self.outputs.take(kept)
            self.findings = self.findings.take(kept)


Step = Callable[[RoutedRows], None]


def run_steps(steps: Iterable[Step], routed: RoutedRows) -> None:
    """Runs one step after the other for as long as there are rows."""
    for step in steps:
        if not len(routed):
            return
        step(routed)
