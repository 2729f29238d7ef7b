"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket

from tailrace.errors import TailraceError

HOST = "127.0.0.1"

# Below the range from which Linux (32768 up) and macOS (49152 up) take the ports of outgoing connections: a
# port that a server comes back to after a crash must not meanwhile have become some client's.
_LOWEST, _HIGHEST = 15000, 32000


def is_free(port: int, host: str = HOST) -> bool:
    with socket.socket() as probe:
        # As servers do it: what a former server left in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def require_free(port: int, what: str, host: str = HOST) -> None:
    """
    Raises:
        TailraceError: another program listens on the port.
    """
    if not is_free(port, host):
        raise TailraceError(
            f"port {port} for {what} is taken by another program: stop it, or choose another port"
        )


def listening(port: int, what: str, host: str = HOST) -> socket.socket:
    """A socket that listens on the port, for a server that may bind none once it is confined.

    Raises:
        TailraceError: another program listens on the port.
    """
    require_free(port, what, host)
    # asyncio sends small answers at once (TCP_NODELAY) only where a socket says that it is TCP's.
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, port))
    server.listen(2048)
    return server


def free_port() -> int:
    """A port that is free now, at random, so that processes that ask at the same time get different ones."""
    chosen = random.SystemRandom()
    while True:
        port = chosen.randrange(_LOWEST, _HIGHEST)
        if is_free(port):
            return port
