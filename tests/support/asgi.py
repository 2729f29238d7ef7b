"""One request to an ASGI application, without a server between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode

from starlette.types import ASGIApp


@dataclass(frozen=True)
class Answer:
    status_code: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True)
class Client:
    app: ASGIApp
    host: str = "127.0.0.1:8123"

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        lines = {"Host": self.host, **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": urlencode(params or {}).encode(),
            "headers": [(name.lower().encode(), value.encode("utf-8")) for name, value in lines.items()],
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": content}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, send))
        start, *parts = sent
        heads = {name.decode().lower(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], heads, b"".join(part.get("body", b"") for part in parts).decode())

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.request("POST", path, **options)

    def websocket(self, path: str, headers: Mapping[str, str]) -> list[Any]:
        """What the application sends to a connection that is asked for."""
        sent: list[Any] = []
        lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket",
            "path": path,
            "raw_path": path.encode(),
            "headers": lines,
            "query_string": b"",
        }
        asyncio.run(self.app(scope, receive, send))
        return sent
