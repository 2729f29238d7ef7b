"""A run that fails raises an alert, one for those that fail in a row, which a run that does not fail resolves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.trainer.test_trainer_dataset import RUN

from tailrace.trainer.loop import ended
from tailrace.trainer.run import FAILED, PLANNED, PUBLISHED, REJECTED, Run


def after(*states: str) -> tuple[dict[str, Run], Run]:
    """Runs of these states in the order of their cuts, and the one after them."""
    runs = [
        replace(RUN, run_id=f"{at:032x}", cut=at, state=state) for at, state in enumerate((*states, PLANNED))
    ]
    return {run.run_id: run for run in runs}, runs[-1]


def alerts(state: str, *before: str) -> list[Any]:
    runs, run = after(*before)
    step, *more = ended(runs, run, state, {"reason": "income is up to 1e+155"})
    assert step[0] == "TrainingRun"
    assert step[1]["state"] == state
    return [record for name, record in more if name == "Alert"]


def test_a_failed_run_raises_an_alert_with_its_reason() -> None:
    (alert,) = alerts(FAILED, PUBLISHED)
    assert (alert["kind"], alert["state"], alert["model"]) == ("training-failed", "raised", RUN.model)
    assert "income is up to 1e+155" in alert["summary"]
    assert f"tailrace retrain {RUN.model}" in alert["summary"]


def test_runs_that_fail_one_after_the_other_are_one_alert() -> None:
    (first,), (second,) = alerts(FAILED, PUBLISHED), alerts(FAILED, PUBLISHED, FAILED)
    (other,) = alerts(FAILED, PUBLISHED, FAILED, REJECTED)
    assert first["alert_id"] == second["alert_id"] != other["alert_id"]


def test_a_run_that_does_not_fail_resolves_it() -> None:
    (raised,) = alerts(FAILED)
    (resolved,) = alerts(REJECTED, FAILED, FAILED)
    assert (resolved["state"], resolved["alert_id"]) == ("resolved", raised["alert_id"])
    assert alerts(PUBLISHED, FAILED, REJECTED) == []
