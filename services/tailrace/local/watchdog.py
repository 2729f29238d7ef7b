"""Ends what a parent started when the parent dies without doing so itself, on Linux and macOS alike.

The parent holds the write end of a pipe; its death, by whatever signal, closes it. Run by path, with nothing
imported from Tailrace, so that it costs a few milliseconds and little memory.

Lines on stdin: ``+PID`` watch, ``-PID`` forget. At end of file: SIGTERM to those left, then SIGKILL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time


class Watchdog:
    """The parent's side. One per process is enough: see `watchdog`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self.tend()

    def watch(self, pid: int) -> None:
        with self._lock:
            self._pids.add(pid)
            self._send(f"+{pid}\n")

    def forget(self, pid: int) -> None:
        with self._lock:
            self._pids.discard(pid)
            self._send(f"-{pid}\n")

    def tend(self) -> None:
        """Starts another where somebody has killed it. Where none can be started, everything still works; only a crash
        of the parent would leave orphans then.
        """
        with self._lock, contextlib.suppress(OSError):
            if self._process is not None and self._process.poll() is None:
                return
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            self._process = None
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            )
            self._send("".join(f"+{pid}\n" for pid in sorted(self._pids)))

    def _send(self, lines: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError):
            self._process.stdin.write(lines.encode())
            self._process.stdin.flush()


_watchdog: tuple[int, Watchdog] | None = None
_making = threading.Lock()


def watchdog() -> Watchdog:
    """This process's watchdog, started at first use (a forked child gets one of its own)."""
    global _watchdog
    with _making:  # one that is made and given up at once would end what it has been told of
        if _watchdog is None or _watchdog[0] != os.getpid():
            _watchdog = (os.getpid(), Watchdog())
        return _watchdog[1]


def _serve() -> None:
    pids: set[int] = set()
    for line in sys.stdin:
        change = pids.add if line[0] == "+" else pids.discard
        change(int(line[1:]))
    for sig, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 0.0)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)
        deadline = time.monotonic() + patience
        while pids and time.monotonic() < deadline:
            time.sleep(0.05)
            pids = {pid for pid in pids if _alive(pid)}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    _serve()
