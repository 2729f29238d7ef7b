"""Our registry, served from a thread of the test."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from tailrace.access.credentials import HTTP, SERVICES, Credentials
from tailrace.access.home_servers import REGISTRY, open_door
from tailrace.local.ports import free_port
from tailrace.local.registry_log import RegistryLog
from tailrace.local.registry_server import application

LOGIN = f"{SERVICES}:the-token-of-a-test"
"""What the door of a registry without a home of the test's lets in."""


@contextmanager
def registry_server(
    kafka: Mapping[str, str], patience: float = 8.0, home: Path | None = None
) -> Iterator[tuple[str, RegistryLog]]:
    """Its address, and its log."""
    with ExitStack() as stack:
        if home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            token = Credentials(home).path(HTTP, SERVICES)
            token.parent.mkdir(parents=True)
            token.write_text(LOGIN.partition(":")[2])
        log, port = RegistryLog(kafka, patience), free_port()
        stack.callback(log.close)
        url = f"http://127.0.0.1:{port}"
        open_door(home, REGISTRY, url)
        config = uvicorn.Config(application(log, home), host="127.0.0.1", port=port, log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        try:
            yield url, log
        finally:
            server.should_exit = True
            thread.join()
