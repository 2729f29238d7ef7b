"""Kafka transactions of one producer at a time, and what came of each: committed, aborted or unknown.

As `StreamsProducer` in Kafka Streams. What an unknown outcome means to the caller is in docs/adr/0015.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import NamedTuple, Protocol, TypeVar

from tailrace.streaming.backends.abstract import (
    TRANSACTION_TIMEOUT_MS,
    Abortable,
    Backend,
    Committed,
    Consumer,
    Fenced,
    Membership,
    OutcomeUnknown,
    RecordRejected,
    Retriable,
    TransactionalProducer,
)
from tailrace.streaming.records import Record, TopicPartition
from tailrace.streaming.time_source import WaitingClock
from tailrace.telemetry import metrics

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Offsets = Mapping[TopicPartition, Committed]

DECIDE_S = 15.0
"""How long the outcome of a transaction is waited for before the producer is replaced to find out."""


class TransactionResult(Enum):
    COMMITTED = auto()
    ABORTED = auto()
    UNKNOWN = auto()


class TransactionOutcome(NamedTuple):
    """What came of a transaction.

    ABORTED: nothing of it is in the log, and the next may begin. UNKNOWN: the committed offsets say so, only after
    `Transactions.replace_producer`. ``rejected`` is set where the log will never take one of the records.
    """

    result: TransactionResult
    reason: str = ""
    rejected: RecordRejected | None = None

    @property
    def is_committed(self) -> bool:
        return self.result is TransactionResult.COMMITTED


COMMITTED = TransactionOutcome(TransactionResult.COMMITTED)


class Repeat(Protocol):
    """Repeats a call while it raises ``Retriable``, which comes out only after ``limit_s``."""

    def __call__(
        self, call: Callable[..., Answer], *arguments: object, limit_s: float = float("inf")
    ) -> Answer: ...


class Transactions:
    """Owns the producer. Every call that writes raises `Fenced` where another process has its id.

    Attributes:
        is_open: a transaction was begun of which the end is not known.
        aborts: how many were aborted since the caller last set it to 0.
    """

    def __init__(self, backend: Backend, transactional_id: str, clock: WaitingClock, repeat: Repeat) -> None:
        self._backend = backend
        self._transactional_id = transactional_id
        self._clock = clock
        self._repeat = repeat
        self._producer: TransactionalProducer | None = None
        self._began_at = 0
        self.is_open = False
        self.aborts = 0

    def start(self) -> None:
        """Makes the producer, where there is none yet."""
        if self._producer is None:
            self._producer = self._new_producer()

    @property
    def producer(self) -> TransactionalProducer:
        assert self._producer is not None, "start() comes first"
        return self._producer

    def transact(
        self, consumer: Consumer, membership: Membership, offsets: Offsets, *records: Sequence[Record]
    ) -> TransactionOutcome:
        """Writes the records and commits the offsets, both or neither."""
        return self.write(consumer, membership, *records) or self.commit(offsets, membership)

    def write(
        self, consumer: Consumer, membership: Membership, *records: Sequence[Record]
    ) -> TransactionOutcome | None:
        """Begins a transaction and writes the records. None: it is open; else it has ended, as the outcome says."""
        self._began_at = self._clock.perf_ns()
        failed = self._attempt(self._begin_and_produce, records)
        if failed is None and consumer.member_id() != membership.member_id:
            return self.abort("no longer the member of the group that read the batch")
        return failed

    def commit(self, offsets: Offsets, membership: Membership) -> TransactionOutcome:
        """Sends the offsets into the open transaction and commits it."""
        return self._attempt(self._send_offsets, offsets, membership) or self.await_commit()

    def begin_commit(self, offsets: Offsets, membership: Membership) -> None:
        """The same without waiting; `await_commit` says what came of it, and is the next call."""
        self.producer.begin_commit(offsets, membership)

    def await_commit(self) -> TransactionOutcome:
        attempts = 0

        def commit() -> None:
            nonlocal attempts
            attempts += 1
            self.producer.commit()

        try:
            self._repeat(commit, limit_s=DECIDE_S)
        except (Retriable, OutcomeUnknown) as error:
            return _unknown(error)
        except Abortable as error:
            # What came of a first attempt is not known.
            return _unknown(error) if attempts > 1 else self.abort(str(error))
        except RecordRejected as error:
            return self.abort(str(error), error)
        except Fenced as error:
            return self._unless_taken_over(error)
        self.is_open = False
        metrics.COMMIT_SECONDS.observe((self._clock.perf_ns() - self._began_at) / 1e9)
        return COMMITTED

    def abort(self, reason: str, rejected: RecordRejected | None = None) -> TransactionOutcome:
        """Gives up what is open, if anything is. The outcome of that may be unknown, too."""
        metrics.ABORTS.inc()
        self.aborts += 1
        log.warning("batch given up", extra={"reason": reason})
        if self.is_open:
            try:
                self._repeat(self.producer.abort, limit_s=DECIDE_S)
            except (Retriable, Abortable, OutcomeUnknown) as error:
                return _unknown(error, rejected)
            except Fenced as error:
                return self._unless_taken_over(error, rejected)
            self.is_open = False
        return TransactionOutcome(TransactionResult.ABORTED, reason, rejected)

    def replace_producer(self, reason: str) -> None:
        """Ends what an unknown outcome left behind; from then on the committed offsets say what came of it."""
        log.warning("a transaction's outcome is unknown; starting a new producer", extra={"reason": reason})
        self.producer.close()
        self._producer = self._new_producer()
        self.is_open = False

    def close(self) -> None:
        """Lets the producer go. An open transaction is left to the broker."""
        if self._producer is not None:
            self._producer.close()

    def _new_producer(self) -> TransactionalProducer:
        producer = self._backend.producer(self._transactional_id)
        self._repeat(producer.init)
        return producer

    def _begin_and_produce(self, records: Sequence[Sequence[Record]]) -> None:
        self._repeat(self.producer.begin, limit_s=DECIDE_S)
        self.is_open = True
        for part in filter(None, records):
            self.producer.produce(part)

    def _send_offsets(self, offsets: Offsets, membership: Membership) -> None:
        self._repeat(self.producer.send_offsets, offsets, membership, limit_s=DECIDE_S)

    def _attempt(self, call: Callable[..., None], *arguments: object) -> TransactionOutcome | None:
        """Makes a call before the commit: nothing counts yet, so a call that was repeated for long enough aborts."""
        try:
            call(*arguments)
        except (Retriable, Abortable) as error:
            return self.abort(str(error))
        except OutcomeUnknown as error:
            return _unknown(error)
        except RecordRejected as error:
            return self.abort(str(error), error)
        except Fenced as error:
            return self._unless_taken_over(error)
        return None

    def _unless_taken_over(self, error: Fenced, rejected: RecordRejected | None = None) -> TransactionOutcome:
        """A transaction that was open for longer than the log lets it, as when the log itself was unavailable, is why
        its producer is fenced off, and a new one may go on. Otherwise another process has its id.
        """
        open_for_ms = (self._clock.perf_ns() - self._began_at) / 1e6
        if self.is_open and open_for_ms >= TRANSACTION_TIMEOUT_MS:
            return _unknown(error, rejected)
        raise error


def _unknown(error: Exception, rejected: RecordRejected | None = None) -> TransactionOutcome:
    return TransactionOutcome(TransactionResult.UNKNOWN, str(error), rejected)
