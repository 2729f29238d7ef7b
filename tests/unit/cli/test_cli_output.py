from __future__ import annotations

import datetime
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.cli.output import emit, progress, to_json

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_json_is_strict_on_one_line_and_loses_no_structure(value: Any) -> None:
    text = to_json(value)
    assert "\n" not in text
    again = json.loads(text, parse_constant=pytest.fail)
    if isinstance(value, float) and not math.isfinite(value):
        assert again == str(value)
    elif isinstance(value, (bool, int, float, str, type(None))):
        assert again == value
    elif isinstance(value, (list, dict)):
        assert len(again) == len(value)


def test_json_of_what_json_has_no_form_for() -> None:
    made = {"at": datetime.datetime(2026, 1, 2), "path": Path("a/b"), "bytes": b"text", "other": b"\xff"}
    assert json.loads(to_json(made)) == {
        "at": "2026-01-02T00:00:00",
        "path": "a/b",
        "bytes": "text",
        "other": "ff",
    }


def test_plain_tables_are_aligned_and_say_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"name": "kafka", "lag": 0}, {"name": "clickhouse", "well": True}])
    assert capsys.readouterr().out == ("name        lag  well\nkafka       0    -\nclickhouse  -    yes\n")


def test_data_goes_to_stdout_as_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"a": 1}], as_json=True)
    emit({"a": 1, "rows": [{"b": 2}]})
    emit([])
    captured = capsys.readouterr()
    assert captured.out == '[{"a": 1}]\na     1\n\nrows\nb\n2\n'
    assert captured.err == ""


def test_progress_without_a_terminal_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress("replay", 1_000, every_s=2) as bar:
        for done in (100, 200, 300, 400):
            now[0] += 1
            bar.update(done)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "replay: 200 of 1,000 rows, 100/s, 8 s left",
        "replay: 400 of 1,000 rows, 100/s, 6 s left",
        "replay: 400 of 1,000 rows, 100/s",
    ]


def test_progress_on_a_terminal_draws_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with progress("replay", 10) as bar:
        bar.update(10)
    assert "10 of 10 rows" in screen.getvalue()
    assert capsys.readouterr().out == ""
