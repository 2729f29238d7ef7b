"""The scorer's logic: requests in; predictions, dead letters and marks out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.contracts.language.guards.guard import Finding
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.lane_clocks import LaneClocks
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.catalog import Catalog, Verify
from tailrace.models.package.fingerprint import runtime_versions
from tailrace.models.rollout_state.fold import Rollouts
from tailrace.scorer.batch import Batch
from tailrace.scorer.pipeline import answer, answer_off
from tailrace.scorer.plans import LanePlans
from tailrace.scorer.rows import CheckedRows, Requests
from tailrace.scorer.serving.alerts import ScorerAlerts
from tailrace.scorer.serving.dead_letters import DeadLetterCount, count_dead_letters
from tailrace.scorer.serving.handover import Handovers
from tailrace.scorer.serving.load_shedding import TOO_SLOW, LatencyEstimates, shed_load
from tailrace.scorer.serving.metrics import ServingMetrics
from tailrace.scorer.serving.paused_partitions import PausedPartitions
from tailrace.scorer.serving.quarantine import InFlight, Quarantined, VersionQuarantine
from tailrace.scorer.steps.check_input import check
from tailrace.scorer.steps.read_request import read_requests
from tailrace.scorer.steps.route import Route, route
from tailrace.scorer.versions import OpenVersion, Role, Serving, Versions
from tailrace.scorer.watermarks import pass_on, refuse_marks_ahead, require_time, tell_time
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.processor import Clock, Output, Suspect
from tailrace.streaming.records import DeadLetter, Message, Record, Runs, TopicPartition
from tailrace.telemetry.reasons import one_of

log = logging.getLogger(__name__)

_QUARANTINED = Finding("quarantined", None, "processes died with the version in flight")
_OF_THE_MOMENT = {finding.guard: finding for finding in (TOO_SLOW, _QUARANTINED)}


class _Told(NamedTuple):
    """What a batch's output tells people and how far it tells the time, to be told once it is committed."""

    refusals: int
    failing: set[tuple[str, int]]
    quarantined: list[Quarantined]
    clocks: dict[TopicPartition, int]
    counts: dict[TopicPartition, DeadLetterCount]
    work: Batch
    clock: Clock


class ScoringProcessor:
    """Scores requests as champion, or as shadow.

    Args:
        role: ``champion`` answers; ``shadow`` scores with the versions that the rollouts name as shadow,
            writes to the lane's shadow predictions, and writes no dead letters, since the champion's scorer
            does.
        records: reads and writes control records; where schemas are, it knows.
        open_version: opens a package, given its manifest record and the contract; raises PackageRefused,
            Unavailable.
        executor: runs ``open_version`` in the background.
        verify: checks again who has signed what was opened a while ago; raises PackageRefused.
    """

    def __init__(
        self,
        role: Role,
        records: ControlRecords,
        open_version: OpenVersion,
        executor: Executor,
        verify: Verify | None = None,
    ) -> None:
        self._role: Role = role
        registry = records.registry
        self._codec = Codec(registry)
        self._control_records = records
        self._alerts = ScorerAlerts(role, records)
        self._contracts = Contracts()
        self._catalog = Catalog(verify)
        self._rollouts = Rollouts()
        self._lane_clocks = LaneClocks()
        self._state = ControlState(records, self._contracts, self._catalog, self._rollouts, self._lane_clocks)
        self._plans = LanePlans(role, self._codec, registry)
        self._versions = Versions(
            role, self._contracts, self._catalog, self._rollouts, open_version, executor, verify
        )
        self._quarantine = VersionQuarantine(role, self._rollouts)
        self._in_flight = InFlight(role, self._plans, self._versions, self._catalog, self._quarantine)
        self._prepared = False
        self._handovers = Handovers(
            self._plans, self._contracts, self._rollouts, self._versions, self._quarantine
        )
        self._holds = PausedPartitions(role, self._rollouts, self._versions, self._handovers, self._in_flight)
        self._pace = LatencyEstimates()
        self._served = ServingMetrics()
        self._changes = 0
        self._logged: str | None = None
        self._runtime = dict(runtime_versions())
        self._clocks: dict[TopicPartition, int] = {}
        self._counts: dict[TopicPartition, DeadLetterCount] = {}
        # Shadows that are known to fail.
        self._failing: set[tuple[str, int]] = set()
        self._latest: Batch | None = None

    # The seam to the loop ---

    def control_topics(self) -> Sequence[str]:
        return self._state.topics

    def topics(self) -> frozenset[str]:
        return frozenset(self._plans.by_topic)

    def control(self, messages: Sequence[Message]) -> None:
        for taken in self._state.each(messages):
            if taken.topic == CONTRACTS:
                self._handovers.contracts_position = taken.message.offset() + 1
                if taken.came and taken.record is not None:
                    self._plans.take(self._contracts.current[taken.record["model"]])
        self._versions.take_up()

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None:
        for partition, (_, metadata) in partitions.items():
            try:
                left = self._handovers.take(partition, metadata)
            except ValueError as error:
                log.warning("ignored what the last owner left", extra={"why": str(error)})
            else:
                self._quarantine.add(left.quarantined)
                self._counts[partition] = DeadLetterCount(*left.count)

    def restore(self, messages: Sequence[Message]) -> None:
        """Nothing is asked for."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._handovers.forget(partition)
            self._holds.forget(partition)
            self._clocks.pop(partition, None)
            self._counts.pop(partition, None)

    def in_flight(self, topics: Collection[str], suspects: Mapping[TopicPartition, Suspect]) -> Sequence[str]:
        """The versions that may run and that can be done without; what was published last comes first."""
        self._prepared = True
        self._versions.take_up()
        return self._in_flight.name(topics, suspects)

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        work = Batch.of(batch, clock.perf_ns())
        if not self._prepared:
            self.in_flight(set(work.topics), {})
        self._prepared = False
        self._codec.begin_batch()
        work.requests, work.marks, work.bad = read_requests(batch, work.topics, self._plans.by_topic)
        refuse_marks_ahead(work, self._plans.ahead_ms)
        require_time(work, self._lane_clocks.is_replayed)
        output = Output(paused=self._holds.of(work))
        if output.paused:
            work.cut(output.paused)
        pass_on(work, self._plans.predictions)
        for requests in work.requests:
            self._answer(work, requests, clock)
        clocks = tell_time(work, work.requests, self._clocks, self._plans.step_ms, self._plans.predictions)
        output.records = work.records()
        quarantined = self._in_flight.to_blame(work, output.paused)
        counts: dict[TopicPartition, DeadLetterCount] = {}
        if self._role == "champion":
            counts, alerts = count_dead_letters(work, self._counts, self._plans.levels, output.paused)
            _add(output, [self._control_records.record("Alert", alert) for alert in alerts])
            output.dead_letters = [
                DeadLetter(
                    self._plans.dead_letters(work.topics[at]), batch[at], bad.code, bad.reason, bad.field
                )
                for at, bad in sorted(work.bad.items())
            ]
        told = self._tell(work, output, clocks, quarantined, counts, clock)
        output.pipelined = not (output.paused or told.refusals or told.failing or told.quarantined)
        if output.pipelined:
            self._apply(told)
        output.on_committed = partial(self._committed, told, is_applied=output.pipelined)
        self._latest = work
        left = self._handovers.leave(work.places, quarantined)
        output.metadata = left.to_metadata()
        output.metadata_of = {
            partition: replace(left, count=count.to_json()).to_metadata()
            for partition, count in counts.items()
        }
        return output

    def _committed(self, told: _Told, is_applied: bool) -> None:
        if not is_applied:
            self._apply(told)
        if told.work is self._latest:
            # Otherwise the next batch's work would be in it, too.
            self._pace.learn((told.clock.perf_ns() - told.work.started_ns) / 1e6, told.work.asked)
        self._served.count(told.work, told.clock.now_ms())
        if self._versions.changes != self._changes:
            self._changes = self._versions.changes
            serving = self._versions.served()
            self._served.keep(serving)
            self._pace.keep(serving)

    def _apply(self, told: _Told) -> None:
        """Takes note of what later batches depend on."""
        del self._versions.refusals[: told.refusals]
        self._failing |= told.failing
        self._quarantine.add(told.quarantined)
        self._clocks.update(told.clocks)
        self._counts.update(told.counts)

    def waiting(self) -> str | None:
        if not self._contracts.current:
            return "no contract has been applied yet: `tailrace apply`"
        return one_of(sorted(self._holds.reasons()))

    def as_logged(self, served_cause: str | None) -> None:
        """For whoever scores logged requests again: the cause for which the next ones were answered, whatever is
        known here of processes that died and of how long things take.
        """
        self._logged = served_cause or ""

    # Steps ---

    def _answer(self, work: Batch, requests: Requests, clock: Clock) -> None:
        plan = requests.plan
        serving = self._versions.serving(plan.model)
        versions = [v for v in serving.versions if plan.misfit(v) is None] if serving else []
        if serving is None or (not versions and serving.off is None):
            return
        rows = check(work, requests)
        if serving.off is not None and len(rows):
            answer_off(work, rows, serving.off, serving, self._runtime, clock)
        ways = self._routes(rows, replace(serving, versions=tuple(versions)))
        for way, without in self._in_time(work, rows, ways, clock):
            if self._in_flight.is_left_out(plan, way.version):
                without = _QUARANTINED
                if self._role == "shadow":
                    continue
            asks = without is not TOO_SLOW and (plan.has_fallback or without)
            instead = self._in_flight.instead_of(way.version, serving, plan) if asks else None
            answer(work, rows, way, serving, self._runtime, clock, instead, without)

    def _in_time(
        self, work: Batch, rows: CheckedRows, ways: Sequence[Route], clock: Clock
    ) -> Iterator[tuple[Route, Finding | None]]:
        """The ways, each with why its version is not to answer; those of rows apart that it would answer too late."""
        if self._logged is not None:
            why = _OF_THE_MOMENT.get(self._logged)
            return ((way, why) for way in ways)
        if self._role == "shadow" or self._lane_clocks.is_replayed(rows.plan.lane.name):
            return ((way, None) for way in ways)
        return shed_load(work, rows, ways, self._pace, clock)

    def _routes(self, rows: CheckedRows, serving: Serving) -> list[Route]:
        """Which rows go to which version: in shadow all to each."""
        if not len(rows) or not serving.versions:
            return []
        if self._role == "shadow":
            return [Route(np.arange(len(rows)), version, "shadow", 1.0) for version in serving.versions]
        return route(serving, rows.keys)

    def _tell(
        self,
        work: Batch,
        output: Output,
        clocks: dict[TopicPartition, int],
        quarantined: list[Quarantined],
        counts: dict[TopicPartition, DeadLetterCount],
        clock: Clock,
    ) -> _Told:
        """Adds alerts to the output: packages refused since the last batch, once for each version that fails in shadow,
        and versions that processes died with. What it returns holds once the output is committed.
        """
        refusals = self._versions.refusals
        failing = {which: what for which, what in work.failing.items() if which not in self._failing}
        alerts = [
            *(self._alerts.refused(refusal) for refusal in refusals),
            *(
                self._alerts.shadow_failed(*which, reason, work.source(at), work.appended[at])
                for which, (at, reason) in failing.items()
            ),
            *(self._alerts.quarantined(each, work.source(-1), work.appended[-1]) for each in quarantined),
        ]
        _add(output, alerts)
        return _Told(len(refusals), set(failing), quarantined, clocks, counts, work, clock)


def _add(output: Output, alerts: Sequence[Record]) -> None:
    if alerts:
        output.records = Runs([output.records, alerts])
