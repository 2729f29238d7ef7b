"""YAML 1.2 files read with line numbers, so that every problem is reported with its place and its remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tailrace.contracts.language.pydantic_problems import explain
from tailrace.contracts.problems import ContractError, FieldPath, Problem, Violation, format_path
from tailrace.errors import TailraceError

M = TypeVar("M", bound=BaseModel)

_MAX_NODES = 100_000
_KINDS = ("str", "int", "float", "bool", "null", "timestamp")
_SCALARS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)


@dataclass(frozen=True)
class YamlFile:
    """Plain data with the line of each of its places."""

    name: str
    text: str
    data: Any
    lines: dict[FieldPath, int]
    spelled: dict[FieldPath, str]
    """Scalars that are no text, as they stand in the file: 01 is not 1."""

    def parse(self, model: type[M], check: Callable[[M], Iterable[Violation]] = lambda _: ()) -> M:
        """Validates the data as ``model``, then by ``check``.

        Raises:
            ContractError: names every problem found.
        """
        try:
            parsed = model.model_validate(self.data)
        except ValidationError as error:
            self.refuse(explain(details, model, self.spelled) for details in error.errors())
            raise
        self.refuse(check(parsed))
        return parsed

    def refuse(self, findings: Iterable[Violation]) -> None:
        """Raises ContractError with all findings, where there are any."""
        if problems := [self.problem(finding) for finding in findings]:
            raise ContractError(problems)

    def problem(self, finding: Violation) -> Problem:
        path = finding.path
        while path and path not in self.lines:
            path = path[:-1]
        line, field = self.lines.get(path, 1), format_path(finding.path)
        return Problem(self.name, line, field, finding.what, finding.remedy)


def read_yaml(source: Path | str) -> YamlFile:
    """Reads a file (Path) or text (str).

    Raises:
        TailraceError: the file cannot be read.
        ContractError: it is not YAML, a key stands twice, it has tags of its own, or it holds no mapping.
    """
    name = str(source) if isinstance(source, Path) else "contract"
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise TailraceError(f"{name}: cannot be read: {error}") from None
    reader = _Reader()
    try:
        data = reader.read(text)
    except _Invalid as error:
        line, what, remedy = error.args
        raise ContractError([Problem(name, line, "", what, remedy)]) from None
    return YamlFile(name, text, data, reader.lines, reader.spelled)


class _Invalid(Exception):
    """Line, what is wrong there, and the remedy."""


class _Reader:
    """Turns YAML's nodes into dicts, lists and scalars, and notes the line of each place."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {(): 1}
        self.spelled: dict[FieldPath, str] = {}
        self._yaml = YAML(typ="safe", pure=True)
        self._nodes = 0

    def read(self, text: str) -> dict[str, Any]:
        try:
            node = self._yaml.compose(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = f"not YAML: {error.problem or error.context}"
            remedy = "check the indentation, brackets and quotes around this line"
            raise _Invalid(mark.line + 1 if mark else 1, what, remedy) from None
        except RecursionError:
            raise _Invalid(1, "nested too deeply", "a contract needs a few levels only") from None
        except Exception as error:  # characters that YAML does not allow, and what its parser stumbles over
            raise _Invalid(1, f"not YAML: {str(error).splitlines()[0]}", "look for odd characters") from None
        data = self._plain(node, ()) if node is not None else None
        if not isinstance(data, dict):
            what = "empty" if data is None else "not a mapping of fields to values"
            raise _Invalid(1, what, "start with `model: NAME`")
        return data

    def _plain(self, node: Node, path: FieldPath) -> Any:
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > 50:
            raise _Invalid(line, "holds too much, or an alias of itself", "write it without aliases")
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and str(node.tag).endswith(":seq"):
            for index, element in enumerate(node.value):
                self.lines[(*path, index)] = element.start_mark.line + 1
            return [self._plain(element, (*path, index)) for index, element in enumerate(node.value)]
        if not isinstance(node, ScalarNode) or node.tag not in _SCALARS:
            raise _Invalid(line, f"the tag {node.tag} is not allowed", "leave it out")
        if not str(node.tag).endswith(":str"):
            self.spelled[path] = str(node.value)
        if str(node.tag).endswith(":timestamp"):
            return node.value
        try:
            return self._yaml.constructor.construct_object(node)
        except Exception:
            raise _Invalid(line, f"{node.value!r} is no value of its tag", "write it in quotes") from None

    def _mapping(self, node: MappingNode, path: FieldPath) -> dict[str, Any]:
        if not str(node.tag).endswith(":map"):
            raise _Invalid(node.start_mark.line + 1, f"the tag {node.tag} is not allowed", "leave it out")
        plain: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise _Invalid(line, "a key that is no text", "write name: value")
            name = str(key.value)
            if name in plain:
                raise _Invalid(line, f'"{name}" stands twice', "keep one of them")
            self.lines[(*path, name)] = line
            plain[name] = self._plain(value, (*path, name))
        return plain
