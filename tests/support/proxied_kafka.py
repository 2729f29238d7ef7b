"""A broker that some of its clients reach through a proxy, which can harm their connections."""

from __future__ import annotations

from pathlib import Path

from tests.support.tcp_proxy import Proxy

from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port


class ProxiedKafka(LocalKafka):
    """A broker with a second listener, whose clients come through a proxy from their first request to their last."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self._second = free_port()
        self.proxy = Proxy(self._second)

    def _write_config(self) -> Path:
        path = super()._write_config()
        settings = dict(line.split("=", 1) for line in path.read_text().splitlines())
        settings["listeners"] += f",PROXIED://{HOST}:{self._second}"
        settings["advertised.listeners"] += f",PROXIED://{self.proxy.address}"
        settings["listener.security.protocol.map"] += ",PROXIED:PLAINTEXT"
        settings["log.cleaner.enable"] = "false"  # the account is of all offsets that were ever committed
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path
