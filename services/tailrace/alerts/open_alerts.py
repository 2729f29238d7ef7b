"""Alerts that last: raised once, told again after a silence or when their severity changes, resolved under one id.

What is open is memory between windows: JSON, by a key of the owner's own.
"""

from __future__ import annotations

from typing import Any

Open = dict[str, Any]
"""By key: ``id``, ``since`` (the start of the window that raised it), ``at`` (its end), ``severity`` and ``told`` (the
end of the window that told of it last)."""


def lasts(
    open_alerts: Open, key: str, alert_id: str, severity: str, *, since: int, at: int, silence_ms: int
) -> dict[str, Any] | None:
    """Notes that a window, which ends (or is judged) at ``at``, says so; the alert if it is to be told now."""
    found = open_alerts.get(key) or {"id": alert_id, "since": since, "at": at, "told": None}
    silent = found["told"] is not None and at - found["told"] < silence_ms
    if silent and found["severity"] == severity:
        open_alerts[key] = found
        return None
    open_alerts[key] = {**found, "severity": severity, "told": at}
    return dict(open_alerts[key])
