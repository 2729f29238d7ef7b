"""The credentials of a home: one file each, readable by its owner alone.

``<home>/credentials/kafka/USER`` holds the password of a Kafka user, ``<home>/credentials/http/USER`` the token with
which a user comes to the schema registry and to ClickHouse. Files are read anew at every use, so that a renewed
credential counts at once in whatever runs. Standard library only: applications import this too.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

KAFKA, HTTP = "kafka", "http"

OWNER = "owner"
"""Whoever owns the home: the commands that apply, publish, train and verify."""
APPLICATION = "application"
"""Programs that send requests, labels and actions, and read what comes of them."""
OPS = "ops"
"""People and tools that look at everything and change nothing."""
SERVICES = "services"
"""At the schema registry and ClickHouse: Tailrace's own services. At Kafka each of them has a user of its own."""


class Credentials:
    """The credentials in a home's folder. Nothing is made before `make`."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "credentials"

    def path(self, kind: str, user: str) -> Path:
        """Where the credential of a user is; ``kind`` is ``KAFKA`` or ``HTTP``."""
        return self.folder / kind / user

    def read(self, kind: str, user: str) -> str | None:
        """The credential; None where the home has none."""
        try:
            return self.path(kind, user).read_text().strip()
        except FileNotFoundError:
            return None

    def make(self, kind: str, user: str) -> str:
        """The credential, made at the first call."""
        return self.read(kind, user) or self.renew(kind, user)

    def renew(self, kind: str, user: str) -> str:
        """Replaces the credential by a new one of 256 random bits, whole or not at all."""
        path, credential = self.path(kind, user), secrets.token_urlsafe(32)
        for folder in (self.folder, path.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, draft = tempfile.mkstemp(dir=path.parent)  # 0600 from the first byte on
        with os.fdopen(descriptor, "w") as file:
            file.write(credential + "\n")
        os.replace(draft, path)
        return credential
