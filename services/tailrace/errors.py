"""The errors that services tell apart. Everything else is a bug."""

from __future__ import annotations


class TailraceError(Exception):
    """An error meant for people: says what is wrong and what to do next. The command line prints it and exits 1."""


class UsageError(TailraceError):
    """The caller asked for something that makes no sense as asked. The command line exits 2."""


class BadRecord(Exception):
    """One record's data is bad: it becomes a dead letter, and the batch goes on.

    ``code`` is stable and for machines, ``reason`` for people, ``field`` the field at fault where there is one.
    Reason and field may quote the bad data: they are cut and made valid text, since they become headers.
    """

    def __init__(self, code: str, reason: str, field: str | None = None) -> None:
        self.code = code
        self.reason = _text(reason)
        self.field = None if field is None else _text(field)
        super().__init__(f"{code}: {self.reason}" + (f" (field {self.field})" if field else ""))


class Unavailable(Exception):
    """Something needed is away for the moment (registry, ClickHouse); the same batch is to be offered again."""


class DiskFailed(TailraceError):
    """A disk lets something not be read or written; no record is to be blamed for it."""


class StateLost(Exception):
    """What a processor keeps of the log could not be read any more and was thrown away: the processor has to be given
    its partitions anew, from what is committed.
    """


def _text(text: str, most: int = 500) -> str:
    short = text if len(text) <= most else text[:most] + "..."
    return short.encode("utf-8", "backslashreplace").decode()
