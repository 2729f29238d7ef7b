"""What a run leaves out for want of a program stands in its last line, and is a failure where CI runs."""

from __future__ import annotations

import pytest
from tests import conftest
from tests.support.tools import need, sentence


class Config:
    def __init__(self) -> None:
        self.stash = pytest.Stash()


def test_a_missing_program_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    config: pytest.Config = Config()  # type: ignore[assignment]
    need(config, "a client", "python3")
    assert sentence(config) == ""
    conftest.pytest_unconfigure(config)
    assert capsys.readouterr().out == ""
    for what in ("a client", "another"):
        with pytest.raises(pytest.skip.Exception):
            need(config, what, "python3", "no-such-program", "nor-this")
    conftest.pytest_unconfigure(config)
    missing = "no-such-program and nor-this missing"
    assert capsys.readouterr().out == f"not tried: a client ({missing}); another ({missing})\n"


def test_where_ci_runs_it_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    config: pytest.Config = Config()  # type: ignore[assignment]
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program.*\.ci/run"):
        need(config, "a client", "no-such-program")
    assert sentence(config) == ""
