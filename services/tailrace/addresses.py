"""Addresses with a user and a password in them, such as CLICKHOUSE_URL's: what may be shown of one, and what may not.

Standard library only: applications import this too.
"""

from __future__ import annotations

import re
from urllib.parse import unquote


def without_credentials(url: str) -> str:
    """The address alone, to be written, logged and shown: no user, no password, no parameters.

    Errs on the safe side: all before the last ``@`` goes, wherever it stands, since a password may hold anything.
    """
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|", url)
    assert scheme
    rest = url.rpartition("@")[2].removeprefix(scheme[0])
    return scheme[0] + rest.partition("?")[0].partition("#")[0]


def credentials_in(url: str) -> str | None:
    """``user:password`` of the address; None where it has none."""
    given, at, _ = url.partition("://")[2].rpartition("@")
    return unquote(given) if at else None
