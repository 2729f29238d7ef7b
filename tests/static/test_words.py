"""The words of STYLE.md in the code: what was given up does not come back, and a class name has one meaning."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted((ROOT / "services").rglob("*.py"))
LINES = (Path(__file__).with_name("given_up_words.txt")).read_text().splitlines()
GIVEN_UP = dict(line.split() for line in LINES if line and not line.startswith("#"))


def names_in(text: str) -> Iterator[tuple[str, int]]:
    """Each name in Python code, and its line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.string, token.start[0]


@pytest.fixture(scope="module")
def places() -> dict[str, list[str]]:
    """Where each name is."""
    places = defaultdict(list)
    for file in SERVICES:
        for name, line in names_in(file.read_text()):
            places[name].append(f"{file.relative_to(ROOT)}:{line}")
    return places


def test_names_are_told_from_text() -> None:
    code = 'hold = Hold(1)  # Hold\n"""Hold"""\nholder.Hold\n'
    assert [line for name, line in names_in(code) if name == "Hold"] == [1, 3]


@pytest.mark.parametrize("word", GIVEN_UP)
def test_a_word_that_was_given_up_is_no_name(word: str, places: dict[str, list[str]]) -> None:
    assert not places.get(word), f"{word} is {GIVEN_UP[word]} now"


def test_the_words_that_stand_are_in_the_code(places: dict[str, list[str]]) -> None:
    assert set(GIVEN_UP.values()) - places.keys() - {file.stem for file in SERVICES} == set()


def test_no_two_public_classes_share_a_name() -> None:
    files = defaultdict(list)
    for file in SERVICES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files[node.name].append(str(file.relative_to(ROOT)))
    assert {name: places for name, places in files.items() if len(places) > 1} == {}
