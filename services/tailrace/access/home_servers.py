"""Which servers are a home's own, and how a user of the home comes to them. Standard library only.

A server that checks the home's tokens writes its address into ``<home>/access/NAME.address`` as it starts. Only what
is addressed by exactly that scheme, host and port is sent a token of the home: a registry or ClickHouse that the
environment names and that is another's is sent what the environment says, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from tailrace.access.credentials import APPLICATION, DIGESTS, HTTP, HTTP_USERS, OPS, SERVICES, Credentials
from tailrace.access.private_files import write_private
from tailrace.addresses import without_credentials

REGISTRY, CLICKHOUSE = "registry", "clickhouse"

Auth = str | Callable[[], str | None] | None
"""``user:password``, or what gives it anew each time it is asked, or None for a server that wants none."""


@dataclass(frozen=True)
class Login:
    """How a user comes to one server: ``user:token`` at each call, so that renewed tokens are taken up.

    Attributes:
        server: ``REGISTRY`` or ``CLICKHOUSE``.
        user: a user of `Credentials`; all but application and ops come as services.
        given: ``user:password`` from the environment, for a server that is not this home's.
    """

    home: Path
    server: str
    url: str
    user: str
    given: str | None = field(default=None, repr=False)

    def __call__(self) -> str | None:
        user = self.user if self.user in (APPLICATION, OPS) else SERVICES
        if is_own(self.home, self.server, self.url):
            with suppress(OSError):
                if token := Credentials(self.home).read(HTTP, user):
                    return f"{user}:{token}"
        return self.given


def login(auth: Auth) -> str | None:
    """What to send now."""
    return auth() if callable(auth) else auth


def make_tokens(home: Path) -> None:
    """Makes what tokens the home lacks."""
    for user in HTTP_USERS:
        Credentials(home).make(HTTP, user)


def open_door(home: Path, server: str, url: str) -> None:
    """Called by a server as it starts: makes what tokens the home lacks, and says that this address is the home's."""
    make_tokens(home)
    write_private(_address(home, server), _origin(url) + "\n")


def close_door(home: Path, server: str) -> None:
    """Called once a home's server has ended for good: nothing is sent to whoever takes its port then."""
    _address(home, server).unlink(missing_ok=True)


def is_own(home: Path, server: str, url: str) -> bool:
    """Whether the server at this address checks this home's tokens."""
    try:
        return _address(home, server).read_text().strip() == _origin(url)
    except OSError:
        return False


def with_userinfo(url: str, auth: str) -> str:
    """The URL with this ``user:password`` in place of its own."""
    user, _, password = auth.partition(":")
    parts = urlsplit(without_credentials(url))
    return parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}").geturl()


def _address(home: Path, server: str) -> Path:
    return home / DIGESTS / f"{server}.address"


def _origin(url: str) -> str:
    parts = urlsplit(without_credentials(url))
    return f"{parts.scheme}://{parts.netloc}".lower()
