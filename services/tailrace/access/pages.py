"""What a browser gives away about who makes it send a request. A page of another's must not read or write here.

A page is refused whatever credential its request carries: a browser adds by itself what its user once typed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def host_names(*addresses: str | None) -> frozenset[str]:
    """The names that a ``Host`` header may say: the loopback's, and those under which a server listens.

    A page whose own name was made to point here (DNS rebinding) says its own name.
    """
    given: Iterable[str] = (f"[{name}]" if ":" in name else name for name in addresses if name)
    return frozenset(name.lower() for name in (*LOOPBACK, *given))


def is_misdirected(headers: Mapping[str, str], names: frozenset[str]) -> bool:
    """Whether a request was meant for another server than this; the port is not looked at, it may be published as
    another.
    """
    host = headers.get("host", "").lower()
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    return name not in names


def is_anothers_page(headers: Mapping[str, str], scheme: str) -> bool:
    """Whether a page made a browser send this that did not come from this very server (scheme, host and port)."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"{scheme}://{headers.get('host', '')}".lower():
        return True
    return headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin")
