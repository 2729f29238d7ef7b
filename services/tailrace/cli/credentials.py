"""The tokens with which programs come to registry and ClickHouse: ``tailrace credentials``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tailrace.cli.app import app
from tailrace.cli.output import JsonOption, emit, say
from tailrace.connection import home_dir

credentials = typer.Typer(help="What lets programs in.", no_args_is_help=True)
app.add_typer(credentials, name="credentials")


class User(StrEnum):
    SERVICES = "services"
    APPLICATION = "application"
    OPS = "ops"


@credentials.command()
def renew(
    user: Annotated[User, typer.Argument(help="Whose.")],
    now: Annotated[
        bool,
        typer.Option("--now", help="Refuse the token before it at once, as one that got into wrong hands."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new token for registry and ClickHouse; what runs here takes it up by itself.

    The token before it counts for a day more, or until the next renewal, so that programs of your own go on until
    they are told the new one.

    Example: tailrace credentials renew application
    """
    from tailrace.access.credentials import GRACE_S, HTTP, Credentials
    from tailrace.errors import TailraceError

    home = home_dir()
    store = Credentials(home)
    if store.read(HTTP, user) is None:
        raise TailraceError(f"{home} has no tokens yet: `tailrace up` makes them")
    store.renew(HTTP, user, 0.0 if now else GRACE_S)
    emit(
        {"user": str(user), "file": store.path(HTTP, user), "former_counts_s": 1 if now else int(GRACE_S)},
        as_json,
    )
    say("`tailrace env` prints the new one for programs of your own")
