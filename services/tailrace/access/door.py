"""The one way in to a home's HTTP servers: an ASGI middleware that lets nothing through without a token of the home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tailrace.access.digests import Digests
from tailrace.access.pages import is_anothers_page, is_misdirected
from tailrace.access.tokens import token_of

UNAUTHENTICATED = 401
FORBIDDEN = 403
WRONG_MEDIA_TYPE = 415
MISDIRECTED = 421

Refuse = Callable[[int, str], Response]
"""From an HTTP status and a sentence, an answer in the style of the server that stands behind the door."""

CHALLENGE = {"WWW-Authenticate": 'Basic realm="Tailrace", charset="UTF-8"'}


class DoorRules(NamedTuple):
    """What a server asks of a request beside a token.

    Attributes:
        refuse: how it says no.
        hosts: what ``Host`` may name, see `host_names`.
        users: who may come to it at all.
        open_paths: what says only whether the server is alive, and says it to everybody.
        media_types: what a body that writes may be; None for anything.
        token_in_url: whether a token may be the URL's ``password``.
    """

    refuse: Refuse
    hosts: frozenset[str]
    users: frozenset[str]
    open_paths: frozenset[str]
    media_types: frozenset[str] | None = None
    token_in_url: bool = False


class Door:
    """Answers what may not come in, and hands on the rest with the user's name in ``scope["user"]``."""

    def __init__(self, app: ASGIApp, home: Path, rules: DoorRules) -> None:
        self._app = app
        self._digests = Digests(home)
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing behind it speaks WebSocket, and none is let through by mistake
            await send({"type": "websocket.close", "code": 1008})
            return
        user, refusal = self._look_at(scope)
        if refusal is None:
            await self._app({**scope, "user": user}, receive, send)
        else:
            await refusal(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        """By the path as it was sent: one that only decodes to an open one is none."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return False
        return scope["raw_path"].decode("latin-1") in self._rules.open_paths

    def _look_at(self, scope: Scope) -> tuple[str | None, Response | None]:
        rules = self._rules
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if is_misdirected(headers, rules.hosts):
            return None, self._no(MISDIRECTED, _MISDIRECTED.format(", ".join(sorted(rules.hosts))))
        if is_anothers_page(headers, scope["scheme"]):
            return None, self._no(FORBIDDEN, _ANOTHERS_PAGE)
        token = token_of(headers, scope["query_string"].decode("latin-1") if rules.token_in_url else None)
        user = None if token is None else self._digests.user_of(token)
        if user is None:
            return None, self._no(UNAUTHENTICATED, _NOTHING_SENT if token is None else _NOBODYS)
        if user not in rules.users:
            return None, self._no(FORBIDDEN, f"The user {user} may do nothing here. {_WHO_MAY}")
        if scope["method"] in ("POST", "PUT", "PATCH") and not self._is_readable(headers):
            return None, self._no(WRONG_MEDIA_TYPE, _MEDIA_TYPE)
        return user, None

    def _is_readable(self, headers: dict[str, str]) -> bool:
        if self._rules.media_types is None:
            return True
        return headers.get("content-type", "").partition(";")[0].strip().lower() in self._rules.media_types

    def _no(self, status: int, sentence: str) -> Response:
        response = self._rules.refuse(status, sentence)
        if status == UNAUTHENTICATED:
            response.headers.update(CHALLENGE)
        return response


_WHO_MAY = "`tailrace env --user ops` prints the credentials of another user"
_NOTHING_SENT = (
    "A token of this home is needed, as a bearer token or as the password: `tailrace env` prints it"
)
_NOBODYS = "The token is none of this home's, or was renewed: `tailrace env` prints the one that counts"
_ANOTHERS_PAGE = "A page in a browser sent this that is not this server's own: only programs may ask here"
_MISDIRECTED = "The header Host names another server: ask under {}"
_MEDIA_TYPE = "Send JSON, and say so: Content-Type: application/vnd.schemaregistry.v1+json"
