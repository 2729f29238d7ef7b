"""A contract printed for people, with a remark at each field that has no effect yet."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.without_effect import unused_fields
from tailrace.contracts.language.yaml_file import read_yaml
from tailrace.contracts.problems import FieldPath, format_path

REMARK = "no effect yet"


def annotated(contract: ModelContract, text: str | None = None) -> str:
    """YAML of the contract: ``text``, its author's own, or the resolved contract with all defaults.

    Each line that opens a section or field which nothing acts on yet ends in a remark.
    """
    text = resolved_yaml(contract) if text is None else text
    places = read_yaml(text).lines
    remarks: dict[int, list[str]] = {}
    for place, _ in unused_fields(contract):
        if place in places:
            shares_line = places[place] == places[place[:-1]] and len(place) > 1
            remarks.setdefault(places[place], []).append(_name(place) if shares_line else "")
    lines = text.splitlines()
    for number, names in remarks.items():
        before, comment = _split_comment(lines[number - 1])
        remark = REMARK + (": " + ", ".join(names) if all(names) else "")
        lines[number - 1] = f"{before}  # {remark}" + (f"; {comment}" if comment else "")
    return "\n".join(lines) + "\n"


def _name(place: FieldPath) -> str:
    """What a field is called on its line: of a list's entry, which one it is."""
    return format_path(place[-2:] if isinstance(place[-1], int) else place[-1:])


def resolved_yaml(contract: ModelContract) -> str:
    """The resolved contract as YAML, a line per field and short values on one line."""
    yaml = YAML(typ="rt")
    yaml.width = 1000
    out = io.StringIO()
    yaml.dump(_styled(contract.to_dict()), out)
    return out.getvalue()


def _styled(data: Any, depth: int = 0) -> Any:
    """Block style above, flow style where all is scalars."""
    if isinstance(data, dict):
        styled: Any = CommentedMap({name: _styled(value, depth + 1) for name, value in data.items()})
    elif isinstance(data, list):
        styled = CommentedSeq([_styled(value, depth + 1) for value in data])
    else:
        return data
    inner = data.values() if isinstance(data, dict) else data
    if depth and (depth > 2 or not any(isinstance(value, dict | list) for value in inner)):
        styled.fa.set_flow_style()
    return styled


def _split_comment(line: str) -> tuple[str, str]:
    """The line without its comment, and the comment; a # within quotes is none."""
    quote = ""
    for index, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (index == 0 or line[index - 1].isspace()):
            return line[:index].rstrip(), line[index + 1 :].strip()
    return line.rstrip(), ""
