"""The token that a request carries, in any of the ways in which clients send one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import parse_qs


def token_of(headers: Mapping[str, str], query: str | None = None) -> str | None:
    """The token; None where there is none, or none that can be read.

    Taken as ``Authorization: Bearer TOKEN``, as Basic's password and as ``X-ClickHouse-Key``; beside these, user
    names say nothing: the token alone decides who it is.

    Args:
        headers: by their names in lower case.
        query: the URL's, where the token may also be its ``password``; None where it may not.
    """
    if (authorization := headers.get("authorization")) is not None:
        scheme, _, value = authorization.partition(" ")
        return _SCHEMES.get(scheme.lower(), lambda value: None)(value.strip())
    if (key := headers.get("x-clickhouse-key")) is not None:
        return key
    if query is not None and "password=" in query:
        return parse_qs(query).get("password", [None])[0]
    return None


def _basic(value: str) -> str | None:
    try:
        _, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return password if colon else None


_SCHEMES = {"bearer": lambda value: value or None, "basic": _basic}
