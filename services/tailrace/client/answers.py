"""Waits for what became of single requests: a background reader per lane, of answers and dead letters."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tailrace.client.errors import Rejected, Timeout
from tailrace.client.kafka import Follower
from tailrace.connection import Connection
from tailrace.contracts.records.lanes import Lane
from tailrace.errors import BadRecord, TailraceError, Unavailable
from tailrace.streaming import dead_letters
from tailrace.streaming.records import Message, RecordRef


class Waiter:
    """One request: its record reference, once Kafka took it, and the answers under its key meanwhile.

    The answer may be read before the delivery is reported, so both sides keep what they have until they meet.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._source: RecordRef | None = None
        self._answers: dict[RecordRef, dict[str, Any] | Rejected] = {}
        self._failure: TailraceError | None = None

    def delivered(self, source: RecordRef) -> None:
        with self._changed:
            self._source = source
            self._changed.notify_all()

    def failed(self, failure: TailraceError) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def answered(self, source: RecordRef, answer: dict[str, Any] | Rejected) -> None:
        with self._changed:
            self._answers.setdefault(source, answer)
            self._changed.notify_all()

    def wait(self, timeout: float) -> dict[str, Any]:
        """The prediction event.

        Raises:
            Rejected: the request is a dead letter.
            Timeout: neither came within ``timeout`` seconds.
        """
        with self._changed:
            self._changed.wait_for(self._is_resolved, timeout)
            if self._failure is not None:
                raise self._failure
            if self._source is None:
                raise Timeout(f"Kafka did not take the request within {timeout:g} s: is the broker there?")
            answer = self._answers.get(self._source)
            if answer is None:
                raise Timeout(
                    f"no answer to {self._source} within {timeout:g} s: the request waits in the log, and "
                    "`tailrace status` says what the scorer waits for"
                )
            if isinstance(answer, Rejected):
                raise answer
            return answer

    def _is_resolved(self) -> bool:
        return self._failure is not None or (self._source is not None and self._source in self._answers)


class AnswerReader:
    """The background reader of one lane. Made ready before a request is sent, so that no answer is missed.

    Only records whose message key somebody waits for are decoded: a lane may carry far more than this
    application's.
    """

    def __init__(
        self, connection: Connection, lane: Lane, decode: Callable[[bytes | None], dict[str, Any]]
    ) -> None:
        self._lane, self._decode = lane, decode
        self._follower = Follower(connection, [lane.predictions, lane.dead_letters])
        self._waiting: dict[bytes, list[Waiter]] = defaultdict(list)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"tailrace answers {lane.name}", daemon=True)
        self._failure: TailraceError | None = None
        self._thread.start()

    def expect(self, key: bytes) -> Waiter:
        """A waiter for the answer to a request that is about to be sent under this message key."""
        waiter = Waiter()
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._waiting[key].append(waiter)
        return waiter

    def forget(self, key: bytes, waiter: Waiter) -> None:
        with self._lock:
            self._waiting[key].remove(waiter)
            if not self._waiting[key]:
                del self._waiting[key]

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._follower.close()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                message = self._follower.poll(0.1)
                if message is not None and message.value() is not None:
                    self._hand_out(message)
        except Exception as error:
            reason = f"reading answers failed: {error!r}"
            failure = error if isinstance(error, TailraceError) else TailraceError(reason)
            with self._lock:
                self._failure = failure
                waiters = [waiter for waiters in self._waiting.values() for waiter in waiters]
            for waiter in waiters:
                waiter.failed(failure)

    def _hand_out(self, message: Message) -> None:
        key = message.key()
        with self._lock:
            waiters = list(self._waiting.get(key, ())) if key is not None else []
        if not waiters:
            return
        try:
            source, answer = self._answer(message)
        except (BadRecord, ValueError, LookupError, TypeError):
            return  # no answer of any scorer's
        for waiter in waiters:
            waiter.answered(source, answer)

    def _answer(self, message: Message) -> tuple[RecordRef, dict[str, Any] | Rejected]:
        if message.topic() == self._lane.dead_letters:
            dead = dead_letters.parse(message)
            return dead.source, Rejected(dead.code, dead.reason, dead.field)
        while True:
            try:
                event = self._decode(message.value())
            except Unavailable:
                if self._closed.wait(0.2):
                    raise
            else:
                return RecordRef(**event["source"]), event
