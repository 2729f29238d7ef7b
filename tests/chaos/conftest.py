"""What a run that kills things has to say stands at the end of the run's output, passed or not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def summarize(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to what is printed under "survived" when the run ends."""
    lines = request.config.stash.setdefault(_LINES, [])

    def add(line: str) -> None:
        print(line)
        lines.append(line)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("survived")
        for line in lines:
            terminalreporter.line(line)
