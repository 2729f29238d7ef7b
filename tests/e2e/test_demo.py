"""``make demo``, shortened, as a newcomer runs it."""

from __future__ import annotations

from pathlib import Path

from tests.support.project import Project


def test_the_demo_tells_its_whole_story(tmp_path: Path) -> None:
    happened = Project(tmp_path).json("demo", "--seconds", "15", timeout=240)
    assert happened["ok"]
    assert happened["missing"] == []
    counts = happened["counts"]
    assert counts["requests"] == counts["sent"] == counts["predictions"] > 1000
    assert (counts["lost"], counts["twice"], counts["dead_letters"]) == (0, 0, 0)
    assert happened["versions"]["v1"] > 0
    assert happened["versions"]["v2"] > 0
    assert happened["recovery_seconds"] > 0
    assert happened["verify"]["ok"]
    assert happened["verify"]["requests"] == counts["requests"]
    assert happened["followed"]["row"]["version"] == 2
