"""The scorer's processor: requests in; predictions, dead letters and watermark records out."""

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
from tailrace.contracts.records.record_types import AlertRecord
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
from tailrace.scorer.serving import watermarks
from tailrace.scorer.serving.alerts import ScorerAlerts
from tailrace.scorer.serving.dead_letters import DeadLetterCount, count_dead_letters
from tailrace.scorer.serving.handover import Handover, Handovers
from tailrace.scorer.serving.load_shedding import TOO_SLOW, LatencyEstimates, shed_load
from tailrace.scorer.serving.metrics import ServingMetrics
from tailrace.scorer.serving.paused_partitions import PausedPartitions
from tailrace.scorer.serving.quarantine import InFlight, Quarantined, VersionQuarantine
from tailrace.scorer.serving.waiting_requests import WaitingRequest, WaitingRequests
from tailrace.scorer.steps.check_input import check
from tailrace.scorer.steps.read_request import read_requests
from tailrace.scorer.steps.route import Route, route
from tailrace.scorer.versions import OpenVersion, Role, Serving, Versions
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.processor import Clock, Output, Suspect
from tailrace.streaming.records import DeadLetter, Message, PausedPartition, Record, Runs, TopicPartition
from tailrace.telemetry.reasons import one_of

log = logging.getLogger(__name__)

_QUARANTINED = Finding("quarantined", None, "processes died with the version in flight")
_OF_THE_MOMENT = {finding.guard: finding for finding in (TOO_SLOW, _QUARANTINED)}


class _Effects(NamedTuple):
    """What a batch changes for later ones: alerts that it sends, stream times and counts."""

    refusals: int
    failing: set[tuple[str, int]]
    quarantined: list[Quarantined]
    stream_times: dict[TopicPartition, int]
    counts: dict[TopicPartition, DeadLetterCount]
    alerts: list[Record]
    waits: dict[str, str]
    partitions: Collection[TopicPartition]


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
        self._contracts = contracts = Contracts()
        self._lane_clocks = LaneClocks()
        catalog, rollouts = Catalog(verify), Rollouts()
        self._state = ControlState(records, contracts, catalog, rollouts, self._lane_clocks)
        self._plans = LanePlans(role, self._codec, registry)
        self._versions = Versions(role, contracts, catalog, rollouts, open_version, executor, verify)
        self._quarantine = VersionQuarantine(role, rollouts)
        self._in_flight = InFlight(role, self._plans, self._versions, catalog, self._quarantine)
        self._prepared = False
        self._handovers = Handovers(self._plans, contracts, rollouts, self._versions, self._quarantine)
        self._paused = PausedPartitions(
            role, self._plans, rollouts, self._versions, self._handovers, self._in_flight
        )
        self._waits = WaitingRequests()
        self._latencies = LatencyEstimates()
        self._metrics = ServingMetrics()
        self._changes = 0
        self._logged: str | None = None
        self._runtime = dict(runtime_versions())
        self._stream_times: dict[TopicPartition, int] = {}
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
                handover = self._handovers.take(partition, metadata)
            except ValueError as error:
                log.warning("ignored what the last owner left", extra={"why": str(error)})
            else:
                self._quarantine.add(handover.quarantined)
                self._counts[partition] = DeadLetterCount(*handover.count)
                self._waits.take(partition, handover.waits)

    def restore(self, messages: Sequence[Message]) -> None:
        """Nothing is asked for."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._handovers.forget(partition)
            self._paused.forget(partition)
            self._waits.forget(partition)
            self._stream_times.pop(partition, None)
            self._counts.pop(partition, None)

    def in_flight(self, topics: Collection[str], suspects: Mapping[TopicPartition, Suspect]) -> Sequence[str]:
        """The versions that may run and that can be done without; what was published last comes first."""
        self._prepared = True
        self._versions.take_up()
        return self._in_flight.name(topics, suspects)

    def process(self, messages: Sequence[Message], clock: Clock) -> Output:
        batch, plans = Batch.of(messages, clock.perf_ns()), self._plans
        if not self._prepared:
            self.in_flight(set(batch.topics), {})
        self._prepared = False
        self._codec.begin_batch()
        batch.requests, batch.watermarks, batch.bad = read_requests(messages, batch.topics, plans.by_topic)
        watermarks.refuse_ahead(batch, plans)
        watermarks.require_event_times(batch, self._lane_clocks.is_replayed)
        output = Output(paused=self._paused.of(batch))
        waits = self._paused.for_person(batch) if output.paused else {}
        if output.paused:
            batch.cut(output.paused)
        watermarks.pass_on(batch, plans)
        for requests in batch.requests:
            self._answer(batch, requests, clock)
        effects = self._effects(batch, output.paused, waits)
        output.records = batch.records()
        if effects.alerts:
            output.records = Runs([output.records, effects.alerts])
        if self._role == "champion":
            output.dead_letters = [
                DeadLetter(
                    plans.dead_letters(batch.topics[at]), messages[at], bad.code, bad.reason, bad.field
                )
                for at, bad in sorted(batch.bad.items())
            ]
        news = effects.refusals, effects.failing, effects.quarantined, effects.waits != self._waits.open
        output.pipelined = not (output.paused or any(news))
        if output.pipelined:
            self._apply(effects)
        self._latest = batch
        output.on_committed = partial(self._committed, batch, clock, None if output.pipelined else effects)
        self._leave(batch, effects, output)
        return output

    def _leave(self, batch: Batch, effects: _Effects, output: Output) -> None:
        """Adds what next owners are left: those of the batch, and of partitions that carry what is open no more."""

        def left(partitions: Collection[TopicPartition]) -> Handover:
            return replace(self._handovers.leave(partitions, effects.quarantined), waits=effects.waits)

        handover = left(batch.places)
        output.metadata = handover.to_metadata()
        output.metadata_of = {
            partition: replace(handover, count=count.to_json()).to_metadata()
            for partition, count in effects.counts.items()
        }
        if effects.waits != self._waits.open:
            for partition in self._waits.carried - batch.places.keys():
                count = self._counts.get(partition, DeadLetterCount())
                output.metadata_of[partition] = replace(
                    left([partition]), count=count.to_json()
                ).to_metadata()

    def _effects(
        self,
        batch: Batch,
        paused: Mapping[TopicPartition, PausedPartition],
        waiting: Mapping[str, WaitingRequest],
    ) -> _Effects:
        """With alerts of packages refused since the last batch, once for each version that fails in shadow, of versions
        that processes died with, of dead letters, and of requests that wait.
        """
        refusals = self._versions.refusals
        stream_times = watermarks.advance(batch, self._stream_times, self._plans)
        failing = {which: why for which, why in batch.failing.items() if which not in self._failing}
        quarantined = self._in_flight.to_blame(batch, paused)
        levels = self._plans.levels if self._role == "champion" else {}
        counts, shares = count_dead_letters(batch, self._counts, levels, paused)
        waits = dict(self._waits.open)
        about_waits: list[AlertRecord] = []
        if self._role == "champion" and (waiting or waits):
            still, last = self._paused.models_that_wait(), (batch.source(-1), batch.appended[-1])
            waits, about_waits = self._waits.after(waiting, still, *last)
        alerts = [
            *(self._control_records.record("Alert", alert) for alert in (*shares, *about_waits)),
            *(self._alerts.refused(refusal) for refusal in refusals),
            *(
                self._alerts.shadow_failed(*which, reason, batch.source(at), batch.appended[at])
                for which, (at, reason) in failing.items()
            ),
            *(self._alerts.quarantined(each, batch.source(-1), batch.appended[-1]) for each in quarantined),
        ]
        return _Effects(
            len(refusals), set(failing), quarantined, stream_times, counts, alerts, waits, batch.places.keys()
        )

    def _committed(self, batch: Batch, clock: Clock, effects: _Effects | None) -> None:
        """``effects`` are those that have not been applied."""
        if effects is not None:
            self._apply(effects)
        if batch is self._latest:
            # Otherwise the time of the next batch would be in it, too.
            self._latencies.learn((clock.perf_ns() - batch.started_ns) / 1e6, batch.asked)
        self._metrics.count(batch, clock.now_ms())
        if self._versions.changes != self._changes:
            self._changes = self._versions.changes
            serving = self._versions.served()
            self._metrics.keep(serving)
            self._latencies.keep(serving)

    def _apply(self, effects: _Effects) -> None:
        del self._versions.refusals[: effects.refusals]
        self._failing |= effects.failing
        self._quarantine.add(effects.quarantined)
        self._stream_times.update(effects.stream_times)
        self._counts.update(effects.counts)
        if effects.waits or self._waits.open:
            self._waits.committed(effects.waits, effects.partitions)

    def waiting(self) -> str | None:
        if not self._contracts.current:
            return "no contract has been applied yet: `tailrace apply`"
        reasons = self.by_model().values()
        return None if None in reasons else one_of(sorted({reason for reason in reasons if reason}))

    def by_model(self) -> dict[str, str | None]:
        return self._paused.by_model()

    def as_logged(self, served_cause: str | None) -> None:
        """For whoever scores logged requests again: the cause for which the next ones were answered, whatever is
        known here of processes that died and of how long things take.
        """
        self._logged = served_cause or ""

    # Steps ---

    def _answer(self, batch: Batch, requests: Requests, clock: Clock) -> None:
        plan = requests.plan
        serving = self._versions.serving(plan.model)
        versions = [v for v in serving.versions if plan.misfit(v) is None] if serving else []
        if serving is None or (not versions and serving.off is None):
            return
        rows = check(batch, requests)
        if serving.off is not None and len(rows):
            answer_off(batch, rows, serving.off, serving, self._runtime, clock)
        routes = self._routes(rows, replace(serving, versions=tuple(versions)))
        for each, without in self._in_time(batch, rows, routes, clock):
            if self._in_flight.is_left_out(plan, each.version):
                without = _QUARANTINED
                if self._role == "shadow":
                    continue
            asks = without is not TOO_SLOW and (plan.has_fallback or without)
            instead = self._in_flight.instead_of(each.version, serving, plan) if asks else None
            answer(batch, rows, each, serving, self._runtime, clock, instead, without)

    def _in_time(
        self, batch: Batch, rows: CheckedRows, routes: Sequence[Route], clock: Clock
    ) -> Iterator[tuple[Route, Finding | None]]:
        """The routes, each with why its version is not to answer; those of rows apart that it would answer too late."""
        if self._logged is not None:
            why = _OF_THE_MOMENT.get(self._logged)
            return ((each, why) for each in routes)
        if self._role == "shadow" or self._lane_clocks.is_replayed(rows.plan.lane.name):
            return ((each, None) for each in routes)
        return shed_load(batch, rows, routes, self._latencies, clock)

    def _routes(self, rows: CheckedRows, serving: Serving) -> list[Route]:
        """Which rows go to which version: in shadow all to each."""
        if not len(rows) or not serving.versions:
            return []
        if self._role == "shadow":
            return [Route(np.arange(len(rows)), version, "shadow", 1.0) for version in serving.versions]
        return route(serving, rows.keys)
