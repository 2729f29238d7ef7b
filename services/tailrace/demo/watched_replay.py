"""What both demos do: everything started and ended, and a replay whose effects are shown as they come."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.demo import accuracy
from tailrace.demo.display import Display
from tailrace.demo.milestones import FIRST
from tailrace.demo.observed import Seen
from tailrace.demo.pacing import STILL_S, Pacing
from tailrace.demo.project import DemoProject
from tailrace.demo.sender import Sender
from tailrace.demo.watch import Watcher
from tailrace.replay.send import Replay
from tailrace.runtime.patience import Patience

_POINTS = 24


class WatchedReplay(ABC):
    """Runs in a project folder of its own, which it makes anew.

    Args:
        folder: the project folder; a home left there by an earlier run is taken down and purged.
        keep: leave everything running at the end.
        missing: is given the names of what did not happen.
    """

    _usual_s = 8.0  # services may be behind for so long before event time stands still
    _longest_s = math.inf  # then nothing is waited for any more

    def __init__(self, folder: Path, keep: bool, missing: list[str]) -> None:
        self._keep, self._missing = keep, missing
        self._display = Display()
        self._project = DemoProject(folder, self._display)
        self._first_kept = False

    @abstractmethod
    def _behind(self, seen: Seen, sent: int) -> str | None:
        """What services have yet to do about what was sent; None where they keep up."""

    @abstractmethod
    def _waits_for(self, seen: Seen, sent: int) -> str | None:
        """What is to come after the replay; None once all has."""

    @abstractmethod
    def _take_note(self, seen: Seen) -> None:
        """Says what has happened since the last time, and does what it calls for."""

    @abstractmethod
    def _figures(self, seen: Seen) -> dict[str, str]: ...

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Everything is up meanwhile, and stays so where it is to be kept and nothing failed."""
        done = False
        try:
            self._project.tailrace("up", "--detach")
            yield
            done = True
        finally:
            if not (self._keep and done):
                self._project.tailrace("down", check=False)

    def _watch(self, contract: ModelContract, replay: Replay) -> Seen:
        watcher = Watcher(self._project.connection, contract.model, Lane(contract.lane))
        watcher.start()
        sender = Sender(replay)
        sender.start()
        seen, shown, answers = watcher.seen, 0, 0
        began = time.monotonic()
        pacing, end = Pacing(self._usual_s), Patience(STILL_S)
        while True:
            sending = sender.is_alive()
            waits = None if sending else self._waits_for(seen, replay.sent.requests)
            if not sending and waits is None:
                break
            watcher.check()
            elapsed = time.monotonic() - began
            is_too_long = elapsed > self._longest_s
            if waits is None:
                self._pace(pacing, seen, replay, is_too_long)
            elif is_too_long or not end.look(*seen.progress()):
                self._missing.append(f"an end (it waited for {waits})")
                break
            else:
                self._display.waits(waits)
            self._take_note(seen)
            if elapsed >= shown + 1:
                shown = int(elapsed)
                rate, answers = len(seen.answers) - answers, len(seen.answers)
                points = accuracy.line(seen.judged(), FIRST)[-_POINTS:]
                self._display.tick(elapsed, self._figures(seen), rate, points)
            time.sleep(0.05)
        watcher.stop()
        sender.check()
        return seen

    def _pace(self, pacing: Pacing, seen: Seen, replay: Replay, is_too_long: bool) -> None:
        """Holds the replay where services are behind, so that it is not over before they are."""
        reason = self._behind(seen, replay.sent.requests)
        if pacing.holds(reason, *seen.progress()) and not is_too_long:
            replay.hold()
            self._display.waits(f"{reason}; meanwhile no time passes")
        else:
            replay.go_on()

    def _keep_first(self, model: str) -> None:
        """Asks once that the first version stays in shadow, whatever comes after its successor."""
        if not self._first_kept:
            self._first_kept = True
            words = ("shadow", model, str(FIRST))
            threading.Thread(target=self._project.tailrace, args=words, kwargs={"check": False}).start()

    def _require(self, name: str, happened: Any) -> None:
        if not happened:
            self._missing.append(name)
