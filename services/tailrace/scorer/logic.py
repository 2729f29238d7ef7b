"""The scorer's logic: requests in; predictions, dead letters and marks out. The steps are files of their
own.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tailrace.contracts.fold import Contracts
from tailrace.contracts.lane_clocks import LaneClocks
from tailrace.contracts.lanes import CLOCKS, CONTRACTS, MANIFESTS, ROLLOUTS, Lane
from tailrace.kit.codec import Codec, ControlCodec
from tailrace.kit.log import Committed
from tailrace.kit.logic import Clock, Output, Suspect
from tailrace.kit.messages import DeadLetter, Hold, Message, TopicPartition
from tailrace.kit.registry import Registry
from tailrace.models.catalog import Catalog
from tailrace.models.errors import PackageRefused
from tailrace.models.fingerprint import runtime_versions
from tailrace.models.package import check_schema
from tailrace.models.rollout_fold import Rollouts
from tailrace.scorer.alerts import Alerts
from tailrace.scorer.answer import answer, answer_off, check, keys_of
from tailrace.scorer.contract_plan import ContractPlan
from tailrace.scorer.dead_letter_share import Count, Level, count, level_of
from tailrace.scorer.handover import Handover
from tailrace.scorer.latency import Pace, blocks, too_many
from tailrace.scorer.notes import Finding
from tailrace.scorer.quarantine import Quarantine, Quarantined, name_of
from tailrace.scorer.read_request import read_requests
from tailrace.scorer.require_time import require_time
from tailrace.scorer.route import Route, route
from tailrace.scorer.rows import Requests, Rows
from tailrace.scorer.served import Served
from tailrace.scorer.tell_time import pass_on, refuse_marks_ahead, step_ms, tell_time
from tailrace.scorer.versions import OpenVersion, Role, Serving, Verify, Version, Versions
from tailrace.scorer.work import Work

log = logging.getLogger(__name__)

CONTROL_TOPICS = (CONTRACTS, MANIFESTS, ROLLOUTS, CLOCKS)
_REQUESTS = ".requests"
_TOO_SLOW = Finding("latency", None, "the version would have answered too late")
_QUARANTINED = Finding("quarantined", None, "processes died with the version in flight")

_OF_THE_MOMENT = {finding.guard: finding for finding in (_TOO_SLOW, _QUARANTINED)}


class _Named(NamedTuple):
    """The versions in flight, by name, what is answered without which others; ``key`` is what it follows from."""

    key: object
    in_flight: list[str]
    without: set[str]


class _Told(NamedTuple):
    """What a batch's output tells people and how far it tells the time, to be told once it is committed."""

    output: Output
    refusals: int
    failing: set[tuple[str, int]]
    quarantined: list[Quarantined]
    clocks: dict[TopicPartition, int]
    counts: dict[TopicPartition, Count]
    work: Work
    clock: Clock


class ScorerLogic:
    """Scores requests as champion, or as shadow.

    Args:
        role: ``champion`` answers; ``shadow`` scores with the versions that the rollouts name as shadow,
            writes to the lane's shadow predictions, and writes no dead letters, since the champion's scorer
            does.
        registry: where schemas are.
        open_version: opens a package, given its manifest record and the contract; raises PackageRefused,
            Retry.
        executor: runs ``open_version`` in the background.
        verify: checks again who has signed what was opened a while ago; raises PackageRefused.
    """

    def __init__(
        self,
        role: Role,
        registry: Registry,
        open_version: OpenVersion,
        executor: Executor,
        verify: Verify | None = None,
    ) -> None:
        self._role: Role = role
        self._registry = registry
        self._codec = Codec(registry)
        self._control_codec = ControlCodec(registry)
        self._alerts = Alerts(role, self._control_codec)
        self._contracts = Contracts()
        self._contracts_position = 0
        self._catalog = Catalog()
        self._rollouts = Rollouts()
        self._lane_clocks = LaneClocks()
        self._versions = Versions(
            role, self._contracts, self._catalog, self._rollouts, open_version, executor, verify
        )
        self._quarantine = Quarantine(role, self._rollouts)
        self._named = _Named(None, [], set())
        self._prepared = False
        self._pace = Pace()
        self._served = Served()
        self._logged: str | None = None
        self._runtime = dict(runtime_versions())
        self._lanes: dict[str, list[ContractPlan]] = {}
        self._plans: dict[str, ContractPlan] = {}
        self._fits: dict[tuple[str, str], str | None] = {}
        self._handovers: dict[TopicPartition, Handover] = {}
        self._holding: dict[TopicPartition, str] = {}
        self._clocks: dict[TopicPartition, int] = {}
        self._counts: dict[TopicPartition, Count] = {}
        self._levels: dict[str, Level] = {}
        # Shadows that are known to fail, and what the last batch tells.
        self._failing: set[tuple[str, int]] = set()
        self._told: _Told | None = None

    # The seam to the loop ---

    def control_topics(self) -> Sequence[str]:
        return CONTROL_TOPICS

    def topics(self) -> frozenset[str]:
        return frozenset(self._lanes)

    def control(self, messages: Sequence[Message]) -> None:
        # Decoded first, all of them: the loop offers the same messages again where the registry is away.
        for message, record in [(m, self._control_codec.read(m)) for m in messages]:
            if message.topic() == CONTRACTS:
                self._contracts_position = message.offset() + 1
                if record is not None and self._contracts.apply(record):
                    self._take_contract(record["model"])
            elif message.topic() == MANIFESTS:
                if record is not None:
                    self._catalog.apply(record)
            elif record is None:
                continue
            elif message.topic() == ROLLOUTS:
                self._rollouts.apply(record, message.offset())
            else:
                self._lane_clocks.apply(record)
        self._versions.take_up()

    def assigned(self, partitions: Mapping[TopicPartition, Committed]) -> None:
        for partition, (_, metadata) in partitions.items():
            try:
                left = self._handovers[partition] = Handover.from_metadata(metadata)
            except ValueError as error:
                log.warning("ignored what the last owner left", extra={"why": str(error)})
            else:
                self._quarantine.add(left.quarantined)
                self._counts[partition] = Count(*left.count)

    def restore(self, messages: Sequence[Message]) -> None:
        """Nothing is asked for."""

    def revoked(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            self._handovers.pop(partition, None)
            self._clocks.pop(partition, None)
            self._counts.pop(partition, None)
            self._holding.pop(partition, None)

    def in_flight(self, topics: Collection[str], suspects: Mapping[TopicPartition, Suspect]) -> Sequence[str]:
        """The versions that may run and that can be done without; what was published last comes first."""
        self._prepared = True
        self._versions.take_up()
        self._quarantine.suspect(suspects)
        known = self._named.key == (topics, self._versions.changes, self._contracts_position)
        if not known or self._quarantine or self._named.without:
            self._named = self._name_versions(topics)
        return self._named.in_flight

    def _name_versions(self, topics: Collection[str]) -> _Named:
        found, without = [], set()
        for plan in {plan.model: plan for topic in topics for plan in self._lanes.get(topic, ())}.values():
            serving = self._versions.serving(plan.model)
            if serving is None:
                continue
            for version in serving.versions:
                if self._can_do_without(plan, serving, version):
                    name = name_of(plan.model, version.number)
                    if name in self._quarantine:
                        without.add(name)
                    else:
                        record = self._catalog.record(plan.model, version.number)
                        found.append((-record["published_at"] if record else 0, -version.number, name))
        key = (topics, self._versions.changes, self._contracts_position)
        return _Named(key, [name for *_, name in sorted(found)], without)

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        work = Work.of(batch, clock.perf_ns())
        if not self._prepared:
            self.in_flight(set(work.topics), {})
        self._prepared = False
        self._codec.begin_batch()
        work.requests, work.marks, work.bad = read_requests(batch, work.topics, self._lanes)
        refuse_marks_ahead(work, self._skew)
        require_time(work, self._lane_clocks.is_replayed)
        output = Output(holds=self._holds(work))
        if output.holds:
            work.cut(output.holds)
        self._remember(work, output.holds)
        pass_on(work, self._predictions)
        for requests in work.requests:
            self._answer(work, requests, clock)
        clocks = tell_time(work, work.requests, self._clocks, self._step, self._predictions)
        output.records = work.records()
        quarantined = self._to_blame(work, output.holds)
        counts = self._count_dead_letters(work, output)
        self._told = self._tell(work, output, clocks, quarantined, counts, clock)
        if self._role == "champion":
            output.dead_letters = [
                DeadLetter(
                    self._lane(work.topics[at]).dead_letters, batch[at], bad.code, bad.reason, bad.field
                )
                for at, bad in sorted(work.bad.items())
            ]
        left = self._handover(work, quarantined)
        output.metadata = left.to_metadata()
        output.metadata_of = {
            partition: replace(left, count=count.to_json()).to_metadata()
            for partition, count in counts.items()
        }
        return output

    def committed(self, output: Output) -> None:
        if self._told is not None and self._told.output is output:
            del self._versions.refusals[: self._told.refusals]
            self._failing |= self._told.failing
            self._quarantine.add(self._told.quarantined)
            self._clocks.update(self._told.clocks)
            self._counts.update(self._told.counts)
            work, clock = self._told.work, self._told.clock
            self._pace.learn((clock.perf_ns() - work.started_ns) / 1e6, work.asked)
            self._served.count(work, clock.now_ms())
            self._served.keep(self._versions.served, self._versions.changes)

    def waiting(self) -> str | None:
        if not self._contracts.current:
            return "no contract has been applied yet: `tailrace apply`"
        return "; ".join(sorted(set(self._holding.values()))) or None

    def as_logged(self, served_cause: str | None) -> None:
        """For whoever scores logged requests again: the cause for which the next ones were answered, whatever is
        known here of processes that died and of how long things take.
        """
        self._logged = served_cause or ""

    # Steps ---

    def _lane(self, requests_topic: str) -> Lane:
        return Lane(requests_topic.removesuffix(_REQUESTS))

    def _predictions(self, requests_topic: str) -> str:
        lane = self._lane(requests_topic)
        return lane.predictions if self._role == "champion" else lane.shadow_predictions

    def _step(self, requests_topic: str) -> int:
        return min(step_ms(plan.contract) for plan in self._lanes[requests_topic])

    def _skew(self, requests_topic: str) -> int:
        return max(plan.contract.event_time.skew_ms for plan in self._lanes[requests_topic])

    def _take_contract(self, model: str) -> None:
        applied = self._contracts.current[model]
        topic = Lane(applied.contract.lane).requests
        self._plans[model] = ContractPlan(applied, self._predictions(topic), self._codec, self._registry)
        lanes: dict[str, list[ContractPlan]] = {}
        for _, plan in sorted(self._plans.items()):
            lanes.setdefault(plan.lane.requests, []).append(plan)
        self._lanes = lanes
        levels = {topic: level_of(plan.contract for plan in plans) for topic, plans in lanes.items()}
        self._levels = {topic: level for topic, level in levels.items() if level is not None}

    def _holds(self, work: Work) -> dict[TopicPartition, Hold]:
        """The partitions that have to wait, each from its first request that cannot be answered now."""
        holds: dict[TopicPartition, Hold] = {}

        def hold(at: int, why: str) -> None:
            partition, offset = work.partition(at), work.offsets[at]
            if partition not in holds or offset < holds[partition].offset:
                holds[partition] = Hold(offset, why)

        if self._handovers:
            waiting = {p: why for p in work.touched() if (why := self._not_handed_over(p)) is not None}
            for at in range(len(work.topics)) if waiting else ():
                if work.partition(at) in waiting:
                    hold(at, waiting[work.partition(at)])
        for requests in work.requests:
            why = self._why_not(requests.plan)
            if why is not None:
                for at in requests.at.tolist():
                    hold(at, why)
        return holds

    def _not_handed_over(self, partition: TopicPartition) -> str | None:
        handover = self._handovers.get(partition)
        if handover is None:
            return None
        models = [plan.model for plan in self._lanes.get(partition.topic, ())]
        why = handover.waits_for(
            models, self._contracts_position, self._contracts, self._rollouts, self._versions
        )
        if why is None:
            del self._handovers[partition]
        return why

    def _handover(self, work: Work, quarantined: Sequence[Quarantined]) -> Handover:
        """What the next owner is left: with a partition that still waits, also what it waits for."""
        left = Handover(
            self._contracts_position,
            self._rollouts.position,
            self._versions.behind(),
            [*self._quarantine.all(), *quarantined],
        )
        for partition in work.touched() if self._handovers else ():
            if partition in self._handovers:
                left = left.joined(self._handovers[partition], self._rollouts)
        return left

    def _why_not(self, plan: ContractPlan) -> str | None:
        """Why requests to a model have to wait; None where they can be answered."""
        serving = self._versions.serving(plan.model)
        if self._role == "shadow":
            named = self._rollouts.state(plan.model).shadow
            return f"the shadows of {plan.model} are being opened" if serving is None and named else None
        if serving is not None and serving.off is not None:
            return None
        if serving is None or not serving.versions:
            return self._versions.why_not(plan.model)
        champion = serving.versions[0]
        if self._is_out(plan, champion) and self._versions.previous_is_coming(plan.model):
            return f"version {champion.number} of {plan.model} is quarantined, and the one before it is being opened"
        return self._misfit(champion, plan)

    def _misfit(self, version: Version, plan: ContractPlan) -> str | None:
        """Why a version cannot serve under the contract in force, which may be newer than the version."""
        key = (version.model.digest, plan.applied.digest)
        if key not in self._fits:
            try:
                check_schema(version.model.manifest, plan.contract)
                self._fits[key] = None
            except PackageRefused as misfit:
                which = f"version {version.number} of {plan.model}"
                self._fits[key] = f"{which} does not fit its contract any more: {misfit.reason}"
        return self._fits[key]

    def _remember(self, work: Work, holds: Mapping[TopicPartition, Hold]) -> None:
        if holds or self._holding:
            for partition in work.touched():
                self._holding.pop(partition, None)
            self._holding.update({partition: hold.reason for partition, hold in holds.items()})

    def _answer(self, work: Work, requests: Requests, clock: Clock) -> None:
        plan = requests.plan
        serving = self._versions.serving(plan.model)
        versions = [v for v in serving.versions if self._misfit(v, plan) is None] if serving else []
        if serving is None or (not versions and serving.off is None):
            return
        rows = check(work, requests)
        if serving.off is not None and len(rows):
            answer_off(work, rows, serving.off, serving, self._runtime, clock)
        ways = self._routes(work, rows, replace(serving, versions=tuple(versions)))
        for way, without in self._kept_in_time(work, rows, ways, clock):
            if self._is_out(plan, way.version):
                without = _QUARANTINED
                if self._role == "shadow":
                    continue
            asks = without is not _TOO_SLOW and (plan.fallback or without)
            instead = self._instead(way, serving, plan) if asks else None
            failed = answer(work, rows, way, serving, self._runtime, clock, instead, without)
            if self._role == "champion":
                work.bad |= failed
            elif failed:
                at = min(failed)
                work.failing.setdefault((plan.model, way.version.number), (at, failed[at].reason))

    def _kept_in_time(
        self, work: Work, rows: Rows, ways: Sequence[Route], clock: Clock
    ) -> Iterator[tuple[Route, Finding | None]]:
        """The ways, those of rows apart that the fallback is to answer for the latency level's sake."""
        plan = rows.requests.plan
        level = plan.contract.service_levels.latency_p99_ms
        if self._logged is not None:
            yield from ((way, _OF_THE_MOMENT.get(self._logged)) for way in ways)
            return
        exempt = self._role == "shadow" or self._lane_clocks.is_replayed(plan.lane.name)
        paces = [self._pace.block_ms(plan.model, way.version.number) or 0.0 for way in ways]
        for way, pace in zip(ways, paces, strict=True):
            if level is not None and plan.fallback and pace and not exempt:
                others = sum(
                    p * blocks(len(w.rows)) for w, p in zip(ways, paces, strict=True) if w is not way
                )
                since_ms = (clock.perf_ns() - work.started_ns) / 1e6
                ages = clock.now_ms() - since_ms - work.append_times[rows.requests.at[way.rows]]
                late = too_many(ages, level, pace, self._pace.besides_ms + others)
                if len(late):
                    yield way._replace(rows=way.rows[late]), _TOO_SLOW
                    way = way._replace(rows=np.delete(way.rows, late))
            if len(way.rows):
                yield way, None

    def _instead(self, way: Route, serving: Serving, plan: ContractPlan) -> Version | None:
        """Which version a fallback may ask: beside a champion the previous one, beside another the champion."""
        champion = serving.versions[0]
        version = self._versions.previous(plan.model) if way.version is champion else champion
        return version if self._may_stand_in(version, plan) else None

    def _may_stand_in(self, version: Version | None, plan: ContractPlan) -> bool:
        return (
            version is not None
            and name_of(plan.model, version.number) not in self._quarantine
            and self._misfit(version, plan) is None
        )

    def _can_do_without(self, plan: ContractPlan, serving: Serving, version: Version) -> bool:
        """Whether something else answers, or in shadow nothing need to."""
        if self._role == "shadow" or plan.fallback:
            return True
        if version is not serving.versions[0]:
            return self._may_stand_in(serving.versions[0], plan)
        return self._versions.previous_is_coming(plan.model) or self._may_stand_in(
            self._versions.previous(plan.model), plan
        )

    def _is_out(self, plan: ContractPlan, version: Version) -> bool:
        without = self._named.without
        return bool(without) and name_of(plan.model, version.number) in without

    def _to_blame(self, work: Work, holds: Mapping[TopicPartition, Hold]) -> list[Quarantined]:
        """The versions that processes died with, as this batch shows: it is the last of the records that they died
        on, and worked off without them.
        """
        if not self._named.without:
            return []
        upto: dict[TopicPartition, int] = {}
        for at, offset in enumerate(work.offsets):
            upto[work.partition(at)] = offset + 1
        upto |= {partition: hold.offset for partition, hold in holds.items()}
        found = []
        for name in sorted(self._quarantine.to_blame(upto) & self._named.without):
            model, _, number = name.rpartition("/")
            found.append(Quarantined(model, int(number), self._versions.revision(model)))
        return found

    def _routes(self, work: Work, rows: Rows, serving: Serving) -> list[Route]:
        """Which rows go to which version: in shadow all to each."""
        if not len(rows) or not serving.versions:
            return []
        if self._role == "shadow":
            return [Route(np.arange(len(rows)), version, "shadow", 1.0) for version in serving.versions]
        return route(serving, len(rows), lambda: keys_of(work, rows))

    def _count_dead_letters(self, work: Work, output: Output) -> dict[TopicPartition, Count]:
        """By partition, what its next owner goes on counting from. Adds what there is to be told to the output."""
        counts: dict[TopicPartition, Count] = {}
        if self._role == "shadow" or not self._levels:
            return counts
        by_partition: dict[TopicPartition, list[int]] = defaultdict(list)
        for at, topic in enumerate(work.topics):
            if topic in self._levels and at not in work.marks:
                by_partition[work.partition(at)].append(at)
        offsets = np.array(work.offsets, dtype=np.int64)
        dead = np.zeros(len(offsets), dtype=np.bool_)
        dead[list(work.bad)] = True
        for partition, rows in sorted(by_partition.items()):
            hold, mine = output.holds.get(partition), np.array(rows)
            if hold is not None:
                mine = mine[offsets[mine] < hold.offset]
            counts[partition], alerts = count(
                self._counts.get(partition, Count()),
                self._levels[partition.topic],
                partition,
                offsets[mine],
                work.append_times[mine],
                dead[mine],
            )
            output.records += [self._control_codec.record("Alert", alert) for alert in alerts]
        return counts

    def _tell(
        self,
        work: Work,
        output: Output,
        clocks: dict[TopicPartition, int],
        quarantined: list[Quarantined],
        counts: dict[TopicPartition, Count],
        clock: Clock,
    ) -> _Told:
        """Adds alerts to the output: packages refused since the last batch, once for each version that fails in shadow,
        and versions that processes died with. What it returns holds once the output is committed.
        """
        refusals = self._versions.refusals
        failing = {which: what for which, what in work.failing.items() if which not in self._failing}
        output.records += [
            *(self._alerts.refused(refusal) for refusal in refusals),
            *(
                self._alerts.shadow_failed(*which, reason, work.source(at), work.appended[at])
                for which, (at, reason) in failing.items()
            ),
            *(self._alerts.quarantined(each, work.source(-1), work.appended[-1]) for each in quarantined),
        ]
        return _Told(output, len(refusals), set(failing), quarantined, clocks, counts, work, clock)
