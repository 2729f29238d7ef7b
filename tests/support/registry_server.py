"""Our registry, served from a thread of the test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import uvicorn

from tailrace.local.ports import free_port
from tailrace.local.registry_log import RegistryLog
from tailrace.local.registry_server import application


@contextmanager
def registry_server(kafka: Mapping[str, str], patience: float = 8.0) -> Iterator[tuple[str, RegistryLog]]:
    """Its address, and its log."""
    log, port = RegistryLog(kafka, patience), free_port()
    config = uvicorn.Config(application(log), host="127.0.0.1", port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        server.should_exit = True
        thread.join()
        log.close()
