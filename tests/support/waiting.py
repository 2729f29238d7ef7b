"""Waiting for what must come to be, on a machine that may have ten times its usual work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tailrace.local.health import ask
from tailrace.local.process import Process
from tailrace.streaming.backends.abstract import Retriable, TransactionalProducer

PATIENCE_S = 200.0


def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str] = "",
    ignoring: tuple[type[Exception], ...] = (),
) -> Any:
    """What the condition gives, once it gives something.

    ``what`` it is that is waited for, or what those say that it is waited for, is what a failing test prints.
    An error of a kind in ``ignoring`` is a condition that does not hold yet.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        last: Exception | None = None
        try:
            if result := condition():
                return result
        except ignoring as error:
            last = error
        if time.monotonic() > deadline:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {PATIENCE_S:.0f} s: {words}") from last
        time.sleep(0.05)


def until_initiated(producer: TransactionalProducer) -> None:
    """Until the broker has loaded who writes transactions, which a new one does when it is first asked."""
    until(lambda: producer.init() is None, "the producer's id", ignoring=(Retriable,))


def until_answers(server: Process, address: str, path: str = "/ping") -> None:
    """Until the server answers there; one that has ended is not waited for, and fails the test with its last words."""
    until(lambda: ask(address, path).ok or not server.running(), server.last_words)
    assert server.running(), server.last_words()
