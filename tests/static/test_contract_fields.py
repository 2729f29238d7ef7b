"""Every field of a contract changes something, or stands on the list of those that do not.

What reads a field is found by mypy, which knows of what type an attribute is read: `gate.metric` counts for the section
that `gate` is of, and for no other of that field's name. What only checks, prints or compares contracts reads all of
them and counts for nothing.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from tests.static.contract_reads import VARIABLE

from tailrace.contracts.language.fields import Section
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.language.sections import EffectFloors, GuardSettings, OneOf
from tailrace.contracts.language.without_effect import WITHOUT_EFFECT
from tailrace.control.apply import keep_ms

REPO = Path(__file__).parents[2]
NOT_ACTING = {
    "checks.py",
    "show.py",
    "json_schema.py",
    "diff.py",
    "without_effect.py",
    "pydantic_problems.py",
}
READ_BY_NAME: dict[str, Callable[..., Any]] = {
    "MinEffect": EffectFloors.of,
    "Guardrails": GuardSettings.of,
    "Keep": keep_ms,
}
"""Sections whose fields are read by names from a table, and by what."""


def fields(
    section: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], type, str]]:
    """Every field: its path as in the file (``*`` for what has names or is a list), the class that has it, its name."""
    for name, field in section.model_fields.items():
        here = (*path, field.alias or name)
        yield here, section, name
        for inner, steps in inner_sections(field.annotation):
            yield from fields(inner, (*here, *steps))


def inner_sections(
    annotation: Any, steps: tuple[str, ...] = ()
) -> Iterator[tuple[type[BaseModel], tuple[str, ...]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, steps
    of_many = getattr(annotation, "__origin__", None) in (list, dict)
    for argument in get_args(annotation):
        yield from inner_sections(argument, (*steps, "*") if of_many else steps)


def is_listed(path: tuple[str, ...]) -> bool:
    """Whether all values of the field are without effect."""
    return any(path[: len(entry.path)] == entry.path for entry in WITHOUT_EFFECT)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """``Class.field`` of every read in what acts."""
    folder = tmp_path_factory.mktemp("reads")
    config, out = folder / "mypy.ini", folder / "reads.txt"
    plugin = Path(__file__).with_name("contract_reads.py")
    config.write_text(f"[mypy]\nplugins = {plugin}\nignore_missing_imports = True\ncache_dir = /dev/null\n")
    out.touch()
    subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "-p", "tailrace"],
        cwd=REPO / "services",
        env=os.environ | {VARIABLE: str(out)},
        capture_output=True,
        check=False,  # the types themselves are for `make types`
        timeout=280,
    )
    lines = [line.split(maxsplit=1) for line in out.read_text().splitlines()]
    assert len(lines) > 300
    return {".".join(name.rsplit(".", 2)[1:]) for name, file in lines if Path(file).name not in NOT_ACTING}


def test_every_field_changes_something_or_is_on_the_list(reads: set[str]) -> None:
    idle = []
    for path, section, name in fields(ModelContract):
        owners = [base for base in section.__mro__ if issubclass(base, Section)]
        is_read = any(f"{owner.__name__}.{name}" in reads for owner in owners)
        inner = list(inner_sections(section.model_fields[name].annotation))
        all_listed = bool(inner) and all(
            is_listed((*path, each.model_fields[field].alias or field))
            for each, _ in inner
            for field in each.model_fields
        )
        if not (is_read or all_listed or is_listed(path) or section.__name__ in READ_BY_NAME):
            idle.append(".".join(path))
    assert idle == []


def test_what_is_on_the_list_exists_and_is_read_by_nothing_that_acts(reads: set[str]) -> None:
    """An entry goes when its field comes to do something. Those of some values only are read for the other values."""
    known = {path: (section, name) for path, section, name in fields(ModelContract)}
    always = {entry.path for entry in WITHOUT_EFFECT if entry.applies.__name__ == "<lambda>"}
    for entry in WITHOUT_EFFECT:
        path = entry.path[:-1] if entry.path[-1] == "*" else entry.path
        assert path in known, path
        section, name = known[path]
        if path in always and path not in (("labels", "join", "by"),):
            owners = [base.__name__ for base in section.__mro__ if issubclass(base, Section)]
            assert not {f"{owner}.{name}" for owner in owners} & reads, path


def test_sections_that_are_read_by_name_are() -> None:
    for read in READ_BY_NAME.values():
        assert "getattr(" in inspect.getsource(read)
    assert OneOf.__subclasses__()
