"""What orchestrators, monitoring and people ask a service over HTTP: /livez, /readyz, /metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from tailrace.errors import TailraceError

ALIVE_WITHIN_S = 60.0
"""A service that has given no sign of life for so long is hung, and is to be restarted."""


class Status(Protocol):
    """What a running loop says of itself; read from another thread."""

    @property
    def alive_ns(self) -> int:
        """When it last gave a sign of life, in ``time.perf_counter_ns`` time."""
        ...

    @property
    def waiting(self) -> str | None:
        """Why it is not ready, None when it is."""
        ...


@runtime_checkable
class StatusByModel(Protocol):
    """A status that tells models apart."""

    @property
    def models(self) -> Mapping[str, str | None]:
        """Of each model, why its requests wait; None where they do not."""
        ...


class HealthServer:
    """Answers in threads of its own, from when it is made until ``close``.

    ``/livez`` and ``/readyz`` answer 200 or 503 with ``{"ok": ..., "reason": ...}``, ``/metrics`` in Prometheus'
    text format. Where the status tells models apart, ``/readyz`` has ``models`` as well, each with its ``ok`` and
    ``reason``: one that waits does not make the service unready for others. ``/readyz?model=NAME`` answers for that
    model, 404 where there is none of the name.

    Raises:
        TailraceError: the port is taken.
    """

    def __init__(self, host: str, port: int, status: Status, now_ns: Callable[[], int]) -> None:
        def alive() -> str | None:
            silent = (now_ns() - status.alive_ns) / 1e9
            return None if silent < ALIVE_WITHIN_S else f"no sign of life for {silent:.0f} s"

        def ready() -> str | None:
            return alive() or status.waiting

        reasons = {"/livez": alive, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
                elif path in reasons:
                    self._answer_health(reasons[path](), path == "/readyz", parse_qs(query).get("model"))
                else:
                    self._answer(404, "text/plain", b"/livez, /readyz, /metrics\n")

            def _answer_health(self, reason: str | None, is_ready: bool, asked: list[str] | None) -> None:
                by_model = dict(status.models) if is_ready and isinstance(status, StatusByModel) else {}
                if is_ready and asked:
                    if asked[0] not in by_model:
                        self._answer(404, "text/plain", b"no such model is served here\n")
                        return
                    reason, by_model = reason or by_model[asked[0]], {}
                health: dict[str, object] = {"ok": reason is None, "reason": reason}
                if by_model:
                    health["models"] = {
                        model: {"ok": (reason or why) is None, "reason": reason or why}
                        for model, why in by_model.items()
                    }
                self._answer(200 if reason is None else 503, "application/json", json.dumps(health).encode())

            def _answer(self, code: int, kind: str, body: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Probes come every second; they are not logged."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise TailraceError(
                f"{host}:{port} cannot be used for health and metrics ({error.strerror}): set "
                f"TAILRACE_HEALTH_PORT to a free port, or to 0 to have one chosen"
            ) from error
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
