"""The accounts of what the loop decided: rollout steps, reports, training runs. Plain folds over decoded records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from tailrace.contracts.records.record_types import (
    DriftReportRecord,
    PerformanceReportRecord,
    RolloutRecord,
    TrainingRunRecord,
)
from tailrace.contracts.state.contracts import Contracts
from tailrace.streaming.records import RecordRef
from tailrace.verify.check import AccountProblem

Report: TypeAlias = DriftReportRecord | PerformanceReportRecord

ENDS = frozenset({"published", "rejected", "failed"})
"""States that a training run ends in."""


class InForce(NamedTuple):
    """Who answers under a revision."""

    champion: int | None
    shadow: frozenset[int]
    canary: int | None = None
    arms: frozenset[int] = frozenset()


class Published(NamedTuple):
    """A version as published: its manifest's digest, and that of its content, where that can be read."""

    digest: str
    content: str | None


@dataclass
class Decisions:
    """What was decided, and whether it hangs together.

    Records are taken in their topic's order; versions and contracts may come at any time before `problems`.
    """

    contracts: Contracts
    versions: dict[tuple[str, int], Published] = field(default_factory=dict)
    revisions: dict[tuple[str, int], InForce] = field(default_factory=dict)
    _at: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _steps: list[tuple[RecordRef, RolloutRecord]] = field(default_factory=list)
    _reports: dict[str, RecordRef] = field(default_factory=dict)
    _about: list[tuple[RecordRef, Report, str]] = field(default_factory=list)
    _runs: dict[str, list[tuple[RecordRef, TrainingRunRecord]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def rollout(self, at: RecordRef, record: RolloutRecord) -> Iterator[AccountProblem]:
        """A step: in force where it is the first to follow the revision before it, and as if unwritten otherwise."""
        model, revision = record["model"], record["revision"]
        if record["follows"] != self._at[model]:
            return
        if revision != record["follows"] + 1:
            detail = f"revision {revision} of {model} follows {record['follows']}: it can never be in force"
            yield AccountProblem("rollout-misnumbered", *at, detail)
            return
        self._at[model] = revision
        self.revisions[model, revision] = InForce(
            record["champion"],
            frozenset(record["shadow"]),
            record["canary"] and record["canary"]["version"],
            frozenset(arm["version"] for arm in (record["experiment"] or {"arms": []})["arms"]),
        )
        self._steps.append((at, record))

    def report(self, at: RecordRef, record: Report) -> Iterator[AccountProblem]:
        """A drift or performance report: there is one of each id."""
        report = record["report_id"]
        first = self._reports.setdefault(report, at)
        if first != at:
            yield AccountProblem("report-twice", *at, f"report {report} is at {first} already")
        self._about.append((at, record, f"report {report}"))

    def run(self, at: RecordRef, record: TrainingRunRecord) -> None:
        """A step of a training run."""
        self._runs[record["run_id"]].append((at, record))

    def answers(self, model: str, revision: int, role: str, version: int) -> bool:
        """Whether this version had this role under this revision."""
        state = self.revisions[model, revision]
        if role in ("shadow", "arm"):
            return version in (state.shadow if role == "shadow" else state.arms)
        return version == (state.canary if role == "canary" else state.champion)

    def problems(self) -> Iterator[AccountProblem]:
        """What can only be known once everything has been read."""
        for at, record in self._steps:
            named = {record["champion"], record["version"], *record["shadow"], *record["candidates"]}
            for version in sorted(version for version in named if version is not None):
                if (record["model"], version) not in self.versions:
                    detail = (
                        f"revision {record['revision']} names version {version}, which was never published"
                    )
                    yield AccountProblem("rollout-unpublished", *at, detail)
        for at, report, what in self._about:
            yield from self._grounded(at, report, what)
        for run, steps in self._runs.items():
            yield from self._run(run, steps)

    def _grounded(self, at: RecordRef, record: Report, what: str) -> Iterator[AccountProblem]:
        """A report is about a version and a contract that exist."""
        model, version = record["model"], record["version"]
        published = self.versions.get((model, version))
        if published is None or published.digest != record["artifact_digest"]:
            detail = f"{what} is about {model} version {version} ({record['artifact_digest'][:12]}), never published"
            yield AccountProblem("report-unpublished", *at, detail)
        applied = self.contracts.by_digest.get(record["contract_digest"])
        if applied is None or applied.model != model:
            detail = f"{what} is by contract {record['contract_digest'][:12]} of {model}, never in force"
            yield AccountProblem("report-unapplied", *at, detail)

    def _run(self, run: str, steps: list[tuple[RecordRef, TrainingRunRecord]]) -> Iterator[AccountProblem]:
        planned = [at for at, step in steps if step["state"] == "planned"]
        (begun, first), *_ = steps
        if first["state"] != "planned":
            yield AccountProblem("run-unplanned", *begun, f"training run {run} begins without a plan")
        for at in planned[1:]:
            detail = f"training run {run} is planned at {planned[0]} already"
            yield AccountProblem("run-planned-twice", *at, detail)
        ended: RecordRef | None = None
        for at, step in steps:
            if ended is not None:
                detail = f"training run {run} goes on after its end at {ended}"
                yield AccountProblem("run-ended-twice", *at, detail)
            elif step["state"] in ENDS:
                ended = at
                if step["state"] == "published":
                    yield from self._published(at, step)

    def _published(self, at: RecordRef, step: TrainingRunRecord) -> Iterator[AccountProblem]:
        run, model, version = step["run_id"], step["model"], step["version"]
        published = self.versions.get((model, version or 0))
        if published is None:
            detail = f"training run {run} published version {version} of {model}, which is not there"
            yield AccountProblem("run-unpublished", *at, detail)
        elif published.content != step["content_digest"]:
            made = str(step["content_digest"])[:12]
            detail = f"training run {run} made {made}, version {version} of {model} is something else"
            yield AccountProblem("run-unpublished", *at, detail)
