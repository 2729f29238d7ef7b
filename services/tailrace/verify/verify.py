"""Settles a cluster's accounts from its topics: nothing lost, nothing twice, everything stored."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import Connection, home_dir
from tailrace.contracts.records import lanes
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.copies import Copies
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.errors import BadRecord, UsageError
from tailrace.models.errors import PackageRefused
from tailrace.runtime.patience import Patience
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.topics import LANE, topics_read_by
from tailrace.streaming.ids import prediction_id
from tailrace.streaming.records import Message, RecordRef
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.streaming.watermark_records import mark_time
from tailrace.verify.check import AccountProblem, Growing, Offsets, account, compare_rows
from tailrace.verify.decisions import Decisions, Published
from tailrace.verify.log import Log, OffsetRange
from tailrace.verify.logged import known_to, messages_at, packages
from tailrace.verify.outcomes import LaneOutcomes
from tailrace.verify.prediction_header import Heads
from tailrace.verify.report import VerifyReport
from tailrace.verify.rescore import Rescorer, Sample
from tailrace.verify.rows import NOTHING, Digest, StoredRows

SCORER = "scorer"
_POLL_S = 0.25
_NEVER_MS = 2**53
_NOWHERE = 2**62  # beyond every offset

# Control topics in an order in which none names what a later one does not have yet.
_CONTROL = (
    (lanes.ROLLOUTS, lanes.TRAINING_RUNS),
    (lanes.ALERTS, lanes.DRIFT_REPORTS, lanes.PERFORMANCE_REPORTS, lanes.CLOCKS),
    (lanes.CONTRACTS, lanes.MANIFESTS, lanes.COMMANDS),
)

_DECISIONS = {
    lanes.ROLLOUTS: "Rollout",
    lanes.TRAINING_RUNS: "TrainingRun",
    lanes.DRIFT_REPORTS: "DriftReport",
    lanes.PERFORMANCE_REPORTS: "PerformanceReport",
}

Ranges = dict[Partition, OffsetRange]


class _Lane(NamedTuple):
    """A lane and what is to be read of it: what is derived ends no later than what it is derived from."""

    lane: Lane
    committed: dict[Partition, int | None]
    outcomes: Ranges
    answers: Ranges
    asked: Ranges


class Verification:
    """One pass over everything that is retained.

    Args:
        connection: where things are; without ClickHouse, rows are not compared.
        model: one model's lane only; default: every lane that has a contract.
        group: the scorer's consumer group, whose committed offsets say what it claims to be done with.
        wait_s: how long the sink may store nothing before it has caught up with what was read.
        deep: how many predictions to score again.
        home: where packages are cached and keys trusted, for scoring again.
    """

    def __init__(
        self,
        connection: Connection,
        model: str | None = None,
        group: str = f"tailrace.{SCORER}",
        wait_s: float = 30.0,
        deep: int = 0,
        home: Path | None = None,
    ) -> None:
        registry = RegistryClient(connection.registry, connection.registry_auth)
        self._connection = connection
        self._log = Log(connection)
        self._codec = Codec(registry)
        home = home or connection.home or home_dir()
        self._records, self._copies = ControlRecords.of_home(registry, home), Copies()
        self._heads = Heads(self._codec)
        self._model, self._group, self._wait_s = model, group, wait_s
        self._contracts = Contracts()
        self._decisions = Decisions(self._contracts)
        self._models: frozenset[str] = frozenset()
        self._events: dict[Partition, Growing] = defaultdict(Growing)
        self._ranges: dict[Partition, OffsetRange] = {}
        self._report = VerifyReport()
        self._registry, self._home = registry, home or home_dir()
        self._manifest = known_to(self._home)
        self._sample = Sample(deep)
        self._control_messages: list[Message] = []

    def run(self, progress: Callable[[int], None] = lambda done: None) -> VerifyReport:
        """Reads, settles, compares. ``progress`` is told how many records have been read.

        Raises:
            TailraceError, Unavailable: Kafka, the registry or ClickHouse does not answer.
            UsageError: no contract of this model is applied.
        """
        self._progress, self._read = progress, 0
        with closing(self._log):
            return self._run()

    def _run(self) -> VerifyReport:
        began = time.monotonic()
        # Ends are taken of what is derived first, so that whatever it names is within what is read.
        found = [self._bounds(lane) for lane in self._lanes()]
        self._read_control({p: r for topics in _CONTROL for p, r in self._log.retained(topics).items()})
        for lane in found:
            self._settle(lane)
        self._report.report_problems(self._decisions.problems())
        for partition, events in self._events.items():
            self._report.topic(partition.topic).events += len(events)
        if self._connection.clickhouse is not None:
            self._compare_rows(StoredRows(ClickHouse.connect(self._connection)))
        if messages := self._sample.messages():
            self._rescore(messages)
        self._report.seconds = time.monotonic() - began
        return self._report

    def _lanes(self) -> list[Lane]:
        applied = Contracts()
        state = ControlState(self._records, {lanes.CONTRACTS: applied.apply})
        state.take(self._log.read(self._log.retained(state.topics)))
        current = applied.current
        if self._model is None:
            self._models = frozenset(current)
        elif self._model in current:
            on_lane = applied.on_lane(current[self._model].contract.lane)
            self._models = frozenset(each.model for each in on_lane)
        else:
            known = ", ".join(sorted(current)) or "none yet"
            raise UsageError(f"no contract of a model {self._model!r} is applied (known: {known})")
        return [Lane(name) for name in sorted({current[model].contract.lane for model in self._models})]

    def _bounds(self, lane: Lane) -> _Lane:
        requests = list(self._log.retained([lane.requests]))
        return _Lane(
            lane,
            self._log.committed(self._group, requests),
            self._log.retained([lane.outcomes]),
            self._log.retained([lane.predictions, lane.shadow_predictions, lane.dead_letters]),
            self._log.retained([lane.requests, lane.labels, lane.actions]),
        )

    # --- reading

    def _take(self, ranges: Ranges, take: Callable[[Message], None]) -> None:
        """Reads ranges; ``take`` gets their events, marks only count as read."""
        for message in self._log.read(ranges):
            self._read += 1
            if self._read % 10_000 == 0:
                self._progress(self._read)
            if mark_time(message) is None:
                self._events[Partition(message.topic(), message.partition())].append(message.offset())
                take(message)
        self._progress(self._read)
        self._ranges |= ranges
        for partition in ranges:
            self._report.topic(partition.topic)

    def _read_control(self, ranges: Ranges) -> None:
        def take(message: Message) -> None:
            topic, record = message.topic(), self._records.read(message)
            if record is None:  # it counts for nothing anywhere
                return
            if topic in (lanes.CONTRACTS, lanes.MANIFESTS, lanes.ROLLOUTS):
                self._control_messages.append(message)
            if topic == lanes.CONTRACTS:
                self._contracts.apply(record)
            elif topic == lanes.MANIFESTS:
                self._published(record)
            elif topic in _DECISIONS:
                self._decided(message, record)

        self._take(ranges, take)

    def _published(self, record: Mapping[str, Any]) -> None:
        """Takes a version in: the first whose manifest is verified, as everywhere."""
        try:
            manifest = self._manifest(record)
        except PackageRefused:
            return
        published = Published(record["digest"], manifest.content_digest)
        self._decisions.versions.setdefault((record["model"], record["version"]), published)

    def _decided(self, message: Message, record: Mapping[str, Any]) -> None:
        """Takes a decision in, where it is about a model that is verified."""
        at, name = RecordRef.of(message), _DECISIONS[message.topic()]
        if record["model"] not in self._models or self._copies.is_copy(message):
            return
        if name == "Rollout":
            self._report.report_problems(self._decisions.rollout(at, record))
        elif name == "TrainingRun":
            self._decisions.run(at, record)
        else:
            self._report.report_problems(self._decisions.report(at, record))

    # --- one lane

    def _settle(self, found: _Lane) -> None:
        """Outcomes are read before answers, answers before requests: what is named must then be there."""
        lane, report = found.lane, self._report
        partitions = list(found.committed)
        predicted: dict[Partition, Growing] = defaultdict(Growing)
        shadowed: dict[tuple[str, int, Partition], Growing] = defaultdict(Growing)
        refused: dict[Partition, Growing] = defaultdict(Growing)
        first_kept: dict[Partition, int] = {}
        contracts = [a.contract for a in self._contracts.by_digest.values() if a.contract.lane == lane.name]
        outcomes = LaneOutcomes(lane, contracts, self._codec, partial(messages_at, self._connection))

        def take(message: Message) -> None:
            at = Partition(message.topic(), message.partition())
            first_kept.setdefault(at, message.timestamp()[1])
            if at.topic == lane.dead_letters:
                source = self._refused(message)
                if source is not None and source.topic == lane.requests:
                    refused[Partition(source.topic, source.partition)].append(source.offset)
            elif (head := self._named(message)) is not None:
                self._sample.offer(message)
                outcomes.prediction(message, head)
                source = RecordRef(**head["source"])
                partition = Partition(source.topic, source.partition)
                if at.topic == lane.predictions:
                    predicted[partition].append(source.offset)
                else:
                    shadowed[head["model"], head["version"], partition].append(source.offset)

        def take_asked(message: Message) -> None:
            if message.topic() != lane.requests:
                outcomes.truth(message)

        self._take(found.outcomes, lambda message: report.report_problems(outcomes.outcome(message)))
        self._take(found.answers, take)
        self._take(found.asked, take_asked)
        lows = {p: r.low for ranges in found[2:] for p, r in ranges.items()}
        report.report_problems(outcomes.problems(lows))
        compared_from = self._compared_from(lane, found.answers, first_kept, partitions)

        totals = report.topic(lane.requests)
        totals.requests = totals.predictions = totals.dead_letters = 0
        totals.in_flight = totals.lost = totals.duplicated = 0
        for partition in partitions:
            low = found.asked[partition].low
            requested = self._events[partition].array()
            predictions, letters = predicted[partition].array(), refused[partition].array()
            settled = account(
                requested,
                np.concatenate([predictions, letters]),
                low=low,
                compared_from=compared_from[partition],
                committed=found.committed[partition],
            )
            since = max(low, compared_from[partition])
            totals.requests += len(settled.requests)
            totals.predictions += int(np.count_nonzero(predictions >= since))
            totals.dead_letters += int(np.count_nonzero(letters >= since))
            totals.in_flight += len(settled.in_flight)
            totals.lost += len(settled.lost)
            totals.duplicated += len(settled.duplicated)
            report.report_problems(
                _problems("lost", partition, settled.lost, "neither prediction nor dead letter")
            )
            report.report_problems(
                _problems("duplicated", partition, settled.duplicated, "answered more than once")
            )
            report.report_problems(
                _problems("unasked", partition, settled.unasked, "answered, and there is no request")
            )
        for named in (predicted, refused):
            for partition in named.keys() - set(partitions):
                report.report_problems(
                    _problems("unasked", partition, named[partition].array(), "there is no such partition")
                )
        for (model, version, partition), offsets in shadowed.items():
            self._settle_shadow(
                partition, f"by shadow version {version} of {model}", offsets.array(), found.asked
            )

    def _settle_shadow(
        self, partition: Partition, who: str, offsets: Offsets, asked: Mapping[Partition, OffsetRange]
    ) -> None:
        low = asked[partition].low if partition in asked else 0
        requested = self._events[partition].array()
        settled = account(requested, offsets, low=low, compared_from=low, committed=None)
        self._report.report_problems(
            _problems("shadow-duplicated", partition, settled.duplicated, f"scored twice {who}")
        )
        self._report.report_problems(
            _problems("shadow-unasked", partition, settled.unasked, f"scored {who}, and there is no request")
        )

    def _compared_from(
        self,
        lane: Lane,
        answers: Mapping[Partition, OffsetRange],
        first_kept: Mapping[Partition, int],
        partitions: Collection[Partition],
    ) -> dict[Partition, int]:
        """The first request of each partition whose answer cannot have been deleted by retention yet.

        A request is appended before its answer: what was asked after the oldest answer kept is answered.
        """
        cut = [p for p, r in answers.items() if r.low > 0 and p.topic != lane.shadow_predictions]
        if not cut:
            return dict.fromkeys(partitions, 0)
        since = self._log.offsets_at(max(first_kept.get(p, _NEVER_MS) for p in cut), partitions)
        return {p: _NOWHERE if offset is None else offset for p, offset in since.items()}

    def _named(self, message: Message) -> dict[str, Any] | None:
        """A prediction's head, once it is known to name what exists; None where it cannot be read."""
        at = RecordRef.of(message)

        def report_problems(check: str, detail: str) -> None:
            self._report.report_problems([AccountProblem(check, at.topic, at.partition, at.offset, detail)])

        try:
            head = self._heads.read(message.value())
        except BadRecord as bad:
            report_problems("unreadable", str(bad))
            return None
        model, version = head["model"], head["version"]
        published = self._decisions.versions.get((model, version))
        if published is None or published.digest != head["artifact_digest"]:
            report_problems(
                "unpublished",
                f"{model} version {version} ({head['artifact_digest'][:12]}) was never published",
            )
        applied = self._contracts.by_digest.get(head["contract_digest"])
        if applied is None or applied.model != model:
            report_problems(
                "unapplied", f"contract {head['contract_digest'][:12]} of {model} was never in force"
            )
        revision = head["rollout_revision"]
        if (model, revision) not in self._decisions.revisions:
            report_problems("unrolled", f"{model} has no rollout revision {revision}")
        elif not self._decisions.answers(model, revision, head["role"], version):
            report_problems(
                "unrolled", f"version {version} of {model} is not {head['role']} in revision {revision}"
            )
        if head["prediction_id"] != prediction_id(head["role"], RecordRef(**head["source"]), version):
            report_problems(
                "misnamed",
                f"prediction_id {head['prediction_id']} is not that of its role, source and version",
            )
        return head

    def _refused(self, message: Message) -> RecordRef | None:
        """Which request a dead letter of the scorer's is about; None where another service wrote it."""
        try:
            letter = dead_letters.parse(message)
        except ValueError as error:
            at = RecordRef.of(message)
            self._report.report_problems(
                [AccountProblem("unreadable", at.topic, at.partition, at.offset, str(error))]
            )
            return None
        return letter.source if letter.service == SCORER else None

    def _rescore(self, messages: list[Message]) -> None:
        opened = packages(self._connection, self._home, self._report.revoked)
        rescorer = Rescorer(self._records, self._control_messages, opened, known_to(self._home))
        self._report.report_problems(rescorer.problems(messages, partial(messages_at, self._connection)))
        self._report.rescored = len(messages)

    # --- ClickHouse

    def _compare_rows(self, rows: StoredRows) -> None:
        """Compares rows with events, once the sink had time to store what was read."""
        stored = topics_read_by("sink")
        ranges = {p: r for p, r in self._ranges.items() if _general(p.topic) in stored}
        events = {p: self._events[p].array() for p in ranges}
        wanted = {p: Digest.of(offsets) for p, offsets in events.items()}
        patience = Patience(self._wait_s)
        while True:
            found = rows.digests(ranges)
            behind = [p for p in ranges if found.get(p, NOTHING) != wanted[p]]
            if not behind or not patience.look(sum(digest.rows for digest in found.values())):
                break
            time.sleep(_POLL_S)
        for partition in ranges:
            topic = self._report.topic(partition.topic)
            topic.rows = (topic.rows or 0) + found.get(partition, NOTHING).rows
        for partition in behind:
            result = compare_rows(events[partition], rows.offsets(partition, ranges[partition]))
            self._report.report_problems(
                _problems("unstored", partition, result.missing, "has no row in ClickHouse")
            )
            self._report.report_problems(
                _problems("stored-twice", partition, result.doubled, "has several rows")
            )
            if not self._log.compacted(partition.topic):
                self._report.report_problems(
                    _problems("no-event", partition, result.unknown, "a row without an event")
                )


def _general(topic: str) -> str:
    """The topic's name as the topic files have it."""
    return topic if topic.startswith("tailrace.") else LANE + topic.rpartition(".")[2]


def _problems(check: str, partition: Partition, offsets: Offsets, detail: str) -> Iterator[AccountProblem]:
    return (AccountProblem(check, *partition, int(offset), detail) for offset in offsets)
