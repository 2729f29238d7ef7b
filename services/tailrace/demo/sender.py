"""Replays in the background."""

from __future__ import annotations

import threading

from tailrace.replay.send import Replay


class Sender(threading.Thread):
    """Runs a replay beside the demo's own thread."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(name="sender", daemon=True)
        self.replay = replay
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self.replay.run()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        if self._error is not None:
            raise self._error
