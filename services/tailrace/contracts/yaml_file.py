"""YAML 1.2 files read with line numbers, so that every problem can be told with its place and its remedy."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from tailrace.kit.errors import TailraceError

M = TypeVar("M", bound=BaseModel)
FieldPath = tuple[str | int, ...]


class Finding(NamedTuple):
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


@dataclass(frozen=True)
class YamlFile:
    """Plain data with the line of each of its places."""

    name: str
    text: str
    data: Any
    lines: dict[FieldPath, int]

    def parse(self, model: type[M], check: Callable[[M], Iterable[Finding]] = lambda _: ()) -> M:
        """Validates the data as ``model``, then by ``check``.

        Raises:
            ContractError: names every problem found.
        """
        try:
            parsed = model.model_validate(self.data)
        except ValidationError as error:
            self.refuse(_explain(details, model) for details in error.errors())
            raise
        self.refuse(check(parsed))
        return parsed

    def refuse(self, findings: Iterable[Finding]) -> None:
        """Raises ContractError with all findings, where there are any."""
        problems = [self._problem(finding) for finding in findings]
        if problems:
            raise ContractError(problems)

    def _problem(self, finding: Finding) -> Problem:
        path = finding.path
        while path and path not in self.lines:
            path = path[:-1]
        return Problem(
            self.name, self.lines.get(path, 1), format_path(finding.path), finding.what, finding.remedy
        )


def read_yaml(source: Path | str) -> YamlFile:
    """Reads a file (Path) or text (str).

    Raises:
        TailraceError: the file cannot be read.
        ContractError: it is not YAML, a key stands twice, or it holds no mapping.
    """
    name = str(source) if isinstance(source, Path) else "contract"
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise TailraceError(f"{name}: cannot be read: {error}") from None
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = (
            str(error.problem).removeprefix("found duplicate key ").split(" with value")[0] + " stands twice"
        )
        raise ContractError([Problem(name, line, "", what, "keep one of them")]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not YAML: {error.problem or error.context}"
        remedy = "check the indentation, brackets and quotes around this line"
        raise ContractError([Problem(name, mark.line + 1 if mark else 1, "", what, remedy)]) from None
    lines: dict[FieldPath, int] = {(): 1}
    data = _plain(tree, (), lines)
    if not isinstance(data, dict):
        what = "empty" if data is None else "not a mapping of fields to values"
        raise ContractError([Problem(name, 1, "", what, "start with `model: NAME`")])
    return YamlFile(name, text, data, lines)


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


def _plain(node: Any, path: FieldPath, lines: dict[FieldPath, int]) -> Any:
    """The tree as dicts, lists and plain scalars; the lines go into ``lines``."""
    if isinstance(node, dict):
        plain = {}
        for key, value in node.items():
            place = (*path, key if isinstance(key, str | int) else str(key))
            lines[place] = node.lc.key(key)[0] + 1  # type: ignore[attr-defined]
            plain[str(key) if isinstance(key, str) else key] = _plain(value, place, lines)
        return plain
    if isinstance(node, list):
        for index in range(len(node)):
            lines[(*path, index)] = node.lc.item(index)[0] + 1  # type: ignore[attr-defined]
        return [_plain(value, (*path, index), lines) for index, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (str, int, float):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def _explain(details: ErrorDetails, model: type[BaseModel]) -> Finding:
    """What pydantic found, said for people."""
    path: FieldPath = tuple(part for part in details["loc"] if part != "[key]")
    value = details["input"]
    context: dict[str, Any] = details.get("ctx") or {}
    kind = details["type"]
    if kind == "missing":
        return Finding(path, "is missing", f"add {path[-1]!r}")
    if kind == "extra_forbidden":
        return Finding(
            path, "is no field of a contract here", did_you_mean(str(path[-1]), _known(model, path[:-1]))
        )
    if kind in ("value_error", "assertion_error"):
        what, _, remedy = details["msg"].removeprefix("Value error, ").partition("; ")
        return Finding(path, what, remedy)
    if kind == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ", ").split(",")]
        return Finding(path, f"{value!r} is not allowed", did_you_mean(str(value), choices))
    if kind == "string_type":
        remedy = f'write it in quotes: "{value}"' if isinstance(value, bool | int | float) else ""
        return Finding(path, f"must be text, not {_called(value)}", remedy)
    if kind == "string_pattern_mismatch":
        return Finding(path, f"{value!r} is no valid name", f"it must match {context['pattern']}")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return Finding(path, f"must be a mapping, not {_called(value)}", "write {name: value, ...}")
    if kind == "list_type":
        return Finding(path, f"must be a list, not {_called(value)}", "write [a, b, ...]")
    if kind in ("float_type", "int_type", "bool_type", "int_from_float"):
        wanted = {"float_type": "a number", "bool_type": "true or false"}.get(kind, "a whole number")
        return Finding(path, f"must be {wanted}, not {_called(value)}", "")
    return Finding(path, details["msg"][:1].lower() + details["msg"][1:], "")


def _called(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the text {value!r}" if isinstance(value, str) else repr(value)


def _known(model: type[BaseModel], path: FieldPath) -> list[str]:
    """The keys that are allowed at a place."""
    kind: Any = model
    for part in path:
        models = [k for k in _flat(kind) if isinstance(k, type) and issubclass(k, BaseModel)]
        if models:
            fields = {field.alias or name: field.annotation for name, field in models[0].model_fields.items()}
            kind = fields.get(str(part))
        else:
            inner = [get_args(k)[-1] for k in _flat(kind) if get_origin(k) in (list, dict)]
            kind = inner[0] if inner else None
    models = [k for k in _flat(kind) if isinstance(k, type) and issubclass(k, BaseModel)]
    return [field.alias or name for name, field in models[0].model_fields.items()] if models else []


def _flat(kind: Any) -> list[Any]:
    """The members of a union, annotations taken off."""
    if hasattr(kind, "__metadata__"):
        return _flat(kind.__origin__)
    if get_origin(kind) in (Union, types.UnionType):
        return [member for choice in get_args(kind) for member in _flat(choice)]
    return [kind]
