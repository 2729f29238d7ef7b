"""The accounts of a lane's requests: each has one prediction or one dead letter, and at most one of each shadow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from tailrace.contracts.records.lanes import Lane
from tailrace.errors import BadRecord
from tailrace.streaming import dead_letters
from tailrace.streaming.records import Message, RecordRef
from tailrace.streaming.records import TopicPartition as Partition
from tailrace.verify.check import Account, AccountProblem, Growing, account, problems_at
from tailrace.verify.control_facts import ControlFacts
from tailrace.verify.log import Log, OffsetRange
from tailrace.verify.prediction_header import PredictionHeader, PredictionHeaders
from tailrace.verify.prediction_names import name_problems
from tailrace.verify.report import VerifyReport

SCORER = "scorer"
_NEVER_MS = 2**53
_NOWHERE = 2**62  # beyond every offset


class LaneAnswers:
    """What answered which request, by the request's partition and offset."""

    def __init__(
        self, lane: Lane, headers: PredictionHeaders, control: ControlFacts, report: VerifyReport
    ) -> None:
        self._lane = lane
        self._headers = headers
        self._control = control
        self._report = report
        self._predicted: dict[Partition, Growing] = defaultdict(Growing)
        self._shadowed: dict[tuple[str, int, Partition], Growing] = defaultdict(Growing)
        self._refused: dict[Partition, Growing] = defaultdict(Growing)
        self._first_kept: dict[Partition, int] = {}

    # Reading ---

    def take(self, message: Message) -> PredictionHeader | None:
        """Takes a prediction or a dead letter in; gives the header of a prediction that can be read."""
        at = Partition(message.topic(), message.partition())
        self._first_kept.setdefault(at, message.timestamp()[1])
        if at.topic == self._lane.dead_letters:
            self._take_letter(message)
            return None
        try:
            header = self._headers.read(message.value())
        except BadRecord as bad:
            self._unreadable(message, bad)
            return None
        names = name_problems(RecordRef.of(message), header, self._control.contracts, self._control.decisions)
        self._report.report_problems(names)
        source = RecordRef(**header["source"])
        partition = Partition(source.topic, source.partition)
        if at.topic == self._lane.predictions:
            self._predicted[partition].append(source.offset)
        else:
            self._shadowed[header["model"], header["version"], partition].append(source.offset)
        return header

    def _take_letter(self, message: Message) -> None:
        """Notes which request a dead letter of the scorer's is about."""
        try:
            letter = dead_letters.parse(message)
        except ValueError as error:
            self._unreadable(message, error)
            return
        source = letter.source if letter.service == SCORER else None
        if source is not None and source.topic == self._lane.requests:
            self._refused[Partition(source.topic, source.partition)].append(source.offset)

    def _unreadable(self, message: Message, error: Exception) -> None:
        problem = AccountProblem("unreadable", *RecordRef.of(message), str(error))
        self._report.report_problems([problem])

    def compared_from(
        self, log: Log, answers: Mapping[Partition, OffsetRange], partitions: Collection[Partition]
    ) -> dict[Partition, int]:
        """The first request of each partition whose answer cannot have been deleted by retention yet.

        A request is appended before its answer: what was asked after the oldest answer kept is answered.
        """
        cut = [p for p, r in answers.items() if r.low > 0 and p.topic != self._lane.shadow_predictions]
        if not cut:
            return dict.fromkeys(partitions, 0)
        since = log.offsets_at(max(self._first_kept.get(p, _NEVER_MS) for p in cut), partitions)
        return {p: _NOWHERE if offset is None else offset for p, offset in since.items()}

    # Settling ---

    def settle(
        self,
        requests: Mapping[Partition, Growing],
        asked: Mapping[Partition, OffsetRange],
        committed: Mapping[Partition, int | None],
        compared_from: Mapping[Partition, int],
    ) -> None:
        """Reports what is lost, answered twice or never asked.

        Args:
            requests: offsets by partition.
            asked: what of them is retained.
            committed: up to where the scorer says it is done.
            compared_from: see the method.
        """
        predictions = letters = 0
        accounts: list[Account] = []
        for partition, done in committed.items():
            low, begin = asked[partition].low, compared_from[partition]
            predicted, refused = self._predicted[partition].array(), self._refused[partition].array()
            answers, requested = np.concatenate([predicted, refused]), requests[partition].array()
            settled = account(requested, answers, low=low, compared_from=begin, committed=done)
            predictions += int(np.count_nonzero(predicted >= max(low, begin)))
            letters += int(np.count_nonzero(refused >= max(low, begin)))
            self._report.report_problems(_problems(partition, settled))
            accounts.append(settled)
        self._total(accounts, predictions, letters)
        self._report_strangers(committed.keys())
        for (model, version, partition), offsets in self._shadowed.items():
            low = asked[partition].low if partition in asked else 0
            requested = requests[partition].array()
            settled = account(requested, offsets.array(), low=low, compared_from=low, committed=None)
            who = f"by shadow version {version} of {model}"
            self._report.report_problems(_shadow_problems(partition, settled, who))

    def _total(self, accounts: Sequence[Account], predictions: int, letters: int) -> None:
        totals = self._report.topic(self._lane.requests)
        totals.predictions, totals.dead_letters = predictions, letters
        for name in ("requests", "in_flight", "lost", "duplicated"):
            setattr(totals, name, sum(len(getattr(settled, name)) for settled in accounts))

    def _report_strangers(self, partitions: Collection[Partition]) -> None:
        for named in (self._predicted, self._refused):
            for partition in named.keys() - set(partitions):
                offsets = named[partition].array()
                problems = problems_at("unasked", partition, offsets, "there is no such partition")
                self._report.report_problems(problems)


def _problems(partition: Partition, settled: Account) -> Iterator[AccountProblem]:
    yield from problems_at("lost", partition, settled.lost, "neither prediction nor dead letter")
    yield from problems_at("duplicated", partition, settled.duplicated, "answered more than once")
    yield from problems_at("unasked", partition, settled.unasked, "answered, and there is no request")


def _shadow_problems(partition: Partition, settled: Account, who: str) -> Iterator[AccountProblem]:
    unasked = f"scored {who}, and there is no request"
    yield from problems_at("shadow-duplicated", partition, settled.duplicated, f"scored twice {who}")
    yield from problems_at("shadow-unasked", partition, settled.unasked, unasked)
