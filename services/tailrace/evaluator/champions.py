"""Who was champion in a window, whose answers alerts are about."""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.evaluator.counts import PerformanceCounts
from tailrace.evaluator.subject import PerformanceSubject
from tailrace.windows.subject import read_subject

CHAMPION = "champion"


def champions(subjects: Mapping[str, PerformanceCounts]) -> dict[int, dict[str, PerformanceCounts]]:
    """By version and role, what the champions of a window answered, on all rows: as champion, and then as an arm of an
    experiment. Of an experiment over all keys there is only the latter.
    """
    answered: dict[int, dict[str, PerformanceCounts]] = {}
    read = [(read_subject(PerformanceSubject, text), counts) for text, counts in subjects.items()]
    for subject, counts in sorted(read, key=lambda each: (each[0].version, each[0].role != CHAMPION)):
        champion = subject.role == CHAMPION or counts.tallies["champions_arm"] > 0
        if champion and not subject.segment and subject.against is None and counts.tallies["predictions"] > 0:
            roles = answered.setdefault(subject.version, {})
            roles[subject.role] = roles.get(subject.role, PerformanceCounts()) + counts
    return answered
