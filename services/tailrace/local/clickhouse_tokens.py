"""The tokens of a statement in the engine's canonical form, where everything is spelled in one way.

``formatQuerySingleLine`` knows no comments, no heredocs and no double quotes; keywords are in capitals, and a call is a
name with its bracket right behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<string>'(?:[^'\\]|\\.|'')*')|(?P<quoted>`(?:[^`\\]|\\.|``)*`)"
    r"|(?P<number>\d[\w.]*(?:(?<=[eE])[+-]\d+)?)|(?P<word>[^\W\d]\w*)|(?P<mark>->|[^'`\"])",
    re.DOTALL,
)
_OPENING, _CLOSING = "([{", ")]}"


class Token(NamedTuple):
    """``kind`` is string, quoted (an identifier in backquotes), number, word or mark."""

    kind: str
    text: str
    adjacent: bool
    """Whether nothing stands between it and the token before."""
    start: int = 0
    """Where in the statement it begins."""

    @property
    def is_name(self) -> bool:
        return self.kind in ("word", "quoted")

    @property
    def name(self) -> str:
        if self.kind != "quoted":
            return self.text
        return re.sub(r"\\(.)|`(`)", lambda match: match[1] or match[2], self.text[1:-1])


END = Token("mark", "", adjacent=False)
"""Stands before the first token and after the last."""


class Tokens:
    """A statement's tokens; beyond both ends there is `END`.

    Raises:
        ValueError: the text has what canonical text never has.
    """

    def __init__(self, canonical: str) -> None:
        self._tokens = list(_split(canonical))

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens)

    def __getitem__(self, place: int) -> Token:
        return self._tokens[place] if 0 <= place < len(self._tokens) else END

    def words(self, place: int, count: int) -> tuple[str, ...]:
        """The texts of ``count`` tokens from ``place`` on."""
        return tuple(self[place + step].text for step in range(count))

    def is_call(self, place: int) -> bool:
        """Whether a name with arguments in brackets stands there."""
        bracket = self[place + 1]
        return self[place].is_name and bracket.text == "(" and bracket.adjacent

    def arguments(self, bracket: int) -> list[list[Token]]:
        """The tokens of each argument of the call whose bracket opens at ``bracket``."""
        arguments: list[list[Token]] = [[]]
        depth = 1
        for token in self._tokens[bracket + 1 :]:
            depth += _depth(token)
            if depth == 0:
                break
            if depth == 1 and token.text == "," and token.kind == "mark":
                arguments.append([])
            else:
                arguments[-1].append(token)
        return [argument for argument in arguments if argument]

    def value(self, place: int) -> list[Token]:
        """The tokens of a setting's value: one, with its sign, or what a bracket holds."""
        if self[place].text in ("-", "+"):
            return [self[place], self[place + 1]]
        depth, taken = 0, []
        for token in self._tokens[place:]:
            taken.append(token)
            depth += _depth(token)
            if depth <= 0:
                break
        return taken


def _depth(token: Token) -> int:
    if token.kind != "mark":
        return 0
    return 1 if token.text in _OPENING else -1 if token.text in _CLOSING else 0


def _split(text: str) -> Iterator[Token]:
    place, adjacent = 0, True
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise ValueError(f"the statement cannot be judged at {text[place : place + 20]!r}")
        place = match.end()
        if match.lastgroup == "space":
            adjacent = False
            continue
        yield Token(match.lastgroup, match.group(), adjacent, match.start())
        adjacent = True
