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

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

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
    pair = np.full(len(rows.known_at), -1, dtype=np.int64)
    pair[rows.against >= 0] = np.arange(len(rows.champion.action))
    found += groups.counted(said.at, _judged(said, rows, pair[said.at]))

    paired = np.flatnonzero(pair[said.at] >= 0)
    if len(paired):
        both = said.take(paired)
        found += groups.counted(both.at, _paired(both, rows, pair[both.at]), rows.against)
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
        self._facts = list(
            zip(starts.tolist(), ages.tolist(), rows.version, rows.role, rows.artifact, strict=True)
        )
        self._segments = plan.segments(rows.fields, len(starts))

    def counted(self, at: Ints, count: _Counter, against: Ints | None = None) -> list[CountedOutcomes]:
        """What the counter counts of each subject; row i of its rows is of the message ``at[i]``."""
        if not len(at):
            return []
        others = [None] * len(at) if against is None else against[at].tolist()
        known: dict[Any, int] = {}
        base = np.array(
            [
                known.setdefault((self._facts[row], other), len(known))
                for row, other in zip(at.tolist(), others, strict=True)
            ],
            dtype=np.int64,
        )
        heads = list(known)
        found = []
        for names, codes in self._segments:
            rows = np.flatnonzero(self._in_time[at] & (codes[at] >= 0))
            cells, group = _numbered(base[rows] * len(names) + codes[at][rows])
            for cell, counts in zip(cells.tolist(), count(rows, group, len(cells)), strict=True):
                (start, age, version, role, artifact), other = heads[cell // len(names)]
                about = PerformanceSubject(version, role, artifact, names[cell % len(names)], other)
                found.append(CountedOutcomes(start, age, about, counts))
        return found


def _numbered(values: Ints) -> tuple[Ints, Ints]:
    """The distinct values, ascending, and which of them each is; the values are few, or small."""
    if not len(values) or values.max() > 100 * len(values):
        distinct, where = np.unique(values, return_inverse=True)
        return distinct, where
    distinct = np.flatnonzero(np.bincount(values))
    numbers = np.zeros(int(values.max()) + 1, dtype=np.int64)
    numbers[distinct] = np.arange(len(distinct))
    return distinct, numbers[values]


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
        cells, where = _numbered(
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


def _judged(said: Contributions, rows: OutcomeRows, pair: Ints) -> _Statistics:
    """A version's answers; ``pair`` is where in ``rows.champion`` the answer of the version is that answered instead
    of it, -1 where it answered itself.
    """
    answers, taken, pairs = said.answers, said.truth.action_taken, pair.tolist()
    answered = [
        own if other < 0 else rows.champion.action[other]
        for own, other in zip(answers.action, pairs, strict=True)
    ]
    done = [one or other for one, other in zip(taken, answered, strict=True)]
    possible = said.known | said.plan.can_be_labelled(done)
    roles = [rows.predicted.role[row] for row in said.at.tolist()]
    adjusted = possible.astype(np.int64) - _labelable(said.plan, roles, answers.action)
    tallies = {**_states(said, rows), "labelable": said.signs * adjusted}
    # Nothing was done on what a shadow said: its answers are worth what its own policy would have made of them.
    own_or_taken = [
        own if other >= 0 else one or own
        for own, one, other in zip(answers.action, taken, pairs, strict=True)
    ]
    quantities = said.quantities(answers, own_or_taken) | {COVERAGE.name: said.covered(answers)}
    return _statistics(said, tallies, quantities, answers)


def _paired(said: Contributions, rows: OutcomeRows, pair: Ints) -> _Statistics:
    """Two versions' answers to the same requests, by what the policy makes of either."""
    versions = (said.answers, rows.champion.take(pair))
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


def _labelable(plan: EvaluationPlan, roles: list[str], actions: list[str]) -> Mask:
    """Whether the truth may become known, as far as a prediction says. What is done about a request in shadow is what
    the version that answered says, which is not known yet.
    """
    found: Mask = plan.can_be_labelled(actions) | np.array(
        [role == "shadow" for role in roles], dtype=np.bool_
    )
    return found


def _states(said: Contributions, rows: OutcomeRows) -> dict[str, Ints]:
    return {
        "labelled": said.signs * said.known,
        "assumed": said.signs * said.in_state("assumed"),
        "unlabelled": said.signs * said.in_state("unlabelled"),
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
