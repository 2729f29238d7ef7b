"""From predictions and outcomes to additive counts by window, age, version, role and slice.

A prediction counts at the first age that its partition's stream time had not passed, an outcome at the first age by
which it was known. An outcome that replaces another takes back what that one said.

Tallies of a version:

- ``predictions``: of the window, by the predictions' topic; less those found to repeat a request.
- ``slow``: those of them whose answer took longer than the contract's latency level.
- ``fallbacks``: those of them that something else than the version answered.
- ``labelable``: those of them whose truth can ever be known. The policy's action decides, until an outcome says what
  was really done. In shadow all count, until an outcome says what the version that answered did.
- ``labelled``: outcomes with a truth, ``assumed`` ones among them; ``unlabelled``: those that reached the horizon
  without.
- ``late``: labels that were late, those among them that were corrected since.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from tailrace.avro.columns.categorical_column import CategoricalColumn
from tailrace.avro.columns.numbering import distinct_numbers
from tailrace.evaluator.contributions import Contributions, contributions
from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.plan import EvaluationPlan
from tailrace.evaluator.rows import LoggedAnswers, OutcomeRows, Predicted
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.statistics.exact_sum import sums_by_group
from tailrace.statistics.metrics import COVERAGE, METRIC
from tailrace.statistics.result import Floats, Ints, Mask
from tailrace.statistics.score_counts import count_scores, score_keys


class CountedOutcomes(NamedTuple):
    """What is added to one subject of one window."""

    window_start: int
    age: int
    subject: PerformanceSubject
    counts: PerformanceCounts


def count_predictions(plan: EvaluationPlan, rows: Predicted, before: Ints) -> list[CountedOutcomes]:
    """``before``: the stream time of each prediction's partition before it."""
    groups = _Groups(plan, rows, np.maximum(rows.event_times, before))
    return _counted_predictions(groups, plan, rows, np.arange(len(before)), 1)


def count_outcomes(plan: EvaluationPlan, rows: OutcomeRows) -> list[CountedOutcomes]:
    """What each outcome adds, less what the one that it replaces had added."""
    groups = _Groups(plan, rows.predicted, rows.known_at)
    repeats = np.flatnonzero(rows.duplicate & rows.first)
    counted = _counted_predictions(groups, plan, rows.predicted, repeats, -1)

    judged = contributions(plan, rows)
    counted += groups.counted(judged.at, _judged(judged, rows))

    paired = np.flatnonzero(rows.against[judged.at] >= 0)
    if len(paired):
        both = judged.take(paired)
        counted += groups.counted(both.at, _paired(both, rows), rows.against)
    return counted


def _counted_predictions(
    groups: _Groups, plan: EvaluationPlan, rows: Predicted, at: Ints, sign: int
) -> list[CountedOutcomes]:
    """How many predictions there are at these rows, and how the answers came about."""
    flags = {
        "predictions": np.ones(len(rows.at), dtype=np.bool_),
        "labelable": _labelable(plan, rows.role, rows.answers.action),
        "champions_arm": rows.champions_arm,
        "fallbacks": rows.fallback,
        "slow": rows.slow,
    }
    tallies = {name: sign * flag[at].astype(np.int64) for name, flag in flags.items()}
    return groups.counted(at, _Tallies(tallies))


_Counter: TypeAlias = Callable[[Ints, Ints, int], list[PerformanceCounts]]
"""Counts of each of so many groups (the last argument), from these rows and the group of each."""


class _Groups:
    """Which window, age and version each row is of, and in which slices it is."""

    def __init__(self, plan: EvaluationPlan, rows: Predicted, times: Ints) -> None:
        starts = rows.event_times // plan.window_ms * plan.window_ms
        ages = plan.age_of(starts + plan.window_ms, times)
        # What comes after the last age is never judged.
        self._in_time = ages < len(plan.ages)
        self._facts = (starts, ages, rows.version, rows.role.objects(), rows.artifact.objects())
        numbered = (starts // plan.window_ms, ages, rows.version, rows.role.codes, rows.artifact.codes)
        self._base = functools.reduce(_combined, numbered, np.zeros(len(starts), dtype=np.int64))
        self._segments = plan.segments(rows.columns, len(starts))

    def counted(self, at: Ints, count: _Counter, against: Ints | None = None) -> list[CountedOutcomes]:
        """What the counter counts of each subject; row i of its rows is of the message ``at[i]``."""
        counted = []
        base = (self._base if against is None else _combined(self._base, against))[at]
        for names, codes in self._segments:
            rows = np.flatnonzero(self._in_time[at] & (codes[at] >= 0))
            cells, group = distinct_numbers(base[rows] * len(names) + codes[at][rows])
            examples = np.zeros(len(cells), dtype=np.int64)
            examples[group] = at[rows]
            counts_of = count(rows, group, len(cells))
            for cell, row, counts in zip(cells, examples.tolist(), counts_of, strict=True):
                start, age, version, role, artifact = (fact[row] for fact in self._facts)
                other = None if against is None else int(against[row])
                subject = PerformanceSubject(int(version), role, artifact, names[cell % len(names)], other)
                counted.append(CountedOutcomes(int(start), int(age), subject, counts))
        return counted


def _combined(numbers: Ints, others: Ints) -> Ints:
    """A number for each pair of numbers."""
    distinct, where = distinct_numbers(others)
    return distinct_numbers(numbers * len(distinct) + where)[1]


class _Tallies:
    """Whole numbers by name and row."""

    def __init__(self, numbers: Mapping[str, Ints]) -> None:
        self._numbers = numbers

    def __call__(self, rows: Ints, group: Ints, groups: int) -> list[PerformanceCounts]:
        counted = [PerformanceCounts() for _ in range(groups)]
        for name, numbers in self._numbers.items():
            totals = np.zeros(groups, dtype=np.int64)
            np.add.at(totals, group, numbers[rows])
            for counts, total in zip(counted, totals.tolist(), strict=True):
                if total:
                    counts.tallies[name] = total
        return counted


class _Statistics:
    """Answers against the truth: of one version, or of two side by side.

    Args:
        quantities: by name, NaN where a row has none.
        versions: what each of them judged.
    """

    def __init__(
        self,
        judged: Contributions,
        tallies: Mapping[str, Ints],
        quantities: Mapping[str, Floats],
        *versions: LoggedAnswers,
    ) -> None:
        classes = np.where(judged.known, judged.classes, -1)
        scores = np.column_stack([answers.score for answers in versions])
        self._signs = judged.signs
        self._tallies = _Tallies(tallies)
        self._quantities = quantities
        # The number of the true class, then of the predicted one of each version.
        self._table = np.column_stack([classes, *(answers.chosen for answers in versions)])
        self._tabled: Mask = np.all(self._table >= 0, axis=1)
        self._positive = judged.positive if judged.plan.contract.task == "binary" else None
        self._scored: Mask = (classes >= 0) & ~np.isnan(scores).any(axis=1)
        self._keys = score_keys(np.nan_to_num(scores))

    def __call__(self, rows: Ints, group: Ints, groups: int) -> list[PerformanceCounts]:
        counted = self._tallies(rows, group, groups)
        for name, values in self._quantities.items():
            sums = sums_by_group(values[rows], self._signs[rows], group, groups)
            for counts, total in zip(counted, sums, strict=True):
                if any(total):
                    counts.sums[name] = total
        self._add_tables(counted, rows, group)
        if self._positive is None:
            return counted
        return self._with_scores(counted, rows[self._scored[rows]], group[self._scored[rows]], self._positive)

    def _add_tables(self, counted: list[PerformanceCounts], rows: Ints, group: Ints) -> None:
        group, rows = group[self._tabled[rows]], rows[self._tabled[rows]]
        if not len(rows):
            return
        table = self._table[rows]
        shape = (len(counted), *[int(table.max()) + 1] * table.shape[1])
        cells, where = distinct_numbers(np.ravel_multi_index((group, *table.T), shape))
        totals = np.zeros(len(cells), dtype=np.int64)
        np.add.at(totals, where, self._signs[rows])
        for cell, total in zip(cells.tolist(), totals.tolist(), strict=True):
            if total:
                of, *classes = np.unravel_index(cell, shape)
                counted[int(of)].table[tuple(map(int, classes))] = total

    def _with_scores(
        self, counted: list[PerformanceCounts], rows: Ints, group: Ints, positive: Mask
    ) -> list[PerformanceCounts]:
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(len(counted) + 1))
        for of, counts in enumerate(counted):
            own = rows[order[ends[of] : ends[of + 1]]]
            if len(own):
                scores = count_scores(self._keys[own], positive[own], self._signs[own])
                counted[of] = replace(counts, scores=scores)
        return counted


def _judged(judged: Contributions, rows: OutcomeRows) -> _Statistics:
    """A version's answers."""
    answers, taken = judged.answers, judged.truth.action_taken
    is_shadow = rows.against[judged.at] >= 0
    answered = rows.champion.action.take(judged.at).where(is_shadow, answers.action)
    done = taken.where(taken.codes >= 0, answered)
    possible = judged.known | judged.plan.can_be_labelled(done)
    roles = rows.predicted.role.take(judged.at)
    adjusted = possible.astype(np.int64) - _labelable(judged.plan, roles, answers.action)
    tallies = {**_states(judged, rows), "labelable": judged.signs * adjusted}
    # Nothing was done on what a shadow judged: its answers are worth what its own policy would have made of them.
    own_or_taken = taken.where(~is_shadow & (taken.codes >= 0), answers.action)
    quantities = judged.quantities(answers, own_or_taken) | {COVERAGE.name: judged.covered(answers)}
    return _Statistics(judged, tallies, quantities, answers)


def _paired(judged: Contributions, rows: OutcomeRows) -> _Statistics:
    """Two versions' answers to the same requests, by what the policy makes of either."""
    versions = (judged.answers, rows.champion.take(judged.at))
    version, against = (judged.quantities(answers, answers.action) for answers in versions)
    quantities: dict[str, Floats] = {}
    for name, mine in version.items():
        theirs = against[name]
        missing = np.isnan(mine) | np.isnan(theirs)
        mine, theirs = np.where(missing, np.nan, mine), np.where(missing, np.nan, theirs)
        with np.errstate(over="ignore", invalid="ignore"):
            better = mine - theirs if METRIC[name].better == "higher" else theirs - mine
        quantities |= {name: better, f"{name}.version": mine, f"{name}.against": theirs}
    return _Statistics(judged, _states(judged, rows), quantities, *versions)


def _labelable(plan: EvaluationPlan, roles: CategoricalColumn, actions: CategoricalColumn) -> Mask:
    """Whether the truth may become known, as far as a prediction says. What is done about a request in shadow is what
    the version that answered says, which is not known yet.
    """
    return plan.can_be_labelled(actions) | roles.isin(("shadow",))


def _states(judged: Contributions, rows: OutcomeRows) -> dict[str, Ints]:
    return {
        "labelled": judged.signs * judged.known,
        "assumed": judged.signs * judged.truth.state.isin(("assumed",)),
        "unlabelled": judged.signs * judged.truth.state.isin(("unlabelled",)),
        "late": np.where(judged.signs > 0, rows.late[judged.at], 0),
    }
