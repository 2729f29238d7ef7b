"""Predictions and outcomes of one contract as columns: what the counting sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.evaluator.findings import LoggedFindings
from tailrace.models.columns import Coded
from tailrace.statistics.result import Floats, Ints, Mask


@dataclass(frozen=True)
class LoggedAnswers:
    """What a version said, row by row.

    Attributes:
        score: probability of the positive class; NaN where there is none.
        probabilities: [rows, classes] in the contract's order; NaN where there are none. [rows, 0] unless multiclass.
        chosen: number of the predicted class in the contract's order; -1 where there is none.
        value: NaN where there is none.
        action: what the policy chose.
        findings: what guards found; None where it was not read, or is not known.
    """

    score: Floats
    probabilities: Floats
    chosen: Ints
    value: Floats
    action: CategoricalColumn
    findings: LoggedFindings | None = None

    def take(self, rows: Ints) -> LoggedAnswers:
        return LoggedAnswers(
            self.score[rows],
            self.probabilities[rows],
            self.chosen[rows],
            self.value[rows],
            self.action.take(rows),
            None if self.findings is None else self.findings.take(rows),
        )


@dataclass(frozen=True)
class Predicted:
    """Predictions made under one contract.

    Attributes:
        at: where in the batch each of them is.
        event_times: in ms.
        champions_arm: where the champion answered as an arm of an experiment.
        slow: where the answer took longer than ``service_levels.latency_p99``.
        fallback: where something else than the version answered, though not because the model was off.
        columns: the fields of the request that slices and value read, as the policy saw them.
    """

    at: Ints
    event_times: Ints
    version: Ints
    role: CategoricalColumn
    artifact: CategoricalColumn
    champions_arm: Mask
    slow: Mask
    fallback: Mask
    answers: LoggedAnswers
    columns: Mapping[str, Coded]


@dataclass(frozen=True)
class GroundTruth:
    """What is known of rows.

    Attributes:
        state: labelled, unlabelled or assumed.
        label: the true value, or the number of the true class, of a boolean 0 and 1; NaN where there is none.
        action_taken: what was really done, where it was said.
    """

    state: CategoricalColumn
    label: Floats
    action_taken: CategoricalColumn

    def take(self, rows: Ints) -> GroundTruth:
        return GroundTruth(self.state.take(rows), self.label[rows], self.action_taken.take(rows))

    def where(self, condition: Mask, other: GroundTruth) -> GroundTruth:
        """This where the condition is true, and the other elsewhere."""
        return GroundTruth(
            self.state.where(condition, other.state),
            np.where(condition, self.label, other.label),
            self.action_taken.where(condition, other.action_taken),
        )


@dataclass(frozen=True)
class OutcomeRows:
    """Outcomes of predictions made under one contract.

    Attributes:
        known_at: in ms.
        first: whether it is the prediction's first outcome.
        duplicate: whether the prediction repeats a request that counts already.
        late: whether it brings a label, and one that was late.
        before: what the outcome that this one replaces said; it has no state where there is none.
        against: version that answered the same request; -1 where the row is not of a shadow.
        champion: what it answered.
    """

    predicted: Predicted
    known_at: Ints
    first: Mask
    duplicate: Mask
    late: Mask
    truth: GroundTruth
    before: GroundTruth
    against: Ints
    champion: LoggedAnswers
