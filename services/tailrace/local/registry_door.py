"""The door before the registry, and who may take which of its routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.access.credentials import APPLICATION, OPS, SERVICES
from tailrace.access.door import DoorRules
from tailrace.access.pages import host_names
from tailrace.avro.registry import CONTENT_TYPE
from tailrace.local.registry_requests import ApiError, error_answer

READING = frozenset({SERVICES, APPLICATION, OPS})
"""May read, look up and compare."""
REGISTERING = frozenset({SERVICES, APPLICATION})
"""May also give a subject another version."""
ADMINISTERING = frozenset({SERVICES})
"""May also delete, and change levels and modes."""

_MEDIA_TYPES = frozenset({"application/json", "application/vnd.schemaregistry+json", CONTENT_TYPE})
_REFUSALS = {401: 40101, 403: 40301}


def rules(host: str | None) -> DoorRules:
    """What the registry asks of a request beside a token.

    Args:
        host: the name under which it listens, beside those of the loopback interface.
    """
    return DoorRules(
        refuse=lambda status, sentence: error_answer(_REFUSALS.get(status, status), sentence),
        hosts=host_names(host),
        users=READING,
        open_paths=frozenset({"/livez", "/readyz"}),
        media_types=_MEDIA_TYPES,
    )


def route(
    path: str, endpoint: Callable[[Request], Any], method: str = "GET", users: frozenset[str] | None = READING
) -> Route:
    """A route, and who may take it; None for the door's open paths, which have no user."""
    only = [] if users is None else [Middleware(_Only, users=users)]
    return Route(path, endpoint, methods=[method], middleware=only)


class _Only:
    """Lets these users through. It stands behind the routing, so that a path means one thing to both."""

    def __init__(self, app: ASGIApp, users: frozenset[str]) -> None:
        self._app = app
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (user := scope["user"]) not in self._users:
            others = " and ".join(sorted(self._users))
            raise ApiError(40301, f"The user {user} may not {scope['method']} this, {others} may")
        await self._app(scope, receive, send)
