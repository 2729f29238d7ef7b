"""The door before the local ClickHouse, which refuses as a ClickHouse server does."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from tailrace.access.credentials import OPS, SERVICES
from tailrace.access.door import UNAUTHENTICATED, Door, DoorRules
from tailrace.access.pages import host_names

_AUTHENTICATION_FAILED = (516, "AUTHENTICATION_FAILED")
_ACCESS_DENIED = (497, "ACCESS_DENIED")


def behind_door(app: ASGIApp, home: Path) -> Door:
    """The application, for services and ops of this home. What ops may ask is the engine's to say."""
    return Door(app, home, _RULES)


def _refuse(status: int, sentence: str) -> Response:
    code, name = _AUTHENTICATION_FAILED if status == UNAUTHENTICATED else _ACCESS_DENIED
    return PlainTextResponse(
        f"Code: {code}. DB::Exception: {sentence}. ({name})\n",
        status_code=status,
        headers={"X-ClickHouse-Exception-Code": str(code)},
    )


_RULES = DoorRules(
    refuse=_refuse,
    hosts=host_names(),
    users=frozenset({SERVICES, OPS}),
    open_paths=frozenset({"/ping"}),
    # Clients send statements as text/plain and as forms; a page of another's is known by Origin and Sec-Fetch-Site.
    media_types=None,
    # aiochclient has no other way. Nothing here logs URLs.
    token_in_url=True,
)
