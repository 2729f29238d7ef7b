"""What the local ClickHouse refuses to run: statements that reach files, programs or other hosts.

Two fences. The engine's own grants (``GRANTS``, handed over in its user configuration) deny every source and
every table engine that is not listed. What grants do not cover (the scalar function ``file``, table functions
that are programs, ``INTO OUTFILE``) is refused here, by name, in the canonical text that the engine's own
parser makes of exactly one statement, so that there is no second parser to disagree with the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

GRANTS = (
    "GRANT SHOW, SELECT, INSERT, ALTER, TRUNCATE, OPTIMIZE, UNDROP TABLE, CREATE TEMPORARY TABLE ON *.*",
    "GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP DATABASE, DROP TABLE, DROP VIEW ON *.*",
    *(
        f"GRANT TABLE ENGINE ON {engine}"
        for engine in (
            "MergeTree",
            "ReplacingMergeTree",
            "SummingMergeTree",
            "AggregatingMergeTree",
            "Memory",
            "View",
            "MaterializedView",
        )
    ),
)

# Settings that would let data be code: VALUES could otherwise call functions that no statement shows.
FIXED_SETTINGS = {
    "input_format_values_interpret_expressions": "0",
    "input_format_values_deduce_templates_of_expressions": "0",
}

_HARMLESS_TABLE_FUNCTIONS = {
    "format",
    "generaterandom",
    "generateseries",
    "generate_series",
    "input",
    "loop",
    "merge",
    "mergetreeindex",
    "mergetreeprojection",
    "null",
    "numbers",
    "numbers_mt",
    "primes",
    "values",
    "view",
    "zeros",
    "zeros_mt",
}
# Functions that reach out of the database. They can be passed by name (``arrayMap(file, ...)``), so that the
# word alone is refused.
_OUTSIDE_FUNCTIONS = re.compile(r"file|ai_?[a-z]+", re.IGNORECASE)

_STRING = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_WORD = re.compile(r"[A-Za-z_]\w*")
_STATEMENTS = (
    (re.compile(r"^ATTACH\b"), "ATTACH"),
    (re.compile(r"\bINTO OUTFILE\b"), "INTO OUTFILE"),
    (re.compile(r"\bFROM INFILE\b"), "FROM INFILE"),
)
# An identifier that comes as a parameter stands in no statement: `{f:Identifier}` can be the name of a function.
_IDENTIFIER_PARAMETER = re.compile(r"\{(\w+):Identifier\}")
_PLAIN_IDENTIFIER = re.compile(r"[\w.-]+")
_PARAMETER_SETTING = re.compile(r"\bparam_\w")


class Refused(Exception):
    """The statement reaches out of the database."""


class Guard:
    """Decides on statements in the engine's canonical form (``formatQuerySingleLine``).

    Args:
        table_functions: every table function that the engine knows (``system.table_functions``).
        functions: every other function that it knows (``system.functions``).
    """

    def __init__(self, table_functions: Iterable[str], functions: Iterable[str]) -> None:
        refused = {name.lower() for name in table_functions} - _HARMLESS_TABLE_FUNCTIONS
        # disk(...) in a table's settings writes to any folder.
        self._called = refused | {"disk"}
        self._named = {n.lower() for n in functions if _OUTSIDE_FUNCTIONS.fullmatch(n)}

    def check(self, canonical: str, parameters: Mapping[str, str]) -> None:
        """Raises ``Refused`` where the statement names something that reaches out of the database.

        Args:
            canonical: the statement.
            parameters: the values of its ``{name:Type}`` parameters.
        """
        bare = _STRING.sub("''", canonical)
        self._check_parameters(bare, parameters)
        for pattern, name in _STATEMENTS:
            if pattern.search(bare):
                raise Refused(f"{name} is refused: this ClickHouse reads and writes its own tables only")
        for match in _WORD.finditer(bare):
            word = match.group().lower()
            called = bare[match.end() : match.end() + 3].lstrip('`" ').startswith("(")
            if word in self._named or (called and word in self._called):
                raise Refused(
                    f"{match.group()} is refused: this ClickHouse reads and writes its own tables only; "
                    "load files with `tailrace replay`"
                )

    def _check_parameters(self, bare: str, parameters: Mapping[str, str]) -> None:
        names = _IDENTIFIER_PARAMETER.findall(bare)
        if names and _PARAMETER_SETTING.search(bare):
            raise Refused("an identifier parameter that the statement itself sets is refused")
        for name in names:
            value = parameters.get(name, "")
            if not _PLAIN_IDENTIFIER.fullmatch(value) or self._named & set(value.lower().split(".")):
                raise Refused(f"{value!r} is refused as the identifier parameter {name}")
