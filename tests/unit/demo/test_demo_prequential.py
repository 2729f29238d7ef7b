"""Accuracy with the loop against accuracy without it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from tailrace.demo.data_sets import DATA_SETS, find_file, write_phishing
from tailrace.demo.prequential import compare, first_version_answers
from tailrace.errors import UsageError

DAY = 86_400_000


def test_the_first_version_answers_as_champion_and_then_in_shadow() -> None:
    def row(request: str, version: int, answer: str) -> dict[str, object]:
        return {"request_id": request, "version": version, "predicted_class": answer}

    predictions = [row("a", 1, "true"), row("b", 2, "true"), row("c", 2, "false")]
    shadow = [row("a", 2, "false"), row("b", 1, "false"), row("c", 3, "true")]
    assert first_version_answers(predictions, shadow, 1) == {"a": "true", "b": "false"}


def test_accuracies_are_scikit_learns_and_the_interval_covers_the_gain() -> None:
    """Two thousand series whose days are good or bad as a whole: rows are far from independent."""
    draw = np.random.default_rng(1)
    days, rows = 60, 20
    times = np.repeat(np.arange(days) * DAY, rows)
    covered = 0
    for _ in range(2_000):
        ease = np.repeat(draw.uniform(0.4, 1.0, days), rows)
        truth = draw.random(days * rows) < 0.5
        ours = draw.random(len(truth)) < ease
        theirs = draw.random(len(truth)) < 0.7
        comparison = compare(times.tolist(), ours.tolist(), theirs.tolist(), DAY)
        assert comparison is not None
        covered += comparison.low <= 0.7 - 0.7 <= comparison.high
    assert comparison is not None
    assert comparison.with_loop == accuracy_score(truth, np.where(ours, truth, ~truth))
    assert comparison.without_loop == accuracy_score(truth, np.where(theirs, truth, ~truth))
    assert comparison.gain == pytest.approx(comparison.with_loop - comparison.without_loop)
    assert 0.93 < covered / 2_000 < 0.97


def test_a_single_block_says_nothing() -> None:
    assert compare([1, 2], [True, False], [True, True], DAY) is None


def test_the_flip_is_planted_in_the_second_half_and_named(tmp_path: Path) -> None:
    from river.datasets import Phishing

    file = tmp_path / "phishing.csv"
    write_phishing(file)
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    original = list(Phishing())
    assert len(rows) == len(original) == 1250
    assert [row["planted"] for row in rows] == ["0"] * 625 + ["1"] * 625
    for row, (features, truth) in zip(rows, original, strict=True):
        assert (row["phishing"] == "1") == (truth != (row["planted"] == "1"))
        assert {name: float(row[name]) for name in features} == features


def test_a_missing_file_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--file"):
        find_file(DATA_SETS["wine"], tmp_path / "wine.csv")
    assert find_file(DATA_SETS["phishing"], None) is None
