"""Ports on the loopback interface."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tailrace.errors import TailraceError
from tailrace.local.ports import HOST, free_port, listening


def test_a_server_on_a_socket_of_ours_sends_small_answers_at_once() -> None:
    """Without TCP_NODELAY each answer of two packets takes 40 ms longer."""
    seen: list[int] = []

    async def serve_one() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        port = free_port()
        server = await asyncio.start_server(answer, sock=listening(port, "a test"))
        reader, writer = await asyncio.open_connection(HOST, port)
        await reader.read()
        writer.close()
        server.close()

    asyncio.run(serve_one())
    assert seen
    assert seen[0] != 0


def test_a_port_that_is_taken_says_so() -> None:
    with (
        socket.create_server((HOST, 0)) as taken,
        pytest.raises(TailraceError, match="taken by another program"),
    ):
        listening(taken.getsockname()[1], "a test")
