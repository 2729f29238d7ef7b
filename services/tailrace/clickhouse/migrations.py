"""ClickHouse's fixed tables, made by numbered files that are only ever added to.

``schemas/clickhouse/0001_WHAT.sql`` and so on, applied in order, each once, recorded with its checksum in
``schema_migrations``. A file that was applied never changes; what comes later is a new file. Statements end
with a semicolon at the end of a line and can be run again without harm (``IF NOT EXISTS``), since ClickHouse
has no transactions: two services that start at once, or one that dies midway, must come to the same tables.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrace.clickhouse.client import ClickHouse
from tailrace.clickhouse.history import marked_lost, names_of_tables
from tailrace.clickhouse.tables import CONTROL_TABLES
from tailrace.contracts.records.lanes import CONTRACTS
from tailrace.errors import TailraceError
from tailrace.package_data import data_dir

log = logging.getLogger(__name__)

_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_REPEATABLE = re.compile(
    r"CREATE (TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS\b"
    r"|ALTER TABLE \S+ (ADD (COLUMN|INDEX) IF NOT EXISTS|MODIFY)\b"
)

_MADE = re.compile(r"CREATE (?:TABLE|VIEW|MATERIALIZED VIEW) IF NOT EXISTS `?(\w+)")
_TABLE_MADE = re.compile(r"CREATE TABLE IF NOT EXISTS `?(\w+)")

_TABLE = """CREATE TABLE IF NOT EXISTS schema_migrations (
    version UInt32,
    name String,
    checksum String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree ORDER BY version
SETTINGS non_replicated_deduplication_window = 1000"""


class MigrationError(TailraceError):
    """The migrations in the files and those in the database do not fit together."""


class Migration(NamedTuple):
    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


def read_migrations(folder: Path | None = None) -> list[Migration]:
    """The files, in order.

    Raises:
        MigrationError: a name is not ``0001_what.sql``, a number is missing or there twice, or a statement
            could not be run again.
    """
    folder = folder or data_dir("schemas", "clickhouse")
    migrations = [_read(path) for path in sorted(folder.glob("*.sql"))]
    if [migration.version for migration in migrations] != list(range(1, len(migrations) + 1)):
        names = ", ".join(migration.name for migration in migrations)
        raise MigrationError(f"the migrations in {folder} are not numbered 0001, 0002, and so on: {names}")
    return migrations


def migrate(
    clickhouse: ClickHouse,
    migrations: Sequence[Migration] | None = None,
    stored: Callable[[str], bool] = lambda topic: False,
) -> list[str]:
    """Makes the database and applies what was not applied; gives back the names of what was. Where a table that
    was made is gone, all is applied again.

    Args:
        stored: of a topic, whether records of it had been stored; a table of it that is made then lacks them.

    Raises:
        MigrationError: a file that was applied has changed or is gone.
        Unavailable: ClickHouse is away.
    """
    migrations = read_migrations() if migrations is None else migrations
    clickhouse.create_database()
    clickhouse.command(_TABLE)
    applied = {
        version: (name, checksum)
        for version, name, checksum in clickhouse.query(
            "SELECT version, any(name), any(checksum) FROM schema_migrations GROUP BY version"
        ).rows
    }
    known = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in sorted(applied.items()):
        if version not in known:
            raise MigrationError(
                f"{name} was applied to ClickHouse's database {clickhouse.database} and is unknown here: it "
                "was made by a newer version of Tailrace; use that one"
            )
        if known[version].checksum != checksum:
            raise MigrationError(
                f"{known[version].name} has changed since it was applied to ClickHouse's database "
                f"{clickhouse.database}: put it back as it was, and add what is new as a new file"
            )
    present = names_of_tables(clickhouse)
    gone = {
        name
        for migration in migrations
        for name in _made_by(migration) - present
        if migration.version in applied or _had_rows(name, stored)
    }
    if gone:
        names = ", ".join(sorted(gone))
        log.warning(f"{names} were gone from ClickHouse and are made again, empty: `tailrace rebuild TABLE`")
    done = []
    for migration in migrations:
        if migration.version not in applied or gone:
            for statement in migration.statements:
                table = _TABLE_MADE.match(statement)
                clickhouse.command(marked_lost(statement) if table and table[1] in gone else statement)
        if migration.version not in applied:
            _record(clickhouse, migration)
            done.append(migration.name)
    return done


def tables_of(migrations: Sequence[Migration]) -> set[str]:
    """The tables that migrations make, without the views."""
    return {name for migration in migrations for name in _made_by(migration, _TABLE_MADE)}


def _made_by(migration: Migration, pattern: re.Pattern[str] = _MADE) -> set[str]:
    return {made[1] for statement in migration.statements if (made := pattern.match(statement))}


def _had_rows(table: str, stored: Callable[[str], bool]) -> bool:
    topics = [topic for topic, name in CONTROL_TABLES.items() if name == table]
    # What services refused, and what cannot be read, may be of any topic: contracts are where every project begins.
    return any(map(stored, topics or [CONTRACTS]))


def _record(clickhouse: ClickHouse, migration: Migration) -> None:
    row: dict[str, list[Any]] = {
        "version": [migration.version],
        "name": [migration.name],
        "checksum": [migration.checksum],
        "applied_at": [time.time_ns() // 1_000_000],
    }
    types = clickhouse.columns("schema_migrations")
    # A record that is there twice says the same twice; one that ClickHouse only thinks it has would be missing.
    clickhouse.insert("schema_migrations", row, types, token=uuid.uuid4().hex)


def _read(path: Path) -> Migration:
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise MigrationError(f"{path} is no migration: its name is to be like 0001_what.sql")
    text = path.read_text()
    statements = tuple(split(text))
    for statement in statements:
        if _REPEATABLE.match(" ".join(statement.split())) is None:
            raise MigrationError(
                f"{path.name} has a statement that cannot be run again without harm: {statement[:60]!r}; "
                "create with IF NOT EXISTS, add columns, drop nothing"
            )
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return Migration(int(named.group(1)), path.name.removesuffix(".sql"), checksum, statements)


def split(text: str) -> list[str]:
    """The statements of a file: each ends with a semicolon at a line's end; ``--`` begins a comment line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", "\n".join(lines)) if part.strip()]
