"""Who a token belongs to, by the digests in a home's folder ``access``; a renewed token counts at the next request."""

from __future__ import annotations

import hmac
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tailrace.access.credentials import DIGEST_SUFFIX, DIGESTS, HTTP_USERS, digest

_Fingerprint = tuple[int, int, int, int]


class Admitted(NamedTuple):
    """A token that counts: its digest, and the second at which it ends."""

    digest: str
    until: float


class Digests:
    """The tokens of a home that count now. Reads no token, and of each file only what has changed."""

    def __init__(self, home: Path) -> None:
        self._files = {user: str(home / DIGESTS / f"{user}{DIGEST_SUFFIX}") for user in HTTP_USERS}
        self._read: dict[str, tuple[_Fingerprint, tuple[Admitted, ...]]] = {}

    def user_of(self, token: str) -> str | None:
        """The user whose token it is; None where it is nobody's. Takes as long for the one as for the other."""
        asked, now, owner = digest(token), time.time(), None
        for user in HTTP_USERS:
            for admitted in self._admitted(user):
                if hmac.compare_digest(asked, admitted.digest) and now < admitted.until:
                    owner = user
        return owner

    def _admitted(self, user: str) -> tuple[Admitted, ...]:
        path = self._files[user]
        try:
            status = os.stat(path)
            # A file is never written to, it is replaced: another inode even within one tick of the clock.
            fingerprint = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            known = self._read.get(user)
            if known is None or known[0] != fingerprint:
                known = self._read[user] = fingerprint, _parse(Path(path).read_text())
        except OSError:
            return ()
        return known[1]


def _parse(text: str) -> tuple[Admitted, ...]:
    """A line each: a digest, and where the token ends one day, the second. What is no such line admits nobody."""
    admitted = []
    for line in text.splitlines():
        name, _, until = line.partition(" ")
        with suppress(ValueError):
            admitted.append(Admitted(name, float(until or math.inf)))
    return tuple(token for token in admitted if len(token.digest) == 64 and token.digest.isascii())
