"""``make demo``, as a newcomer runs it. ``make test`` runs one seed, ``make chaos`` (TAILRACE_CHAOS=long) five."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.project import Project

KEYS = ["closed", "drift", "accuracy", "versions", "counts", "recovery_seconds", "verify", "seconds"]


SEEDS = range(1, 6) if os.environ.get("TAILRACE_CHAOS") == "long" else [1]


LONGEST_S = 1_200  # ten times as long as on a machine that has nothing else to do


@pytest.mark.timeout(LONGEST_S + 60)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_demo_tells_its_whole_story(tmp_path: Path, seed: int) -> None:
    happened = Project(tmp_path).json("demo", "--seed", str(seed), timeout=LONGEST_S)
    assert happened["closed"]
    assert list(happened) == KEYS
    counts = happened["counts"]
    assert counts["requests"] == counts["sent"] == counts["predictions"] > 10_000
    assert (counts["lost"], counts["twice"], counts["dead_letters"]) == (0, 0, 0)
    assert counts["outcomes"] >= 0.9 * counts["labels"] > 0
    assert happened["versions"]["v1"] > 1000
    assert happened["versions"]["v2"] > 1000
    drift = happened["drift"]
    assert drift["false_alerts"] == 0
    assert 0 < drift["detected_at"] - drift["true_at"] <= 21 * 86_400_000
    accuracy = happened["accuracy"]
    assert accuracy["before"] > 0.79
    assert accuracy["fallen"] < 0.7
    assert accuracy["without_loop"] < 0.7
    assert accuracy["recovered"] > accuracy["without_loop"] + 0.1
    assert happened["recovery_seconds"] > 0
    assert happened["verify"]["ok"]
    assert happened["verify"]["requests"] == counts["requests"]
    assert happened["seconds"] < LONGEST_S
