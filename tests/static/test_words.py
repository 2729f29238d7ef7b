"""The words of STYLE.md in the code: what was given up does not come back, a class name has one meaning, and a local
says what it holds."""

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
EMPTY = {"told", "said", "there", "some"}
LINES_WITHOUT_FOUND = 5

_Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


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


def bound_in(scope: _Scope) -> Iterator[tuple[str, int]]:
    """A function's parameters and locals, with their lines; those of functions and classes within it left out."""
    nodes: list[ast.AST] = [scope.args]
    nodes += [scope.body] if isinstance(scope, ast.Lambda) else scope.body
    while nodes:
        node = nodes.pop()
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store(), lineno=line)
                | ast.arg(arg=name, lineno=line)
                | ast.alias(name=_, asname=str(name), lineno=line)
                | ast.alias(name=name, lineno=line)
                | ast.ExceptHandler(name=str(name), lineno=line)
                | ast.MatchAs(name=str(name), lineno=line)
                | ast.MatchStar(name=str(name), lineno=line)
                | ast.FunctionDef(name=name, lineno=line)
                | ast.AsyncFunctionDef(name=name, lineno=line)
                | ast.ClassDef(name=name, lineno=line)
            ):
                yield name, line
        if not isinstance(node, _Scope | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)


def is_long(scope: _Scope) -> bool:
    first, last = (
        (scope.body, scope.body) if isinstance(scope, ast.Lambda) else (scope.body[0], scope.body[-1])
    )
    return (last.end_lineno or last.lineno) - first.lineno + 1 >= LINES_WITHOUT_FOUND


def empty_locals(text: str) -> list[str]:
    """Each parameter or local of Python code that may hold anything, as ``line:name``, once for a function."""
    firsts: list[tuple[int, str]] = []
    for scope in ast.walk(ast.parse(text)):
        if isinstance(scope, _Scope):
            lines = dict(sorted(bound_in(scope), reverse=True))
            names = EMPTY | {"found"} if is_long(scope) else EMPTY
            firsts += [(line, name) for name, line in lines.items() if name in names]
    return [f"{line}:{name}" for line, name in sorted(firsts)]


@pytest.mark.parametrize("folder", ["services", "benchmarks", "tools", "tests"])
def test_a_local_says_what_it_holds(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    places = [
        f"{file.relative_to(ROOT)}:{place}" for file in files for place in empty_locals(file.read_text())
    ]
    assert not places, "a local is called after what it holds (STYLE.md):\n" + "\n".join(places)


def test_a_local_belongs_to_the_innermost_function() -> None:
    code = """\
def short(told, /, *there, some=found, **said):
    found = told
    found = there

async def long(self):
    for found in self:
        lambda found: found

        def told():
            found = 1
            return found
    return [said for said in found if self.there]

class A:
    said = 1

    def method(self):
        self.some = told(there=there)

found = told = 1
"""
    assert empty_locals(code) == ["1:said", "1:some", "1:there", "1:told", "6:found", "9:told", "12:said"]


@pytest.mark.parametrize(
    "statement",
    [
        "told = 1", "told: int = 1", "told += 1", "a, (b, *told) = c", "if told := 1: pass", "for told in a: pass",
        "with a as told: pass", "import told", "from a import told", "import a as told", "def told(): pass",
        "class told: pass", "lambda told: 1", "return {a: told for told in b}",
        "match a:\n        case told: pass", "match a:\n        case [*told]: pass",
        "try: pass\n    except A as told: pass",
    ],
)  # fmt: skip
def test_every_way_of_binding_a_name_is_seen(statement: str) -> None:
    code = f"def f():\n    {statement}"
    assert [place.partition(":")[2] for place in empty_locals(code)] == ["told"]
    assert empty_locals(code.replace("told", "report")) == []


@pytest.mark.parametrize(("lines", "places"), [(4, []), (5, ["2:found"])])
def test_found_may_stand_in_a_short_function(lines: int, places: list[str]) -> None:
    assert empty_locals("def f():\n" + "    found = 1\n" * lines) == places
