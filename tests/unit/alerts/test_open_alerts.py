"""Alerts that last: when they are told, and under which id."""

from __future__ import annotations

from typing import Any

from tailrace.alerts.open_alerts import OpenAlerts, raise_or_renew


def alert_at(open_alerts: OpenAlerts, at: int, severity: str = "warning") -> dict[str, Any] | None:
    return raise_or_renew(open_alerts, "k", f"id-{at}", severity, since=at - 10, at=at, silence_ms=30)


def test_an_alert_is_told_at_first_and_again_each_time_that_its_silence_is_over() -> None:
    open_alerts: OpenAlerts = {}
    heard = [at for at in range(10, 120, 10) if alert_at(open_alerts, at) is not None]
    assert heard == [10, 40, 70, 100]
    assert open_alerts["k"] == {
        "id": "id-10",
        "since": 0,
        "at": 10,
        "severity": "warning",
        "last_sent_at": 100,
    }


def test_a_change_of_severity_is_told_at_once_and_begins_a_silence_of_its_own() -> None:
    open_alerts: OpenAlerts = {}
    assert alert_at(open_alerts, 10) is not None
    alert = alert_at(open_alerts, 20, "severe")
    assert alert is not None
    assert (alert["id"], alert["at"], alert["severity"]) == ("id-10", 10, "severe")
    assert [alert_at(open_alerts, at, "severe") is not None for at in (30, 40, 50)] == [False, False, True]
