"""Our registry, served from a thread of the test."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tailrace.kit.credentials import HTTP, SERVICES, Credentials
from tailrace.kit.doors import make_tokens
from tailrace.local.ports import free_port
from tailrace.local.registry_log import RegistryLog
from tailrace.local.registry_server import application

LOGIN = f"{SERVICES}:the-token-of-a-test"
"""What its door lets in."""


@contextmanager
def registry_server(kafka: Mapping[str, str], patience: float = 8.0) -> Iterator[tuple[str, RegistryLog]]:
    """Its address, and its log."""
    log, port, home = RegistryLog(kafka, patience), free_port(), Path(tempfile.mkdtemp())
    token = Credentials(home).path(HTTP, SERVICES)
    token.parent.mkdir(parents=True)
    token.write_text(LOGIN.partition(":")[2])
    make_tokens(home)
    config = uvicorn.Config(application(log, home), host="127.0.0.1", port=port, log_level="warning")
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
        shutil.rmtree(home)
