"""The requests of one step: read from the store as they are needed, written back at its end."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import TypeVar

from tailrace.errors import StateLost
from tailrace.joiner.match import Request
from tailrace.joiner.packing import pack, unpack
from tailrace.joiner.progress import Spot, digest
from tailrace.joiner.store import KeyValueStore, Timer
from tailrace.streaming.bounds import Budget

_AT_ONCE = 256
"""So many requests are read from the store at once."""

Item = TypeVar("Item")


class LoadedRequests:
    """Requests by their key in the store, each read once, and their timers.

    Attributes:
        is_stopped: the last `each` has left items to the next step.
        has_more: any `each` has.
    """

    def __init__(self, store: KeyValueStore, budget: Budget) -> None:
        self._store = store
        self._budget = budget
        self._requests: dict[bytes, Request] = {}
        self._timers: list[Timer] = []
        self._cleared: dict[bytes, None] = {}
        self._is_begun = False
        self.is_stopped = False
        self.has_more = False

    def __getitem__(self, key: bytes) -> Request:
        """A request that is loaded."""
        return self._requests[key]

    def load(self, keys: Sequence[bytes]) -> None:
        """
        Raises:
            StateLost: the store is damaged; it is empty now.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._requests]
        values = self._store.get_many(missing)
        try:
            for key, data in zip(missing, values, strict=True):
                self._requests[key] = Request() if data is None else unpack(data)
        except (ValueError, EOFError, TypeError) as error:
            self._store.throw_away(f"a request cannot be read: {error}")
            raise StateLost("a request in the store could not be read") from error

    def each(
        self, items: Iterable[Item], request: Callable[[Item], bytes], spot: Callable[[Item], object]
    ) -> Iterator[Item]:
        """The items with their requests loaded, as far as the budget goes; those of one spot all or not at all."""
        self.is_stopped = False
        budget = self._budget
        last: Item | None = None
        for item, key, is_new in self._ahead(items, request):
            # What is done with a request costs little beside reading and writing it.
            is_spent = budget.spent or (is_new and budget.is_visited)
            if is_spent and self._is_begun and (last is None or spot(item) != spot(last)):
                self.is_stopped = self.has_more = True
                return
            if key not in self._requests:
                self.load([key])
            self._is_begun = True
            last = item
            if is_new:
                budget.visit()
            yield item

    def _ahead(
        self, items: Iterable[Item], request: Callable[[Item], bytes]
    ) -> Iterator[tuple[Item, bytes, bool]]:
        """Items with the key of their request, many of these loaded at once; and whether it was not loaded before."""
        items = iter(items)
        while several := list(islice(items, _AT_ONCE)):
            keys = [request(item) for item in several]
            new = [key not in self._requests for key in keys]
            if not self._is_begun or not self._budget.is_visited:
                self.load(keys)
            yield from zip(several, keys, new, strict=True)

    # Timers ---

    def set_timer(self, key: bytes, time: int) -> None:
        self._timers.append(Timer(time, digest(key), key))

    def clear_timer(self, timer: Timer) -> None:
        self._cleared[timer.key()] = None

    def due(self, begin: Spot, end: Spot) -> Iterator[Timer]:
        """The timers between these, of the store and of this step so far, in order, as `each` gives them."""
        first, last = begin[0], end[0]
        new = sorted(t for t in self._timers if first <= t.time <= last and begin <= t.spot < end)
        timers = heapq.merge(self._store.timers(begin, end), new)
        return self.each(timers, attrgetter("request"), attrgetter("spot"))

    # Writing back ---

    def changes(self, swept: Spot) -> tuple[dict[bytes, bytes], list[bytes]]:
        """What to put into the store, and what to delete.

        Args:
            swept: up to where timers have run.
        """
        puts, deletes = {}, [*self._cleared]
        for key, request in self._requests.items():
            if request.predictions or request.feedback:
                puts[key] = pack(request)
            else:
                deletes.append(key)
        # A timer has to lie ahead of those that have run.
        for timer in self._timers:
            if timer.request in puts:
                if timer.time <= swept[0] and timer.spot < swept:
                    if timer.key() in self._cleared:
                        continue
                    timer = timer._replace(time=swept[0] + 1)
                puts[timer.key()] = b""
        return puts, deletes
