"""What `verify` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tailrace.verify.check import AccountProblem

_SHOWN = 100  # problems of one check of one topic; all are counted


@dataclass
class TopicReport:
    """One topic. ``rows`` is None where there is no ClickHouse or the sink does not store the topic.

    The counts from ``requests`` on are of a requests topic only, over what is retained on both sides.
    """

    events: int = 0
    rows: int | None = None
    requests: int | None = None
    predictions: int | None = None
    dead_letters: int | None = None
    in_flight: int | None = None
    lost: int | None = None
    duplicated: int | None = None


_COUNTS = ("requests", "predictions", "dead_letters", "in_flight", "lost", "duplicated")


@dataclass
class VerifyReport:
    """Everything that was checked, per topic and in sum."""

    topics: dict[str, TopicReport] = field(default_factory=dict)
    problems: list[AccountProblem] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    rescored: int | None = None
    revoked: set[str] = field(default_factory=set)
    """Versions that were scored again although the key that signed them is revoked by now."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.counts

    def topic(self, name: str) -> TopicReport:
        return self.topics.setdefault(name, TopicReport())

    def report_problems(self, problems: Iterable[AccountProblem]) -> None:
        """Takes problems in; keeps the first of each check and topic, and counts all."""
        for problem in problems:
            self.counts[problem.check, problem.topic] += 1
            if self.counts[problem.check, problem.topic] <= _SHOWN:
                self.problems.append(problem)

    def total(self, count: str) -> int:
        return sum(getattr(topic, count) or 0 for topic in self.topics.values())

    def as_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints."""
        return {
            "ok": self.ok,
            **{name: self.total(name) for name in _COUNTS},
            "topics": {
                name: {k: v for k, v in vars(topic).items() if v is not None}
                for name, topic in sorted(self.topics.items())
            },
            "problems": [vars(problem) | {"text": str(problem)} for problem in self.problems],
            "problem_count": sum(self.counts.values()),
            "rescored": self.rescored,
            "revoked": sorted(self.revoked),
            "seconds": round(self.seconds, 2),
        }
