"""What a machine runs out of and has again later: room on a disk, a quota, descriptors of open files.

None of it is a bug, and none of it says anything about a record. Whoever meets one waits and tries again.
"""

from __future__ import annotations

import errno
import os
import re

DISK, DESCRIPTORS = "disk", "descriptors"
_KINDS = {errno.ENOSPC: DISK, errno.EDQUOT: DISK, errno.EMFILE: DESCRIPTORS, errno.ENFILE: DESCRIPTORS}
# Libraries in C++, Rust and Java pass the system's words on, and not its number.
_BY_TEXT = {os.strerror(number).lower(): number for number in _KINDS}
_IN_TEXT = re.compile("|".join(map(re.escape, sorted(_BY_TEXT, key=len, reverse=True))), re.IGNORECASE)

_REMEDIES = {
    DISK: "free some of the disk or the quota",
    DESCRIPTORS: "raise the limit of open files (`ulimit -n`) or close what holds so many",
}


def shortage(error: BaseException) -> str | None:
    """What is short, in words, where an error comes of a shortage; None for every other error.

    Looks through what the error was raised from.
    """
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        short = shortage_of(cause) if isinstance(cause, OSError) else None
        if short := short or shortage_in(str(cause)):
            return short
        cause = cause.__cause__ or cause.__context__
    return None


def shortage_of(error: OSError) -> str | None:
    """As `shortage`, of the error's number alone."""
    return _words(error.errno) if error.errno in _KINDS else None


def shortage_in(text: str) -> str | None:
    """As `shortage`, of what a program has written."""
    match = _IN_TEXT.search(text)
    return match and _words(_BY_TEXT[match.group().lower()])


def remedy(kind: str) -> str:
    return _REMEDIES[kind]


def _words(number: int) -> str:
    return f"{os.strerror(number)}: {_REMEDIES[_KINDS[number]]}"
