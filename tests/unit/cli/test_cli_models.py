"""``tailrace models`` says which versions a team's template trained."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.cli import models as command


def version(number: int, template: dict[str, str] | None) -> dict[str, Any]:
    return {
        "model": "credit",
        "version": number,
        "state": "champion",
        "trusted": True,
        "format": "onnx",
        "rows": 10,
        "metrics": {"auc": 0.8, "brier": 0.2},
        "calibration": None,
        "published_at": "2026-11-30T00:00:00+00:00",
        "published_by": "ada",
        "digest": "d" * 64,
        "lineage": {"template": template},
    }


def test_a_team_s_template_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = {
        "name": "acme-trees:shallow",
        "distribution": "acme-trees",
        "version": "1.2",
        "digest": "5" * 64,
    }
    nobody = {**version(3, None), "trusted": False, "metrics": {}}
    del nobody["lineage"]
    versions = [version(1, None), version(2, origin), nobody]
    monkeypatch.setattr(command, "connection", lambda: None)
    monkeypatch.setattr("tailrace.control.versions.published_versions", lambda *_: versions)
    monkeypatch.setattr("tailrace.control.evaluations.evaluations", lambda *_: [])
    command.models(model=None, prune=False, dry_run=False, yes=False, every=False, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "version 2 of credit was trained by acme-trees:shallow of acme-trees 1.2, sha256 555555555555"
    ]


def listed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *versions: dict[str, Any],
    every: bool,
) -> tuple[str, str]:
    monkeypatch.setattr(command, "connection", lambda: None)
    monkeypatch.setattr("tailrace.control.versions.published_versions", lambda *_: list(versions))
    monkeypatch.setattr("tailrace.control.evaluations.evaluations", lambda *_: [])
    command.models(model="credit", prune=False, dry_run=False, yes=False, every=every, as_json=False)
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_list_is_short_and_all_of_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short, _ = listed(monkeypatch, capsys, version(1, None), every=False)
    assert "auc 0.8000" in short
    assert "brier" not in short
    assert "ada" not in short
    everything, _ = listed(monkeypatch, capsys, version(1, None), every=True)
    assert "auc 0.8000, brier 0.2000" in everything
    assert "ada" in everything


def test_calibration_is_said_with_metrics_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    by = {"method": "sigmoid", "metrics_before": {"auc": 0.8, "brier": 0.25}}
    _, said_so = listed(monkeypatch, capsys, version(1, None) | {"calibration": by}, every=False)
    assert "version 1 of credit: probabilities are calibrated (sigmoid)" in said_so
    assert "brier 0.2500 before and 0.2000 after" in said_so
    assert "auc" not in said_so
