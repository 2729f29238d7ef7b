"""Open alerts: raised once, sent again after a silence or when their severity changes, resolved under one id.

What is open is memory between windows: JSON, by a key of the owner's own.
"""

from __future__ import annotations

from typing import Any

OpenAlerts = dict[str, Any]
"""By key: ``id``, ``since`` (the start of the window that raised it), ``at`` (its end), ``severity``, and
``last_sent_at`` (the end of the window that sent it last)."""


def raise_or_renew(
    open_alerts: OpenAlerts, key: str, alert_id: str, severity: str, *, since: int, at: int, silence_ms: int
) -> dict[str, Any] | None:
    """Notes what a window found that ends (or is judged) at ``at``; the alert if it is to be sent now."""
    alert = open_alerts.get(key) or {"id": alert_id, "since": since, "at": at, "last_sent_at": None}
    is_silent = alert["last_sent_at"] is not None and at - alert["last_sent_at"] < silence_ms
    if is_silent and alert["severity"] == severity:
        open_alerts[key] = alert
        return None
    open_alerts[key] = {**alert, "severity": severity, "last_sent_at": at}
    return dict(open_alerts[key])
