"""A reader holds a class, a file and a function in mind: STYLE.md says how large they may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {str(file.relative_to(ROOT)): file.read_text() for file in (ROOT / "services").rglob("*.py")}
MOST_OF_A_FILE, MOST_OF_A_CLASS, MOST_OF_NINE_FUNCTIONS_OF_TEN = 450, 300, 22

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines(node: ast.ClassDef | _Function) -> int:
    """How many a definition has, without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def too_large(file: str, source: str) -> Iterator[str]:
    """The file, and those of its classes, that are."""
    if source.count("\n") > MOST_OF_A_FILE:
        yield file
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and lines(node) > MOST_OF_A_CLASS:
            yield f"{file}: {node.name}"


def test_files_and_classes_are_small() -> None:
    large = {what for file, source in FILES.items() for what in too_large(file, source)}
    assert large == set()


def test_nine_functions_of_ten_are_short() -> None:
    nodes = (node for source in FILES.values() for node in ast.walk(ast.parse(source)))
    lengths = sorted(lines(node) for node in nodes if isinstance(node, _Function))
    assert lengths[len(lengths) * 9 // 10] <= MOST_OF_NINE_FUNCTIONS_OF_TEN


@pytest.mark.parametrize(
    ("source", "large"),
    [
        ("#\n" * MOST_OF_A_FILE, []),
        ("#\n" * (MOST_OF_A_FILE + 1), ["a.py"]),
        ("class A:\n" + "    x = 1\n" * (MOST_OF_A_CLASS - 1), []),
        ("class A:\n" + "    x = 1\n" * MOST_OF_A_CLASS, ["a.py: A"]),
    ],
)
def test_a_line_more_is_too_large(source: str, large: list[str]) -> None:
    assert list(too_large("a.py", source)) == large
