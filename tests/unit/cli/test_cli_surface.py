"""What every command of `tailrace` owes its user, read off the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from tailrace.cli.app import app

# What people are promised; a command that is gone, or new, is a decision.
COMMANDS = {
    *("up", "down", "status", "env", "logs", "run"),
    *("init", "apply", "contracts check", "contracts show", "contracts withdraw"),
    *("train", "publish", "models"),
    *("keys new", "keys trust", "keys revoke", "keys list"),
    "credentials renew",
    *("promote", "rollback", "shadow", "reject", "freeze", "unfreeze", "off", "on", "retrain"),
    "experiment",
    *("replay", "clock", "predict", "tail", "query", "rebuild", "dlq list", "dlq show", "dlq resend"),
    *("demo", "verify", "reproduce", "explain"),
}
# These report something, so machines may ask too.
REPORTS = COMMANDS - {"up", "down", "env", "logs", "run"}


def _walk(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    for child, sub in (children or {}).items():
        yield from _walk(sub, f"{name} {child}".strip())


LEAVES = dict(_walk(typer.main.get_command(app)))


def test_the_commands_are_those_promised() -> None:
    assert set(LEAVES) == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_what_it_does_and_shows_an_example(name: str) -> None:
    about, *_, example = LEAVES[name].help.strip().split("\n\n")
    assert about.endswith(".")
    assert not about.split()[0].endswith("s"), "an imperative, as for all commands"
    assert example.startswith("Example: ")
    assert f"tailrace {name}" in example


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name: str) -> None:
    for parameter in LEAVES[name].params:
        assert parameter.name == "help" or getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("name", sorted(REPORTS))
def test_every_report_is_there_for_machines_too(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in LEAVES[name].params)
