"""What programs that are not ours need to reach what runs in a home, as the environment variables they know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tailrace.access.credentials import HTTP, OPS, Credentials
from tailrace.access.home_servers import CLICKHOUSE, REGISTRY, is_own, with_userinfo
from tailrace.addresses import credentials_in
from tailrace.clickhouse.client import DATABASE
from tailrace.connection import environment, is_running_at
from tailrace.errors import TailraceError
from tailrace.local.home import Home


def program_environment(home: Home, user: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Addresses and credentials of what runs in the home; the credentials of the home's own servers alone.

    An address that ``env`` (by default this process's environment) has with credentials, of a server that is not the
    home's own, is left out: what would be printed here has none, and would take them from the shell.

    Args:
        user: as whom the program comes to Kafka and to the registry. To ClickHouse it comes as ops, who reads there.

    Raises:
        TailraceError: nothing runs in the home, or its credentials are not this user's to read.
    """
    root, variables = home.root, environment(home.root, user)
    if not variables:
        raise TailraceError(f"nothing runs in {home}: start everything with `tailrace up --detach`")
    if is_own(root, REGISTRY, variables["SCHEMA_REGISTRY_URL"]):
        variables["SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"] = _login(root, user)
    if is_own(root, CLICKHOUSE, clickhouse := variables.get("CLICKHOUSE_URL", "")):
        if not urlsplit(clickhouse).path.strip("/"):
            clickhouse = f"{clickhouse.rstrip('/')}/{DATABASE}"
        variables["CLICKHOUSE_URL"] = with_userinfo(clickhouse, _login(root, OPS))
    for name in kept_by_the_shell(variables, os.environ if env is None else env):
        del variables[name]
    return variables | {"TAILRACE_HOME": str(root)}


def kept_by_the_shell(variables: Mapping[str, str], env: Mapping[str, str]) -> list[str]:
    """The variables whose address the environment has too, with credentials that are not in ``variables``."""
    return [
        name
        for name in ("SCHEMA_REGISTRY_URL", "CLICKHOUSE_URL")
        if credentials_in(env.get(name, "")) and is_running_at(env[name], variables.get(name, ""))
    ]


def _login(home: Path, user: str) -> str:
    path = Credentials(home).path(HTTP, user)
    try:
        return f"{user}:{path.read_text().strip()}"
    except OSError as error:
        raise TailraceError(
            f"{path} cannot be read ({error.strerror}): ask who runs this home, or restart what runs in it"
        ) from error
