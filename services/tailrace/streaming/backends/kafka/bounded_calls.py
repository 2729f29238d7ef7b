"""Calls into a library that may never return: they cost a thread then, and not the caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any


class NeverReturned(Exception):
    """A call has not returned in time. It may still go on, so what it was about is not to be used any more."""


class BoundedCalls:
    """Makes calls one after the other in a thread of its own. Of no further use after `NeverReturned`."""

    def __init__(self, name: str) -> None:
        self._asked: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]] | None] = SimpleQueue()
        self._returned: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def begin(self, call: Callable[..., Any], *arguments: object) -> None:
        """Makes a call without waiting for it. Each is to be followed by an ``end``."""
        self._asked.put((call, arguments))

    def end(self, timeout_s: float) -> None:
        """Waits for the call that was begun. Raises what it raises.

        Raises:
            NeverReturned: not within ``timeout_s``.
        """
        try:
            error = self._returned.get(timeout=timeout_s)
        except Empty:
            raise NeverReturned from None
        if error is not None:
            raise error

    def close(self) -> None:
        """Ends the thread, once its call has returned."""
        self._asked.put(None)

    def _run(self) -> None:
        while (asked := self._asked.get()) is not None:
            call, arguments = asked
            error: BaseException | None = None
            try:
                call(*arguments)
            except BaseException as raised:
                error = raised
            del asked, call, arguments
            self._returned.put(error)
