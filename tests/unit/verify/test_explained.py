"""What `tailrace explain` shows, from an explanation that is known."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.cli.explain import show
from tailrace.streaming.records import RecordRef
from tailrace.verify.explained import Explained

EVENT: dict[str, Any] = {
    "prediction_id": "p1",
    "request_id": "r1",
    "model": "credit",
    "version": 2,
    "role": "champion",
    "artifact_digest": "a" * 64,
    "score": 0.75,
    "predicted_class": "true",
    "value": None,
    "action": "refer",
    "rule": None,
}


def explained(**changed: Any) -> Explained:
    facts: dict[str, Any] = {
        "at": RecordRef("credit.predictions", 0, 7),
        "event": EVENT,
        "what": "log-odds of true",
        "baseline": -0.5,
        "output": 1.1,
        "values": {"debt_ratio": 2.0, "income": 41_000.0, "purpose": None},
        "contributions": {"debt_ratio": 2.0, "income": -0.5, "purpose": 0.1},
        "errors": dict.fromkeys(("debt_ratio", "income", "purpose"), 0.0),
        "logged": None,
        "as_logged": None,
    }
    return Explained(**facts | changed)


def test_contributions_are_drawn_to_scale_on_either_side(capsys: pytest.CaptureFixture[str]) -> None:
    show(explained(), 3)
    about, sums, _, *rows = capsys.readouterr().out.splitlines()
    assert about == "credit version 2 (champion): true, score 0.75, refer"
    assert sums == "log-odds of true: -0.5000 on average, +1.1000 here, exact"
    bars = [row[row.index("|") - 24 :] for row in rows]
    assert [(bar[:24].count("#"), bar[24:].count("#")) for bar in bars] == [(0, 24), (6, 0), (0, 1)]
    assert [row.split()[:3] for row in rows] == [
        ["debt_ratio", "2.0", "+2.0000"],
        ["income", "41000.0", "-0.5000"],
        ["purpose", "-", "+0.1000"],
    ]


def test_each_thing_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    logged = {"debt_ratio": 2.0, "income": -0.5, "purpose": 0.1}
    show(explained(event={**EVENT, "action": "true"}, logged=logged, as_logged=True), 3)
    about, _, head, *_ = capsys.readouterr().out.splitlines()
    assert about == "credit version 2 (champion): true, score 0.75"
    assert "logged" not in head
    assert "error" not in head


def test_what_is_left_out_is_summed_and_what_was_logged_stands_beside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = {"debt_ratio": 0.03, "income": 0.02, "purpose": 0.0}
    show(explained(errors=errors, logged={"debt_ratio": 1.97}), 1)
    *_, first, others = capsys.readouterr().out.splitlines()
    assert first.split()[2:4] == ["+2.0000", "0.0300"]
    assert first.split()[-1] == "+1.9700"
    assert others.split()[:4] == ["2", "others", "-", "-0.4000"]


def test_machines_get_all_of_it() -> None:
    facts = explained(errors={"debt_ratio": 0.03, "income": 0.02, "purpose": 0.0}).as_dict()
    assert (facts["exact"], facts["as_logged"], facts["prediction"]) == (
        False,
        None,
        "credit.predictions/0/7",
    )
    assert sum(c["contribution"] for c in facts["contributions"]) == pytest.approx(
        facts["output"] - facts["baseline"]
    )
    assert explained().as_dict()["exact"]
