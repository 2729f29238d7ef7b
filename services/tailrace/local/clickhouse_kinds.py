"""Which kinds of statement each user of the local ClickHouse may send, told by their canonical beginnings."""

from __future__ import annotations

import re

from tailrace.access.credentials import OPS, SERVICES
from tailrace.local.clickhouse_refused import NO_SESSION, StatementRefused
from tailrace.local.clickhouse_tokens import Tokens

_NAME = r"(?:\w+|`[^`]*`)(?:\.(?:\w+|`[^`]*`))?"
_EXPLAINED = r"(?:(?:AST|SYNTAX|QUERY TREE|PLAN|PIPELINE|ESTIMATE) )?(?:\w+ = \w+(?:, \w+ = \w+)* )?"
_SHOWN = (
    "TABLES|FULL TABLES|DATABASES|DICTIONARIES|COLUMNS|FULL COLUMNS|EXTENDED COLUMNS|EXTENDED FULL COLUMNS|INDEXES"
    "|CREATE (?:TABLE|VIEW|DATABASE)|PROCESSLIST|SETTINGS|CHANGED SETTINGS|SETTING|FUNCTIONS|ENGINES|GRANTS|MERGES"
)
KILL = re.compile(r"KILL QUERY WHERE query_id = ('(?:[^'\\]|\\.)*') (A?SYNC|TEST)(?: FORMAT (\w+))?")

_READING = re.compile(
    rf"\(*(?:SELECT|WITH)\b|(?:DESCRIBE TABLE|EXPLAIN {_EXPLAINED}(?:SELECT|WITH))\b"
    rf"|SHOW (?:{_SHOWN})\b|EXISTS (?:TABLE|VIEW|DATABASE|DICTIONARY) |USE {_NAME}$|SET \w+ = |{KILL.pattern}$"
)
# What sink, `tailrace apply`, `tailrace rebuild` and migrations send.
_WRITING = re.compile(
    rf"INSERT INTO {_NAME}(?: \([^()]*\))?(?: SETTINGS .*)? FORMAT \w+$"
    rf"|CREATE DATABASE (?:IF NOT EXISTS )?{_NAME}$"
    rf"|CREATE TABLE (?:IF NOT EXISTS )?{_NAME} \("
    rf"|CREATE VIEW (?:IF NOT EXISTS )?{_NAME} AS (?:SELECT|WITH)\b"
    rf"|ALTER TABLE {_NAME} \(ADD COLUMN "
    # A table that was made again says so, and what is damaged is set aside.
    rf"|ALTER TABLE {_NAME} \(MODIFY COMMENT '[\w :-]*'\)$"
    rf"|ALTER TABLE {_NAME} \(DETACH PART '\w+'\)$"
    rf"|CHECK TABLE {_NAME} SETTINGS check_query_single_value_result = 0$"
)
_ALONE = re.compile(r" \((?:MODIFY COMMENT '[\w :-]*'|DETACH PART '\w+')\)$")
_WRITERS = {OPS: (), SERVICES: (_WRITING,)}

# Pairs of words that only statements have which nobody may send, wherever they stand.
_NEVER = {
    *(("INTO", "OUTFILE"), ("FROM", "INFILE"), ("INSERT", "INTO"), ("PARALLEL", "WITH"), ("ON", "CLUSTER")),
    ("SQL", "SECURITY"),
}
_WITHOUT_EFFECT = frozenset(
    {
        *("allow_nondeterministic_mutations", "insert_distributed_sync", "log_comment", "max_block_size"),
        *("max_execution_time", "max_memory_usage", "max_threads", "mutations_sync", "priority"),
    }
)
"""Settings that change no result: SET of them is accepted, and forgotten with the statement."""

ENGINES = frozenset({"ReplacingMergeTree"})
TABLE_SETTINGS = frozenset({"non_replicated_deduplication_window"})


def check_kind(canonical: str, tokens: Tokens, user: str) -> None:
    """
    Raises:
        StatementRefused: the user may not send statements of this kind, or it needs a session.
    """
    if canonical.startswith("CREATE TEMPORARY "):
        raise StatementRefused("temporary tables need a session, and there are none here", NO_SESSION)
    if not any(kind.match(canonical) for kind in (_READING, *_WRITERS[user])):
        kind = " ".join(tokens.words(0, 1 if tokens[0].text == "INSERT" else 2))
        who = "this user only reads" if user == OPS else "this ClickHouse does what Tailrace's services need"
        raise StatementRefused(f"{kind} is refused: {who}")
    start = 1 if tokens[0].text == "INSERT" else 0
    for place in range(start, len(tokens)):
        if tokens.words(place, 2) in _NEVER:
            raise StatementRefused(
                f"{' '.join(tokens.words(place, 2))} is refused: it is no part of what reads"
            )
    if tokens[0].text == "CREATE" and tokens[1].text == "TABLE":
        _check_table(tokens)
    if tokens[0].text == "ALTER":
        _check_alteration(canonical, tokens)


def check_use(canonical: str, database: str) -> None:
    """
    Raises:
        StatementRefused: the statement takes another database for those that come after it in a session.
    """
    if canonical.startswith("USE ") and canonical not in (f"USE {database}", f"USE `{database}`"):
        raise StatementRefused(
            "USE needs a session, and there are none here: name the database in the URL, or before the table",
            NO_SESSION,
        )


def check_set(names: list[str]) -> None:
    """
    Raises:
        StatementRefused: a setting changes what later statements give, and nothing keeps it until then.
    """
    for name in names:
        if name not in _WITHOUT_EFFECT:
            raise StatementRefused(
                f"SET {name} needs a session, and there are none here: give it with the statement, "
                "by SETTINGS or in the URL",
                NO_SESSION,
            )


def _check_table(tokens: Tokens) -> None:
    engines = [
        tokens[place + 2].name for place in range(len(tokens)) if tokens.words(place, 2) == ("ENGINE", "=")
    ]
    for engine in engines:
        if engine not in ENGINES:
            raise StatementRefused(
                f"the table engine {engine} is refused: it is one of {', '.join(sorted(ENGINES))}"
            )
    if not engines or ("AS",) in [tokens.words(place, 1) for place in range(len(tokens))]:
        raise StatementRefused("CREATE TABLE is refused without columns and engine of its own")


def _check_alteration(canonical: str, tokens: Tokens) -> None:
    if _ALONE.search(canonical):
        return
    for place, token in enumerate(tokens):
        opens = token.text == "(" and not token.adjacent and token.kind == "mark"
        first = tokens[place - 1].text == "," or place < 6
        if opens and first and tokens.words(place + 1, 2) != ("ADD", "COLUMN"):
            raise StatementRefused("ALTER TABLE is refused but for ADD COLUMN")
