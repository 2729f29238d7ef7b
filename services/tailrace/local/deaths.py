"""How a program of a home ended, in words: how often, when, why in one sentence, and what to do. Pure."""

from __future__ import annotations

import json
import re
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tailrace.shortages import shortage_in
from tailrace.telemetry.reasons import plain

LOOP_DEATHS = 3
LOOP_S = 300.0
"""A program that has died so often within so many seconds is in a crash loop, and not healthy."""

_KEPT = 20
_NEAR_THE_END = 60
_LONGEST_WORDS = 300
_ERRORS = ("error", "critical")
_JAVA = re.compile(r"^\[?\d{4}-\d\d-\d\d[T ][\d:,.]+\]? (?:ERROR|FATAL) (.*)")
_RAISED = re.compile(
    r"^(?:[a-z_][\w.]*\.)?(?=[A-Z])\w*(?:Error|Exception|Refused|Rejected|Failed|Unavailable|Unknown)\b.*"
)
_CLI = "tailrace: "


@dataclass
class Deaths:
    """The ends of one program that it was not told to come to.

    Attributes:
        times: how many, since everything was started.
        recent: when the last of them were, in seconds since 1970.
        why: the last one's reason, one sentence.
        remedy: what a person may do about it.
    """

    times: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    why: str = ""
    remedy: str = ""

    def add(self, name: str, at: float, status: int | None, lines: Sequence[str]) -> None:
        """One more, with the exit status and with what the program wrote in that life."""
        last = last_error(lines)
        self._count(at, ended(status) + (f": {last}" if last else ""), _remedy(name, status, last))

    def not_started(self, name: str, at: float, reason: str) -> None:
        """One more, of a program that could not even be started."""
        last = last_error(reason.splitlines())
        self._count(at, f"it cannot be started: {last}", _remedy(name, None, last))

    def _count(self, at: float, why: str, remedy: str) -> None:
        self.times += 1
        self.recent.append(at)
        self.why, self.remedy = why, remedy

    def record(self) -> dict[str, Any] | None:
        """As the home's state has it; None where there were none."""
        if not self.times:
            return None
        return {"times": self.times, "recent": list(self.recent), "why": self.why, "remedy": self.remedy}


def report(record: Mapping[str, Any] | None, now: float) -> dict[str, Any] | None:
    """What `tailrace status` says of a program's deaths, by what the state has; None where it has none."""
    if not record:
        return None
    lately = sum(now - at <= LOOP_S for at in record["recent"])
    return {
        "times": record["times"],
        "lately": lately,
        "last": datetime.fromtimestamp(record["recent"][-1], UTC).isoformat(timespec="seconds"),
        "why": record["why"],
        "remedy": record["remedy"],
        "crash_loop": lately >= LOOP_DEATHS,
    }


def sentence(name: str, deaths: Mapping[str, Any]) -> str:
    """The same for people."""
    often = "once" if deaths["times"] == 1 else f"{deaths['times']} times"
    lately = f", {deaths['lately']} of them within {LOOP_S / 60:.0f} minutes" if deaths["crash_loop"] else ""
    return f"{name} died {often}{lately}, last at {deaths['last']}: {deaths['why']}. {deaths['remedy']}"


def ended(status: int | None) -> str:
    if status is None:
        return "it is gone"
    if status < 0:
        try:
            return f"it was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"it was killed by signal {-status}"
    return {0: "it ended by itself", 2: "a setting is wrong (exit code 2)"}.get(status, f"exit code {status}")


def last_error(lines: Sequence[str]) -> str:
    """The last error that a program has written: of a JSON log, of Java's, of a traceback or of the command line. Where
    there is none of them, its last line.
    """
    last = next(filter(None, (_error_in(line.strip()) for line in reversed(lines))), None)
    if last is None:
        last = next((line for line in reversed(lines) if line.strip() and not line.startswith("{")), "")
    # What was short stands further up, in the middle of what came of it.
    short = next(filter(None, map(shortage_in, reversed(lines[-_NEAR_THE_END:]))), None)
    if short is not None and shortage_in(last) is None:
        last = f"{last.strip()} ({short.partition(': ')[0]})"
    return _short(last)


def _error_in(line: str) -> str | None:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
            level, message = entry["level"], str(entry["message"])
        except (ValueError, KeyError, TypeError):
            return None
        if level not in _ERRORS:
            return None
        reason = entry.get("reason") or str(entry.get("exception", "")).strip().rpartition("\n")[2]
        return f"{message} ({reason})" if reason else message
    if line.startswith(_CLI):
        return line.removeprefix(_CLI)
    if match := _JAVA.match(line):
        return match.group(1)
    return line if _RAISED.match(line) else None


def _short(text: str) -> str:
    text = plain(text).rstrip(".")
    return text if len(text) <= _LONGEST_WORDS else text[: _LONGEST_WORDS - 3] + "..."


def _remedy(name: str, status: int | None, last: str) -> str:
    log = f"its log: `tailrace logs {name}`"
    if short := shortage_in(last):
        return f"{short.partition(': ')[2].capitalize()}, and it comes back by itself; {log}"
    if status == -signal.SIGKILL:
        return f"Somebody killed it, or the kernel did for want of memory (`dmesg` says so); {log}"
    if status == 2:
        return f"Correct the setting and start everything anew (`tailrace down`, `tailrace up`); {log}"
    return f"Remove the cause, and it comes back by itself; {log}"
