"""The engine's own configuration: who may do what in it, and which settings nobody changes.

The embedded engine knows one user and no way to another; what it does know are roles. Each HTTP user has one, and a
handle takes its role before the statement runs, so that the engine itself refuses what the role was not granted.
A statement cannot take another role for itself: it is one statement (the engine's parser says so), and a handle
is thrown away after it.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from tailrace.access.credentials import OPS, SERVICES
from tailrace.local.clickhouse_allowed import names

# The table function `format` asks for the right to temporary tables, which end with their handle.
_READING = "GRANT SHOW, SELECT, CREATE TEMPORARY TABLE ON *.*"
_ENGINES = ("ReplacingMergeTree", "View")

GRANTS = {
    OPS: (_READING,),
    # What sink, `tailrace apply` and migrations do.
    SERVICES: (
        _READING,
        "GRANT INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, ALTER ADD COLUMN ON *.*",
        # `tailrace rebuild`; to set a part aside is a kind of deleting to the engine.
        "GRANT CHECK, ALTER MODIFY COMMENT, ALTER DELETE ON *.*",
        *(f"GRANT TABLE ENGINE ON {engine}" for engine in _ENGINES),
    ),
}
TAG = "chdb_client_name"
"""The setting that carries the client's id of a query: it is shown to other servers, and there are none."""

ROLES = {user: f"tailrace_{user}" for user in GRANTS}
"""The role of each HTTP user."""

# Data is not code: VALUES could otherwise call functions that no statement shows; and none looks into the process.
_OFF = (
    "input_format_values_interpret_expressions",
    "input_format_values_deduce_templates_of_expressions",
    "allow_introspection_functions",
    "allow_get_client_http_header",
    "allow_python_table_function",
)


def write_configuration(folder: Path) -> Path:
    """Writes the engine's configuration into the folder; gives back the file that names the others."""
    users = folder / "users.xml"
    users.write_text(f"<clickhouse>{_profiles()}{_roles()}{_users()}</clickhouse>\n")
    configuration = folder / "config.xml"
    configuration.write_text(
        f"<clickhouse><users_config>{escape(str(users.resolve()))}</users_config></clickhouse>\n"
    )
    return configuration.resolve()


def _profiles() -> str:
    off = "".join(f"<{name}>0</{name}>" for name in _OFF)
    constant = "".join(f"<{name}><const/></{name}>" for name in sorted(names("settings_refused") - {TAG}))
    return f"<profiles><default>{off}<constraints>{constant}</constraints></default></profiles>"


def _roles() -> str:
    return f"<roles>{''.join(_granted(ROLES[user], grants) for user, grants in GRANTS.items())}</roles>"


def _users() -> str:
    grants = "".join(f"<query>GRANT {role}</query>" for role in ROLES.values())
    return (
        "<users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile>"
        f"<quota>default</quota><grants>{grants}</grants></default></users><quotas><default></default></quotas>"
    )


def _granted(role: str, grants: tuple[str, ...]) -> str:
    queries = "".join(f"<query>{escape(grant)}</query>" for grant in grants)
    return f"<{role}><grants>{queries}</grants></{role}>"
