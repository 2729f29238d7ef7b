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
        "metrics": {"auc": 0.8},
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
    command.models(model=None, prune=False, dry_run=False, yes=False, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "version 2 of credit was trained by acme-trees:shallow of acme-trees 1.2, sha256 555555555555"
    ]
