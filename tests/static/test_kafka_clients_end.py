"""No client of Kafka outlives its use, and with it its broker: whoever makes one ends it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("Producer", "Consumer", "AdminClient", "BoundedProducer", "producer", "kafka.producer")
"""What makes them; the last two are of tailrace/client/kafka.py."""
FACTORIES = {
    "services/tailrace/client/kafka.py": "producer",
    "services/tailrace/streaming/backends/kafka/producer.py": "_new",
    "services/tailrace/streaming/backends/kafka/topics.py": "_admin",
    "tests/unit/streaming/backends/test_kafka_sender.py": "sender",
}
"""Functions whose callers end what they give back."""
FILES = sorted(
    str(file.relative_to(ROOT))
    for folder in ("services/tailrace", "tests", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
    if "kafka" in file.read_text()
)

Parents = dict[ast.AST, ast.AST]


def lasting(source: str, *, strict: bool = True, factory: str | None = None) -> list[str]:
    """Where a client is made that nothing in the same file ends.

    Args:
        strict: also one that ends with the local variable that holds it, which an error's traceback may put off.
        factory: a function that may give one back.
    """
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    return [
        f"{call.lineno}: {ast.unparse(call.func)}"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).removeprefix("confluent_kafka.") in CLIENTS
        if not _ends(call, parents, tree, strict)
        if factory is None or getattr(_function(call, parents), "name", None) != factory
    ]


def _ends(call: ast.Call, parents: Parents, tree: ast.AST, strict: bool) -> bool:
    parent = parents[call]
    if isinstance(parent, ast.withitem):
        return True
    if isinstance(parent, ast.Call):
        return ast.unparse(parent.func).endswith(("enter_context", "closing"))
    if isinstance(parent, ast.Attribute):
        return not strict  # used once, in the same breath
    if not isinstance(parent, ast.Assign | ast.AnnAssign):
        return False
    target = parent.target if isinstance(parent, ast.AnnAssign) else parent.targets[0]
    scope = _function(call, parents) or tree
    if ast.unparse(target) in _ended(tree if isinstance(target, ast.Attribute) else scope):
        return True
    handed = {ast.unparse(node.targets[0]) for node in _handed_on(scope, target)}
    return bool(handed & _ended(tree)) or not (
        strict or isinstance(target, ast.Attribute) or _is_given_back(scope, target)
    )


def _ended(tree: ast.AST) -> set[str]:
    """What is closed, dropped on purpose, or ended by tailrace/streaming/backends/kafka/clients.py."""
    return {ast.unparse(each) for node in ast.walk(tree) for each in _ended_by(node)}


def _ended_by(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "close":
        yield node.func.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("end", "closing"):
        yield from node.args
    elif isinstance(node, ast.Delete):
        yield from node.targets
    elif isinstance(node, ast.FunctionDef) and node.name != "__init__":
        for assignment in ast.walk(node):
            if isinstance(assignment, ast.Assign) and ast.unparse(assignment.value) == "None":
                yield from assignment.targets


def _handed_on(scope: ast.AST, target: ast.AST) -> Iterator[ast.Assign]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == ast.unparse(target):
            yield node


def _is_given_back(scope: ast.AST, target: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Return | ast.Yield)
        and node.value
        and ast.unparse(target) in ast.unparse(node.value)
        for node in ast.walk(scope)
    )


def _function(node: ast.AST, parents: Parents) -> ast.AST | None:
    while node in parents and not isinstance(node, ast.FunctionDef):
        node = parents[node]
    return node if isinstance(node, ast.FunctionDef) else None


@pytest.mark.parametrize("file", FILES)
def test_every_client_is_ended_where_it_is_made(file: str) -> None:
    strict = file.startswith("services/")
    unended = lasting((ROOT / file).read_text(), strict=strict, factory=FACTORIES.get(file))
    assert not unended, (
        f"in {file}: use `with AdminClient(...)`, `with Consumer(...)` or `with sending(...)` "
        "(tailrace/streaming/backends/kafka/clients.py), or close it in the same file:\n" + "\n".join(unended)
    )


@pytest.mark.parametrize(
    "source",
    [
        "Producer({}).flush()",
        "def f():\n    p = Producer({})\n    p.flush()",
        "def f():\n    p = Producer({})\n    p.flush()\ndef g():\n    p = other()\n    p.close()",
        "class A:\n    def __init__(self):\n        self.a = AdminClient({})\n        self.b = None",
        "def f():\n    topics = AdminClient({}).list_topics()",
        "def f():\n    return Consumer({})",
    ],
)
def test_a_client_that_nothing_ends_is_seen(source: str) -> None:
    assert lasting(source)


@pytest.mark.parametrize(
    "source",
    [
        "with AdminClient({}) as a:\n    a.list_topics()",
        "class A:\n    def __init__(self):\n        self.c = Consumer({})\n    def go(self):\n        self.c.close()",
        "class A:\n    def g(self):\n        p = Producer()\n        self.p = p\n    def x(self):\n        end(self.p)",
        "def f():\n    p = Producer({})\n    try:\n        p.flush()\n    finally:\n        del p",
        "a = stack.enter_context(AdminClient({}))",
    ],
)
def test_one_that_is_ended_is_not(source: str) -> None:
    assert not lasting(source)


def test_a_tests_client_ends_with_its_variable_but_not_with_its_object() -> None:
    assert not lasting("def f():\n    p = Producer({})\n    p.flush()", strict=False)
    assert lasting("class A:\n    def __init__(self):\n        self.p = Producer({})", strict=False)
    assert lasting("def f():\n    p = Producer({})\n    return A(p)", strict=False)
