"""Settles a cluster's accounts from its topics: nothing lost, nothing twice, everything stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import Connection, home_dir
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.state.contracts import Contracts
from tailrace.contracts.state.fold import ControlState
from tailrace.contracts.state.records import ControlRecords
from tailrace.models.package.open import known_to
from tailrace.streaming.backends.kafka.topics import LANE, topics_read_by
from tailrace.streaming.records import Message
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.control_facts import READ_IN_ORDER, ControlFacts
from tailrace.verify.counting_reader import CountingReader
from tailrace.verify.lane_answers import SCORER, LaneAnswers
from tailrace.verify.log import Log, OffsetRange
from tailrace.verify.logged import messages_at, packages
from tailrace.verify.outcomes import LaneOutcomes
from tailrace.verify.prediction_header import PredictionHeaders
from tailrace.verify.report import VerifyReport
from tailrace.verify.rescore import Rescorer, Sample
from tailrace.verify.rows import StoredRows
from tailrace.verify.stored_events import compare_events
from tailrace.verify.stored_times import LoggedTimes

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
        self._headers = PredictionHeaders(self._codec)
        self._home = home or connection.home or home_dir()
        self._records = ControlRecords.of_home(registry, self._home)
        self._model, self._group, self._wait_s = model, group, wait_s
        self._report = VerifyReport()
        self._sample = Sample(deep)
        self._times = LoggedTimes()

    def run(self, progress: Callable[[int], None] = lambda done: None) -> VerifyReport:
        """Reads, settles, compares. ``progress`` gets how many records have been read.

        Raises:
            TailraceError, Unavailable: Kafka, the registry or ClickHouse does not answer.
            UsageError: no contract of this model is applied.
        """
        began = time.monotonic()
        with closing(self._log):
            self._run(CountingReader(self._log, self._report, progress))
        self._report.seconds = time.monotonic() - began
        return self._report

    def _run(self, reader: CountingReader) -> None:
        applied = Contracts()
        state = ControlState(self._records, applied)
        state.take(self._log.read(self._log.retained(state.topics)))
        models = self._models(applied)
        names = sorted({applied.current[model].contract.lane for model in models})
        # Ends are taken of what is derived first, so that whatever it names is within what is read.
        bounds = [self._bounds(Lane(name)) for name in names]
        control = ControlFacts(self._records, known_to(self._home), models, self._report)
        retained = {p: r for topics in READ_IN_ORDER for p, r in self._log.retained(topics).items()}
        reader.read(retained, control.take)
        for lane in bounds:
            self._settle(lane, reader, control)
        self._report.report_problems(control.decisions.problems())
        reader.count()
        if self._connection.clickhouse is not None:
            self._compare_rows(reader, StoredRows(ClickHouse.connect(self._connection)))
        if messages := self._sample.messages():
            self._rescore(messages, control)

    def _models(self, applied: Contracts) -> frozenset[str]:
        """Those that are verified: all, or those of one lane."""
        if self._model is None:
            return frozenset(applied.current)
        lane = applied.in_force(self._model).contract.lane
        return frozenset(each.model for each in applied.on_lane(lane))

    def _bounds(self, lane: Lane) -> _Lane:
        requests = list(self._log.retained([lane.requests]))
        return _Lane(
            lane,
            self._log.committed(self._group, requests),
            self._log.retained([lane.outcomes]),
            self._log.retained([lane.predictions, lane.shadow_predictions, lane.dead_letters]),
            self._log.retained([lane.requests, lane.labels, lane.actions]),
        )

    def _settle(self, bounds: _Lane, reader: CountingReader, control: ControlFacts) -> None:
        """Outcomes are read before answers, answers before requests: what is named must then be there."""
        lane, report = bounds.lane, self._report
        contracts = [a.contract for a in control.contracts.by_digest.values() if a.contract.lane == lane.name]
        outcomes = LaneOutcomes(
            lane, contracts, self._codec, partial(messages_at, self._connection), self._times
        )
        answers = LaneAnswers(lane, self._headers, control, report)

        def take_answer(message: Message) -> None:
            header = answers.take(message)
            if header is not None:
                self._sample.offer(message)
                self._times.take(message, event_time=header["event_time"])
                outcomes.prediction(message, header)

        def take_asked(message: Message) -> None:
            if message.topic() != lane.requests:
                outcomes.truth(message)

        reader.read(bounds.outcomes, lambda message: report.report_problems(outcomes.outcome(message)))
        reader.read(bounds.answers, take_answer)
        reader.read(bounds.asked, take_asked)
        lows = {p: r.low for ranges in bounds[2:] for p, r in ranges.items()}
        report.report_problems(outcomes.problems(lows))
        since = answers.compared_from(self._log, bounds.answers, bounds.committed.keys())
        answers.settle(reader.events, bounds.asked, bounds.committed, since)

    def _rescore(self, messages: list[Message], control: ControlFacts) -> None:
        opened = packages(self._connection, self._home, self._report.revoked)
        rescorer = Rescorer(self._records, control.messages, opened, known_to(self._home))
        self._report.report_problems(rescorer.problems(messages, partial(messages_at, self._connection)))
        self._report.rescored = len(messages)

    def _compare_rows(self, reader: CountingReader, rows: StoredRows) -> None:
        stored = topics_read_by("sink")
        ranges = {p: r for p, r in reader.ranges.items() if _general(p.topic) in stored}
        events = {p: reader.events[p].array() for p in ranges}
        compare_events(rows, events, ranges, self._wait_s, self._log.compacted, self._report)
        self._report.report_problems(self._times.problems(rows))


def _general(topic: str) -> str:
    """The topic's name as the topic files have it."""
    return topic if topic.startswith("tailrace.") else LANE + topic.rpartition(".")[2]
