"""What may be asked of the local ClickHouse: lists of what is allowed, held against what the engine's parser sees.

Kinds of statement, functions, table functions, formats and settings are looked for in the canonical text that the
engine's own parser makes of exactly one statement, so that nothing looks different to the one and the other. Words in
strings and names of columns are no calls. A name that is on no list is refused, whatever it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from tailrace.local.clickhouse_allowed import names
from tailrace.local.clickhouse_kinds import TABLE_SETTINGS, check_kind, check_set
from tailrace.local.clickhouse_limits import limits_of
from tailrace.local.clickhouse_refused import StatementRefused
from tailrace.local.clickhouse_tokens import Token, Tokens

Parse = Callable[[str], str]
"""From an SQL expression that gives a statement's text to the statement's canonical form."""

TABLE_FUNCTIONS = frozenset(
    {
        *("format", "generaterandom", "generateseries", "generate_series", "loop", "merge", "mergetreeindex"),
        *("mergetreeprojection", "null", "numbers", "numbers_mt", "primes", "sqlstandardvalues", "values"),
        *("view", "zeros", "zeros_mt"),
    }
)
_TYPES = frozenset(
    {
        *("aggregatefunction", "array", "bfloat16", "bool", "date", "date32", "datetime", "datetime32"),
        *("datetime64", "decimal", "decimal128", "decimal256", "decimal32", "decimal64", "dynamic", "enum"),
        *("enum16", "enum8", "fixedstring", "float32", "float64", "ipv4", "ipv6", "json", "lowcardinality"),
        *(
            "map",
            "nested",
            "nothing",
            "nullable",
            "qbit",
            "simpleaggregatefunction",
            "string",
            "time64",
            "tuple",
        ),
        *("uuid", "variant"),
    }
)
_SYNTAX = frozenset({"columns", "exists"})
_COMBINATORS = (
    *("simplestate", "ordefault", "distinct", "resample", "foreach", "argmax", "argmin", "ornull", "tuple"),
    *("merge", "state", "array", "null", "map", "if"),
)
# Of these the string that describes columns may hold expressions, as defaults: it is judged as well.
_STRUCTURE_AT = {"format": 1, "generaterandom": 0, "null": 0, "sqlstandardvalues": 0, "values": 0}
# Functions that take the name of another, as a string.
_BY_NAME = frozenset({"arrayreduce", "arrayreduceinranges", "initializeaggregation"})

_EXPRESSIONS = frozenset({"additional_table_filters", "additional_result_filter"})
_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'", re.DOTALL)
_MAP_AROUND = re.compile(r"[\s{}\[\](),:]*")
_TABLE_OF_COLUMNS = re.compile(r"CREATE TABLE t \((.*)\) ENGINE = `?Memory`?", re.DOTALL)
_PLAIN_IDENTIFIER = re.compile(r"[\w.-]+")
_PLAIN_STRING = re.compile(r"'[\w.:, -]*'")


class Guard:
    """Decides on statements in canonical form.

    Args:
        functions: every function that the engine knows; a new one is refused like an unknown one.
        parse: the engine's parser, for expressions that stand in strings.
    """

    def __init__(self, functions: Iterable[str], parse: Parse) -> None:
        self._functions = {name.lower() for name in names("functions")}
        self._aggregates = {name.lower() for name in names("aggregates")}
        self._higher_order = {name.lower() for name in names("higher_order")}
        self._formats = {name.lower() for name in names("formats")}
        self._refused = {name.lower() for name in functions} - self._functions
        self._parse = parse

    def check(self, canonical: str, user: str, parameters: Mapping[str, str]) -> None:
        """
        Args:
            canonical: the statement.
            user: an HTTP user that has a role in the engine.
            parameters: the values of its ``{name:Type}`` parameters.

        Raises:
            StatementRefused: something in it is not allowed to the user.
        """
        tokens = self._tokens(canonical)
        check_kind(canonical, tokens, user)
        self._check_names(tokens)
        self._check_parameters(tokens, parameters)
        of_table = tokens.words(0, 2) == ("CREATE", "TABLE")
        for place in range(len(tokens)):
            if tokens[place].text in ("SETTINGS", "SET") and tokens[place].kind == "word":
                assigned = self._assigned(tokens, place + 1)
                for name, value in assigned.items():
                    self._check_assigned(name, value, of_table)
                    if not (tokens[place].text == "SET" and place == 0):  # which is forgotten
                        limits_of(user).check(name, value)
                if tokens[place].text == "SET" and place == 0:
                    check_set(list(assigned))

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Settings that come beside the statement, as the text of their values.

        Raises:
            StatementRefused: one of them is not on the list, or holds an expression that is refused.
        """
        for name, value in settings.items():
            self._check_setting(name)
            if name == "additional_result_filter":
                self._check_statement(f"concat('SELECT ', {_quoted(value)})")
            elif name == "additional_table_filters":
                if not all(_MAP_AROUND.fullmatch(part) for part in _LITERAL.split(value)):
                    raise StatementRefused(f"{name} is refused: its value is no map of strings")
                for literal in _LITERAL.findall(value):
                    self._check_statement(f"concat('SELECT ', {literal})")

    def check_format(self, name: str) -> None:
        """
        Raises:
            StatementRefused: it is no format of the list.
        """
        if name.lower() not in self._formats:
            raise StatementRefused(
                f"the format {name} is refused: it needs files, schemas or hosts, or is unknown"
            )

    def columns(self, structure: str) -> str:
        """The columns of a table that comes with a statement, in canonical form.

        Raises:
            StatementRefused: it is no description of columns alone, or has expressions in it that are refused.
        """
        self._check_columns(_quoted(structure))
        try:
            canonical = self._parse(f"concat('CREATE TABLE t (', {_quoted(structure)}, ') ENGINE = Memory')")
        except Exception:
            raise StatementRefused("columns that the engine cannot read are refused") from None
        described = _TABLE_OF_COLUMNS.fullmatch(canonical)
        words = [token.text for token in self._tokens(canonical) if token.kind == "word"]
        if described is None or words.count("ENGINE") != 1:
            raise StatementRefused("a description of columns with more in it is refused")
        return described[1]

    def _tokens(self, canonical: str) -> Tokens:
        try:
            return Tokens(canonical)
        except ValueError as error:
            raise StatementRefused(str(error)) from None

    def _check_names(self, tokens: Tokens) -> None:
        engines = {place + 2 for place in range(len(tokens)) if tokens.words(place, 2) == ("ENGINE", "=")}
        for place, token in enumerate(tokens):
            if tokens.is_call(place) and place not in engines:
                self._check_call(tokens, place)
            elif token.text == "APPLY" and token.kind == "word":
                self._check_applied(tokens, place + 1)
            elif token.text == "FORMAT" and token.kind == "word" and tokens[place + 1].is_name:
                self.check_format(tokens[place + 1].name)
            elif token.kind == "quoted" and "/" in token.text and tokens[place - 1].text != "AS":
                raise StatementRefused(f"{token.text} is refused: a file is no table")

    def _check_call(self, tokens: Tokens, place: int) -> None:
        name = tokens[place].name.lower()
        if not self._is_allowed(name):
            raise StatementRefused(
                f"{tokens[place].name} is refused: it is not on the list of functions that stay within this "
                "ClickHouse's tables (load files with `tailrace replay`)"
            )
        arguments = tokens.arguments(place + 1)
        if name in self._higher_order:
            for argument in arguments:
                self._check_function_name(argument[0])
        if name in _STRUCTURE_AT:
            self._check_structure(name, tokens, arguments)
        if name in _BY_NAME and arguments:
            self._check_named(arguments[0])

    def _is_allowed(self, name: str) -> bool:
        return (
            name in self._functions
            or name in TABLE_FUNCTIONS
            or name in _TYPES
            or name in _SYNTAX
            or self._is_aggregate(name)
        )

    def _is_aggregate(self, name: str) -> bool:
        """Whether it is an aggregate function, alone or with combinators behind it."""
        return name in self._aggregates or any(
            name.endswith(end) and self._is_aggregate(name.removesuffix(end)) for end in _COMBINATORS
        )

    def _check_function_name(self, token: Token) -> None:
        """A function may be handed over by its name: ``arrayMap(file, ...)``."""
        if token.is_name and token.name.lower() in self._refused:
            raise StatementRefused(f"{token.name} is refused as a function")

    def _check_applied(self, tokens: Tokens, place: int) -> None:
        applied = tokens[place]
        is_lambda = tokens[place + 1].text == "->"
        if applied.is_name and not is_lambda and not self._is_allowed(applied.name.lower()):
            raise StatementRefused(f"{applied.name} is refused as a function")

    def _check_structure(self, name: str, tokens: Tokens, arguments: list[list[Token]]) -> None:
        place = _STRUCTURE_AT[name]
        if name == "format":
            if self._is_text_function(arguments):
                return
            self._check_format_argument(tokens, arguments)
            if len(arguments) < 3:
                return  # no columns are named
        if len(arguments) <= place:
            return
        argument = arguments[place]
        if len(argument) == 1 and argument[0].kind == "string":
            self._check_columns(argument[0].text)
        elif name == "format" or not (argument[0].kind == "number" or argument[0].text in ("(", "-", "NULL")):
            raise StatementRefused(f"{name} is refused but with its columns as one string")

    def _is_text_function(self, arguments: list[list[Token]]) -> bool:
        """Whether it is the scalar function, ``format('{} of {}', a, b)``: no format has such a name."""
        return bool(arguments) and arguments[0][0].kind == "string" and "{" in arguments[0][0].text

    def _check_format_argument(self, tokens: Tokens, arguments: list[list[Token]]) -> None:
        first = arguments[0] if arguments else []
        if len(first) != 1:
            raise StatementRefused("format is refused but with its first argument as one string or name")
        if first[0].is_name and sum(token.name == first[0].name for token in tokens if token.is_name) > 1:
            # `WITH 'Other' AS CSV` would make another format of it.
            raise StatementRefused(f"{first[0].name} is refused as a format and something else at once")
        self.check_format(first[0].name.strip("'"))

    def _check_columns(self, literal: str) -> None:
        try:
            canonical = self._parse(f"concat('CREATE TABLE t (', {literal}, ') ENGINE = Null')")
        except Exception:
            if _PLAIN_STRING.fullmatch(literal):
                return  # `values('a', 'b')`: a value, or an error
            raise StatementRefused("columns that the engine cannot read are refused") from None
        tokens = self._tokens(canonical)
        for place in range(len(tokens)):
            if tokens.is_call(place) and tokens[place].name.lower() not in _TYPES:
                raise StatementRefused(f"{tokens[place].name} is refused in a description of columns")

    def _check_named(self, argument: list[Token]) -> None:
        name = re.match(r"'(\w+)", argument[0].text)
        if len(argument) != 1 or name is None or not self._is_aggregate(name[1].lower()):
            raise StatementRefused(f"{argument[0].text} is refused as the name of a function")

    def _check_parameters(self, tokens: Tokens, parameters: Mapping[str, str]) -> None:
        for place in range(len(tokens)):
            opening, name, colon, kind = tokens.words(place, 4)
            if (opening, colon, kind) == ("{", ":", "Identifier"):
                value = parameters.get(name, "")
                parts = {part.lower() for part in value.split(".")}
                if not _PLAIN_IDENTIFIER.fullmatch(value) or parts & self._refused:
                    raise StatementRefused(f"{value!r} is refused as the identifier parameter {name}")

    def _assigned(self, tokens: Tokens, place: int) -> dict[str, list[Token]]:
        """The settings of a clause: ``name = value, name = value``."""
        assigned: dict[str, list[Token]] = {}
        if tokens[place].text == "(":
            raise StatementRefused("settings in brackets are refused")
        while tokens[place].is_name and tokens[place + 1].text == "=":
            value = tokens.value(place + 2)
            assigned[tokens[place].name] = value
            place += 2 + len(value)
            if tokens[place].text != ",":
                break
            place += 1
        return assigned

    def _check_assigned(self, name: str, value: list[Token], of_table: bool) -> None:
        if of_table:
            if name not in TABLE_SETTINGS:
                raise StatementRefused(f"the table setting {name} is refused")
            return
        self._check_setting(name)
        if name in _EXPRESSIONS:
            for token in value:
                if token.kind == "string":
                    self._check_statement(f"concat('SELECT ', {token.text})")
                elif token.kind != "mark":
                    raise StatementRefused(f"{name} is refused but with its expressions as strings")

    def _check_setting(self, name: str) -> None:
        if name not in names("settings"):
            raise StatementRefused(
                f"the setting {name} is refused: it is not on the list of what changes answers only"
            )

    def _check_statement(self, expression: str) -> None:
        self._check_names(self._tokens(self._parse(expression)))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
