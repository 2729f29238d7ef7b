"""A child process: its output in a log file, its life bounded by its parent's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tailrace.local.watchdog import watchdog

_LOG_LIMIT = 20 * 1024 * 1024
_LAST_BYTES = 64 * 1024
_MOST_CPU_S = 600
"""Processor time counts as progress up to here, ten times the most that anything has needed to come up."""
_CPU_STEP_S = 3


class Process:
    """One program that may be launched again and again, one at a time.

    Attributes:
        log: what it writes to stdout and stderr, appended; one over 20 MiB is first moved to ``.1``.
    """

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.command = list(command)
        self.log = log
        self._env = dict(env)
        self._began_at = 0
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def launch(self) -> None:
        assert not self.running(), "launched twice"
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with self.log.open("ab") as log:
            self._began_at = log.seek(0, os.SEEK_END)
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,  # a Ctrl-C in the terminal is for whoever stops things in order
            )
        watchdog().watch(self._popen.pid)

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status once it has ended (negative: the signal that ended it); None after ``timeout``."""
        if self._popen is None:
            return None
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        watchdog().forget(self._popen.pid)
        return status

    def stop(self, timeout: float = 20) -> None:
        """SIGTERM, and SIGKILL where it has not ended after ``timeout`` seconds."""
        if self._popen is not None and self.running():
            self._popen.terminate()
            if self.wait(timeout) is None:
                self._popen.kill()
        self.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._popen is not None:
            self._popen.kill()
        self.wait()

    def last_life(self) -> list[str]:
        """The last lines that the program has written since it was launched; none where they cannot be read."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._began_at, log.seek(0, os.SEEK_END) - _LAST_BYTES))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def last_words(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def processor_time(pid: int | None) -> int:
    """How much processor time a process and its ended children have had, in steps of three seconds. A process that
    starts takes such a step in a minute also where twenty want its core; one that idles does not, and one that turns
    in circles has some time had all that counts.
    """
    try:
        return int(min(_MOST_CPU_S, sum(psutil.Process(pid).cpu_times()[:4])) / _CPU_STEP_S) if pid else 0
    except psutil.Error:
        return 0
