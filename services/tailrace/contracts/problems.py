"""What is wrong in a file, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tailrace.errors import TailraceError

FieldPath = tuple[str | int, ...]


class Violation(NamedTuple):
    """Something wrong in parsed data: where, what, and what to do about it."""

    path: FieldPath
    what: str
    remedy: str


class Problem(NamedTuple):
    """Something wrong in a file. ``line`` counts from 1."""

    file: str
    line: int
    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " + (f"{self.field}: " if self.field else "")
        return f"{where}{self.what}" + (f"; {self.remedy}" if self.remedy else "")


class ContractError(TailraceError):
    """A contract is not valid; ``problems`` lists all that was found, in order of line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def format_path(path: Sequence[str | int]) -> str:
    """``("policy", 0, "when")`` as ``policy[0].when``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or what there is to choose from."""
    choices = list(known)
    close = [choice for choice in choices if choice.lower() == word.lower()]
    close = close or difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "choose one of " + ", ".join(choices) if choices else ""
