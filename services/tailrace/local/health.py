"""Asking what runs whether it is well, over HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import NamedTuple

from tailrace.addresses import HTTP_PORTS, http_parts, without_credentials
from tailrace.telemetry.reasons import plain


class HealthAnswer(NamedTuple):
    """``status`` is None where nobody answered; ``text`` then says why."""

    status: int | None
    text: str

    @property
    def ok(self) -> bool:
        return self.status == 200


def ask(url: str, path: str, timeout: float = 2, usual_ports: Mapping[str, int] = HTTP_PORTS) -> HealthAnswer:
    """GETs a path below a base URL. Never raises for what the other side does or fails to do.

    Args:
        usual_ports: by scheme, where a URL without a port leads.
    """
    parts = http_parts(url)
    if parts is None or not parts.hostname:
        return HealthAnswer(None, f"{without_credentials(url)!r} is no address such as http://127.0.0.1:8081")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port or usual_ports[parts.scheme], timeout=timeout)
    try:
        connection.request("GET", parts.path.rstrip("/") + path)
        response = connection.getresponse()
        return HealthAnswer(response.status, response.read().decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        return HealthAnswer(None, str(error) or type(error).__name__)
    finally:
        connection.close()


def reason(answer: HealthAnswer) -> str | None:
    """What a /readyz that is not ready says, in one sentence; None where it is ready."""
    if answer.ok:
        return None
    try:
        return plain(str(json.loads(answer.text)["reason"]))
    except (ValueError, KeyError, TypeError):
        return plain(answer.text) or f"HTTP {answer.status}"


def waiting_models(answer: HealthAnswer) -> dict[str, str]:
    """Of a /readyz that tells models apart, those whose requests wait, each with why."""
    try:
        models = json.loads(answer.text).get("models") or {}
        return {model: plain(each["reason"]) for model, each in models.items() if not each["ok"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def starting(why: str) -> bool:
    """Whether a reason not to be ready is one of a service that is still on its way to its work."""
    return why.startswith(("starting", "reading ", "waiting for Kafka", "waiting for the topic"))
