"""Scores logged predictions again from their packages and counts those that come to the same bits."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.connection import Connection, home_dir
from tailrace.models.package.fingerprint import runtime_versions
from tailrace.models.package.open import known_to
from tailrace.streaming.records import RecordRef
from tailrace.verify.logged import ALWAYS, Logged, LoggedPredictions, Span, messages_at, packages
from tailrace.verify.prediction_header import PredictionHeader
from tailrace.verify.rescore import Rescored, Rescorer, is_here

AT_ONCE = 10_000
"""Predictions in memory at a time."""
_SHOWN = 100


class _Group(NamedTuple):
    """Who computed predictions, and on what."""

    model: str
    version: int
    role: str
    runtime: tuple[tuple[str, str], ...]


@dataclass
class RescoringCounts:
    """``equal`` to the bit; ``near``: within the package's tolerance, where another CPU or other libraries computed
    it; ``different``; ``unanswered``: there is no answer to the request now."""

    equal: int = 0
    near: int = 0
    different: int = 0
    unanswered: int = 0

    @property
    def predictions(self) -> int:
        return self.equal + self.near + self.different + self.unanswered


class Different(NamedTuple):
    """A prediction that does not come to the same; ``differing`` as ``field: logged / again``."""

    prediction: RecordRef
    header: PredictionHeader
    differing: list[str]
    why: str


@dataclass
class Reproduced:
    """What came of it. Of what differs the first hundred are kept; ``revoked`` are versions whose key is by now."""

    groups: dict[_Group, RescoringCounts] = field(default_factory=dict)
    different: list[Different] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def total(self) -> RescoringCounts:
        every = self.groups.values()
        return RescoringCounts(*(sum(getattr(c, name) for c in every) for name in vars(RescoringCounts())))

    @property
    def ok(self) -> bool:
        """Whether nothing differs, be it to the bit or beyond the tolerance, and everything has an answer."""
        return not (self.total.different or self.total.unanswered)

    def take(self, rescored: Rescored, differing: list[str], why: str) -> None:
        header = rescored.header
        group = _Group(
            header["model"], header["version"], header["role"], tuple(sorted(header["runtime"].items()))
        )
        counts = self.groups.setdefault(group, RescoringCounts())
        if why:
            counts.unanswered += 1
        elif differing:
            counts.different += 1
        elif rescored.equal or is_here(header):
            counts.equal += 1
        else:
            counts.near += 1
        if (why or differing) and len(self.different) < _SHOWN:
            self.different.append(Different(RecordRef.of(rescored.message), header, differing, why))

    def as_dict(self) -> dict[str, Any]:
        """The form that ``--json`` prints; ``elsewhere`` is what differs from the CPU and libraries here."""
        here = runtime_versions()
        return {
            "ok": self.ok,
            "predictions": self.total.predictions,
            **vars(self.total),
            "runtime": here,
            "groups": [
                {
                    "model": group.model,
                    "version": group.version,
                    "role": group.role,
                    "cpu": dict(group.runtime).get("cpu"),
                    "elsewhere": {n: v for n, v in group.runtime if here.get(n) != v},
                    "predictions": counts.predictions,
                    **vars(counts),
                }
                for group, counts in sorted(self.groups.items())
            ],
            "differing": [
                {
                    "prediction": str(each.prediction),
                    "prediction_id": each.header["prediction_id"],
                    "request_id": each.header["request_id"],
                    "version": each.header["version"],
                    "fields": each.differing,
                    "why": each.why or None,
                }
                for each in self.different
            ],
            "revoked": sorted(self.revoked),
            "seconds": round(self.seconds, 2),
        }


def reproduce(
    connection: Connection,
    model: str,
    span: Span = ALWAYS,
    limit: int | None = None,
    name: str | None = None,
    home: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Reproduced:
    """Scores a model's logged predictions again, in batches that are not those in which they were scored.

    Args:
        span: when they were appended.
        limit: stop after so many.
        name: only those with this prediction id, or of the request with this id.
        home: where packages are cached and keys trusted.
        progress: gets how many are done.

    Raises:
        UsageError: there is no such model, or no such id.
        TailraceError, Unavailable: Kafka or the registry does not answer.
    """
    began = time.monotonic()
    report, done = Reproduced(), 0
    opened = packages(connection, home or home_dir(), report.revoked)
    with closing(LoggedPredictions(connection, model)) as logged:
        rescorer = Rescorer(logged.records, logged.control, opened, known_to(home or home_dir()))
        predictions: Iterable[Logged] = logged.read(span) if name is None else logged.by_id(name, span)
        limited = itertools.islice(predictions, limit)
        while batch := list(itertools.islice(limited, AT_ONCE)):
            for rescored in rescorer.again(batch, partial(messages_at, connection)):
                report.take(rescored, *rescorer.differences(rescored))
            done += len(batch)
            progress(done)
    report.seconds = time.monotonic() - began
    return report
