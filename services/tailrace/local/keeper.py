"""Keeps the programs of a home running: starts again what ends, and writes down what runs and how it fared."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tailrace.errors import TailraceError
from tailrace.local.deaths import Deaths
from tailrace.local.home import Home
from tailrace.local.leftovers import GRACE_S, created, stop_in_order
from tailrace.local.process import Process
from tailrace.local.room import full_disks
from tailrace.local.watchdog import watchdog

_STABLE = 5.0  # a life shorter than this counts as a failed start
_LONGEST_PAUSE = 10.0
_TEND_S = 0.5  # how often a full disk is looked at, and what could not be written is tried again


@dataclass
class KeptProgram:
    name: str
    program: Process
    start: Callable[[], None]
    address: str
    started: float = 0.0
    restarts: int = 0
    deaths: Deaths = field(default_factory=Deaths)
    thread: threading.Thread | None = None


class Keeper:
    """Keeps programs running, each with a thread of its own that ends only when everything is to end.

    Where a disk of the home is full, what has died is started again as soon as there is room, and tried every ten
    seconds until then; what cannot be written meanwhile is written later.
    """

    def __init__(self, home: Home) -> None:
        self.kept: list[KeptProgram] = []
        self._home = home
        self._facts: dict[str, Any] = {}
        self._stopping = threading.Event()
        self._writing = threading.Lock()
        self._unwritten = False
        self._tender: threading.Thread | None = None

    def keep(self, kept: KeptProgram) -> None:
        """Starts a program, and starts it again whenever it ends.

        Raises:
            TailraceError, OSError: it cannot be started now. It is not kept then.
        """
        if self._tender is None:
            self._tender = threading.Thread(target=self._tend, name="tend", daemon=True)
            self._tender.start()
        self.kept.append(kept)
        kept.started = time.time()
        kept.start()
        kept.thread = threading.Thread(
            target=self._guard, args=(kept,), name=f"keep {kept.name}", daemon=True
        )
        kept.thread.start()
        self.write()

    def stop(self) -> None:
        """Ends services, each with ten seconds to finish, then what they stand on. Nothing is started any more."""
        self._stopping.set()
        stop_in_order({kept.name: partial(kept.program.stop, GRACE_S) for kept in self.kept})
        for kept in self.kept:
            if kept.thread:
                kept.thread.join()
        if self._tender:
            self._tender.join()

    def write(self, **facts: Any) -> None:
        """Writes down what runs, and what else is to be known of it; later, where it cannot be written now."""
        with self._writing:
            self._facts |= facts
            if self._stopping.is_set():
                return
            content = {**self._facts, "processes": [_entry(kept) for kept in self.kept]}
            try:
                self._home.write(self._home.state, content)
                self._unwritten = False
            except OSError:
                self._unwritten = True

    def _guard(self, kept: KeptProgram) -> None:
        """Starts a program again when it ends: at once, or after growing pauses where it does not stay up."""
        short_lives = 0
        while True:
            status = kept.program.wait()
            if self._stopping.is_set():
                return
            short_lives = short_lives + 1 if time.time() - kept.started < _STABLE else 0
            kept.deaths.add(kept.name, time.time(), status, kept.program.last_life())
            self.write()
            while not self._start_again(kept, short_lives):
                short_lives += 1
            if self._stopping.is_set():
                kept.program.stop(GRACE_S)
                return
            self.write()

    def _start_again(self, kept: KeptProgram, short_lives: int) -> bool:
        """Starts a program after a pause. False where it cannot be started; True also where everything is to end."""
        pause = min(_LONGEST_PAUSE, 0.25 * 2 ** (short_lives - 1)) if short_lives else 0.0
        if self._pause(pause):
            return True
        kept.restarts += 1
        kept.started = time.time()
        try:
            kept.start()
        except Exception as error:  # whatever it is: without this thread the program would never come back
            if not isinstance(error, (TailraceError, OSError)):
                traceback.print_exc(file=sys.stderr)
            kept.deaths.not_started(kept.name, time.time(), str(error) or type(error).__name__)
            self.write()
            return self._stopping.is_set()
        return True

    def _pause(self, seconds: float) -> bool:
        """Waits; where a disk is full, until there is room, and ten seconds at most. True when everything is to end."""
        was_full = self._is_full()
        until = time.monotonic() + (_LONGEST_PAUSE if was_full else seconds)
        while (remaining := until - time.monotonic()) > 0:
            if self._stopping.wait(min(remaining, _TEND_S)):
                return True
            if was_full and not self._is_full():
                break
        return self._stopping.is_set()

    def _is_full(self) -> bool:
        try:
            return bool(full_disks(self._home.root))
        except OSError:
            return False

    def _tend(self) -> None:
        """Writes what could not be written, and sees to it that there is a watchdog."""
        while not self._stopping.wait(_TEND_S):
            watchdog().tend()
            if self._unwritten:
                self.write()


def _entry(kept: KeptProgram) -> dict[str, Any]:
    return {
        "name": kept.name,
        "pid": kept.program.pid,
        "address": kept.address,
        "port": int(kept.address.rpartition(":")[2]),
        "started": datetime.fromtimestamp(kept.started, UTC).isoformat(),
        "created": created(kept.program.pid),
        "restarts": kept.restarts,
        "deaths": kept.deaths.record(),
    }
