"""From predictions and outcomes to additive counts by window, age, version, role and slice.

A prediction counts at the first age that its partition's clock had not passed, an outcome at the first age by which it
was known. An outcome that replaces another takes back what that one said.

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
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol

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
    """``before``: each prediction's partition clock before it."""
    groups = _Groups(plan, rows, np.maximum(rows.event_times, before))
    everything = np.arange(len(before))
    ones = np.ones(len(before), dtype=np.int64)
    labelable = _labelable(plan, rows.role, rows.answers.action)
    return groups.counted(
        everything,
        _Tallies({"predictions": ones, "labelable": ones * labelable, **_signed(ones, rows, everything)}),
    )


def count_outcomes(plan: EvaluationPlan, rows: OutcomeRows) -> list[CountedOutcomes]:
    """What each outcome adds, less what the one that it replaces had added."""
    groups = _Groups(plan, rows.predicted, rows.known_at)
    repeats = np.flatnonzero(rows.duplicate & rows.first)
    gone = -np.ones(len(repeats), dtype=np.int64)
    labelable = _labelable(plan, rows.predicted.role, rows.predicted.answers.action)[repeats]
    found = groups.counted(
        repeats,
        _Tallies(
            {"predictions": gone, "labelable": gone * labelable, **_signed(gone, rows.predicted, repeats)}
        ),
    )

    said = contributions(plan, rows)
    found += groups.counted(said.at, _judged(said, rows))

    paired = np.flatnonzero(rows.against[said.at] >= 0)
    if len(paired):
        both = said.take(paired)
        found += groups.counted(both.at, _paired(both, rows), rows.against)
    return found


def _signed(signs: Ints, rows: Predicted, at: Ints) -> dict[str, Ints]:
    """How the answers came about."""
    return {
        "champions_arm": signs * rows.champions_arm[at],
        "fallbacks": signs * rows.fallback[at],
        "slow": signs * rows.slow[at],
    }


class _Counter(Protocol):
    def __call__(self, rows: Ints, group: Ints, groups: int) -> list[PerformanceCounts]:
        """Counts of each of ``groups`` groups, from these rows and the group of each."""
        ...


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
        found = []
        base = (self._base if against is None else _combined(self._base, against))[at]
        for names, codes in self._segments:
            rows = np.flatnonzero(self._in_time[at] & (codes[at] >= 0))
            cells, group = distinct_numbers(base[rows] * len(names) + codes[at][rows])
            examples = np.zeros(len(cells), dtype=np.int64)
            examples[group] = at[rows]
            for cell, row, counts in zip(
                cells, examples.tolist(), count(rows, group, len(cells)), strict=True
            ):
                start, age, version, role, artifact = (fact[row] for fact in self._facts)
                other = None if against is None else int(against[row])
                about = PerformanceSubject(int(version), role, artifact, names[cell % len(names)], other)
                found.append(CountedOutcomes(int(start), int(age), about, counts))
        return found


def _combined(numbers: Ints, others: Ints) -> Ints:
    """A number for each pair of numbers."""
    distinct, where = distinct_numbers(others - others.min(initial=np.iinfo(np.int64).max))
    return distinct_numbers(numbers * len(distinct) + where)[1]


class _Tallies:
    """Whole numbers by name and row."""

    def __init__(self, numbers: Mapping[str, Ints]) -> None:
        self._numbers = numbers

    def __call__(self, rows: Ints, group: Ints, groups: int) -> list[PerformanceCounts]:
        found = [PerformanceCounts() for _ in range(groups)]
        for name, numbers in self._numbers.items():
            totals = np.zeros(groups, dtype=np.int64)
            np.add.at(totals, group, numbers[rows])
            for counts, total in zip(found, totals.tolist(), strict=True):
                if total:
                    counts.tallies[name] = total
        return found


class _Statistics:
    """Answers against the truth: of one version, or of two side by side.

    Args:
        quantities: by name, NaN where a row has none.
        table: number of the class, then of the predicted one of each version; -1 where there is none.
        scores: of each version, NaN where there is none.
        positive: whether the truth is the class that scores are about; None where there are no scores.
    """

    def __init__(
        self,
        signs: Ints,
        tallies: Mapping[str, Ints],
        quantities: Mapping[str, Floats],
        table: Ints,
        scores: Floats,
        positive: Mask | None,
    ) -> None:
        self._signs = signs
        self._tallies = _Tallies(tallies)
        self._quantities = quantities
        self._table = table
        self._tabled: Mask = np.all(table >= 0, axis=1)
        self._positive = positive
        self._scored: Mask = (table[:, 0] >= 0) & ~np.isnan(scores).any(axis=1)
        self._keys = score_keys(np.nan_to_num(scores))

    def __call__(self, rows: Ints, group: Ints, groups: int) -> list[PerformanceCounts]:
        found = self._tallies(rows, group, groups)
        for name, values in self._quantities.items():
            sums = sums_by_group(values[rows], self._signs[rows], group, groups)
            for counts, one in zip(found, sums, strict=True):
                if any(one):
                    counts.sums[name] = one
        self._add_tables(found, rows, group)
        if self._positive is None:
            return found
        return self._with_scores(found, rows[self._scored[rows]], group[self._scored[rows]], self._positive)

    def _add_tables(self, found: list[PerformanceCounts], rows: Ints, group: Ints) -> None:
        group, rows = group[self._tabled[rows]], rows[self._tabled[rows]]
        if not len(rows):
            return
        table = self._table[rows]
        wide = int(table.max()) + 1
        cells, where = distinct_numbers(
            np.ravel_multi_index((group, *table.T), (len(found), *[wide] * table.shape[1]))
        )
        totals = np.zeros(len(cells), dtype=np.int64)
        np.add.at(totals, where, self._signs[rows])
        for cell, total in zip(cells.tolist(), totals.tolist(), strict=True):
            if total:
                of, *classes = np.unravel_index(cell, (len(found), *[wide] * table.shape[1]))
                found[int(of)].table[tuple(map(int, classes))] = total

    def _with_scores(
        self, found: list[PerformanceCounts], rows: Ints, group: Ints, positive: Mask
    ) -> list[PerformanceCounts]:
        order = np.argsort(group, kind="stable")
        ends = np.searchsorted(group[order], np.arange(len(found) + 1))
        for of, counts in enumerate(found):
            some = rows[order[ends[of] : ends[of + 1]]]
            if len(some):
                scores = count_scores(self._keys[some], positive[some], self._signs[some])
                found[of] = replace(counts, scores=scores)
        return found


def _judged(said: Contributions, rows: OutcomeRows) -> _Statistics:
    """A version's answers."""
    answers, taken = said.answers, said.truth.action_taken
    is_shadow = rows.against[said.at] >= 0
    answered = rows.champion.action.take(said.at).where(is_shadow, answers.action)
    done = taken.where(taken.codes >= 0, answered)
    possible = said.known | said.plan.can_be_labelled(done)
    roles = rows.predicted.role.take(said.at)
    adjusted = possible.astype(np.int64) - _labelable(said.plan, roles, answers.action)
    tallies = {**_states(said, rows), "labelable": said.signs * adjusted}
    # Nothing was done on what a shadow said: its answers are worth what its own policy would have made of them.
    own_or_taken = taken.where(~is_shadow & (taken.codes >= 0), answers.action)
    quantities = said.quantities(answers, own_or_taken) | {COVERAGE.name: said.covered(answers)}
    return _statistics(said, tallies, quantities, answers)


def _paired(said: Contributions, rows: OutcomeRows) -> _Statistics:
    """Two versions' answers to the same requests, by what the policy makes of either."""
    versions = (said.answers, rows.champion.take(said.at))
    version, against = (said.quantities(answers, answers.action) for answers in versions)
    quantities: dict[str, Floats] = {}
    for name, mine in version.items():
        theirs = against[name]
        missing = np.isnan(mine) | np.isnan(theirs)
        mine, theirs = np.where(missing, np.nan, mine), np.where(missing, np.nan, theirs)
        with np.errstate(over="ignore", invalid="ignore"):
            better = mine - theirs if METRIC[name].better == "higher" else theirs - mine
        quantities |= {name: better, f"{name}.version": mine, f"{name}.against": theirs}
    return _statistics(said, _states(said, rows), quantities, *versions)


def _labelable(plan: EvaluationPlan, roles: CategoricalColumn, actions: CategoricalColumn) -> Mask:
    """Whether the truth may become known, as far as a prediction says. What is done about a request in shadow is what
    the version that answered says, which is not known yet.
    """
    return plan.can_be_labelled(actions) | roles.isin(("shadow",))


def _states(said: Contributions, rows: OutcomeRows) -> dict[str, Ints]:
    return {
        "labelled": said.signs * said.known,
        "assumed": said.signs * said.truth.state.isin(("assumed",)),
        "unlabelled": said.signs * said.truth.state.isin(("unlabelled",)),
        "late": np.where(said.signs > 0, rows.late[said.at], 0),
    }


def _statistics(
    said: Contributions,
    tallies: Mapping[str, Ints],
    quantities: Mapping[str, Floats],
    *versions: LoggedAnswers,
) -> _Statistics:
    classes = np.where(said.known, said.classes, -1)
    return _Statistics(
        said.signs,
        tallies,
        quantities,
        np.column_stack([classes, *(answers.chosen for answers in versions)]),
        np.column_stack([answers.score for answers in versions]),
        said.positive if said.plan.contract.task == "binary" else None,
    )
