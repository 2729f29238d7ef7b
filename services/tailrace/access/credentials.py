"""The credentials of a home: one file each, readable by its owner alone.

``<home>/credentials/kafka/USER/password`` holds the password of a Kafka user, ``<home>/credentials/http/USER/token``
the token with which a user comes to the schema registry and to ClickHouse. Files are read anew at every use, so that a
renewed credential counts at once in whatever runs; each has a folder of its own, since what the kernel lets a service
read is a folder, in which files may be replaced. Standard library only: applications import this too.

The servers never read a token: ``<home>/access/USER.sha256`` holds its digest, and that of the token before it with
the second at which it ends. A digest is of no use to a client, and 256 random bits are not guessed from one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailrace.access.private_files import write_private

KAFKA, HTTP = "kafka", "http"
_FILES = {KAFKA: "password", HTTP: "token"}

OWNER = "owner"
"""Whoever owns the home: the commands that apply, publish, train and verify."""
APPLICATION = "application"
"""Programs that send requests, labels and actions, and read what comes of them."""
OPS = "ops"
"""People and tools that look at everything and change nothing."""
SERVICES = "services"
"""At the schema registry and ClickHouse: Tailrace's own services. At Kafka each of them has a user of its own."""

HTTP_USERS = (SERVICES, APPLICATION, OPS)

DIGESTS = Path("access")
"""In a home: what servers check tokens with. Nothing in it lets anybody in."""
DIGEST_SUFFIX = ".sha256"

GRACE_S = 24 * 3600.0
"""How long the token before a renewed one still counts: what carries it goes on until it has the new one."""


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Credentials:
    """The credentials in a home's folder. Nothing is made before `make`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "credentials"
        self._digests = home / DIGESTS

    def path(self, kind: str, user: str) -> Path:
        """Where the credential of a user is; ``kind`` is ``KAFKA`` or ``HTTP``."""
        return self.folder / kind / user / _FILES[kind]

    def read(self, kind: str, user: str) -> str | None:
        """The credential; None where the home has none."""
        try:
            return self.path(kind, user).read_text().strip()
        except FileNotFoundError:
            return None

    def make(self, kind: str, user: str) -> str:
        """The credential, made at the first call; for ``HTTP`` servers take it from then on, whatever was before."""
        with self._alone():
            credential = self.read(kind, user) or secrets.token_urlsafe(32)
            if kind == HTTP and self._admitted(user)[:1] != [digest(credential)]:
                self._admit(user, digest(credential))
            if self.read(kind, user) is None:
                write_private(self.path(kind, user), credential + "\n")
        return credential

    def renew(self, kind: str, user: str, grace_s: float = GRACE_S) -> str:
        """Replaces the credential by a new one of 256 random bits, whole or not at all.

        For ``HTTP`` the one before it counts for ``grace_s`` seconds more (one at least, so that nobody is refused
        who has just read it), or until the next call.
        """
        with self._alone():
            former, credential = self.read(kind, user), secrets.token_urlsafe(32)
            if kind == HTTP:
                # Before anybody can send the new one, it counts.
                ending = [f"{digest(former)} {time.time() + max(grace_s, 1.0):.3f}"] if former else []
                self._admit(user, digest(credential), *ending)
            write_private(self.path(kind, user), credential + "\n")
        return credential

    def _admit(self, user: str, *lines: str) -> None:
        """The user's tokens that count from now on: a digest each, and where it ends one day the second of its end."""
        write_private(self._digests / f"{user}{DIGEST_SUFFIX}", "".join(f"{line}\n" for line in lines))

    def _admitted(self, user: str) -> list[str]:
        try:
            return (self._digests / f"{user}{DIGEST_SUFFIX}").read_text().splitlines()
        except FileNotFoundError:
            return []

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of several servers that start in a new home at once, one makes the credentials."""
        import fcntl  # not on every system that applications run on; they only read

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
