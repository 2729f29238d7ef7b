"""A TCP proxy between a Kafka client and its broker, which cuts or delays a connection at a chosen kind of request."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from tailrace.local.ports import HOST, free_port

ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 24, 25, 26, 28
COMMITTING = (ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT)
"""Kafka's API keys of the requests of which a transactional commit consists."""
ARRIVES_S = 0.5
"""How long the broker is given to read what has gone astray, before its connection is cut as well."""


@dataclass
class Harm:
    """What happens, once, at the next request of these kinds.

    Attributes:
        api_keys: which requests.
        where: ``before`` the broker has the request, or ``after`` it has answered, before the client knows; or
            ``astray``: the client's connection is cut, and yet the request goes on to the broker.
        delay_s: how long request or answer are held up; None: the connection is cut, and they are lost.
        away_s: how long no connection works at all from then on, whoever's it is.
        done: set when it has happened.
        at: when, as ``time.time()`` says.
    """

    api_keys: Collection[int]
    where: Literal["before", "after", "astray"]
    delay_s: float | None = None
    away_s: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    at: float = 0.0

    def happens(self) -> None:
        self.at = time.time()
        self.done.set()


class Proxy:
    """Passes everything on between two ports of this machine, apart from the harm that it is told to do."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.port = port or free_port()
        self._target_port = target_port
        self._next: Harm | None = None
        self._away_until = 0.0
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp proxy", daemon=True)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._connected, HOST, self.port), self._loop
        ).result(10)

    def stop(self) -> None:
        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def harm(self, harm: Harm) -> Harm:
        """Tells what is to happen next, in place of what has not happened yet."""
        self._next = harm
        return harm

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # By correlation id: what is to happen to the answer.
        answers: dict[int, Harm] = {}
        try:
            if time.monotonic() < self._away_until:
                return
            broker, to_broker = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            return  # the broker is away
        else:
            ways = [
                asyncio.ensure_future(self._requests(client, to_client, to_broker, answers)),
                asyncio.ensure_future(self._answers(broker, to_client, answers)),
            ]
            self._open |= {to_client, to_broker}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                self._open -= {to_client, to_broker}
                to_broker.transport.abort()
        finally:
            to_client.transport.abort()

    async def _requests(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        to_broker: asyncio.StreamWriter,
        answers: dict[int, Harm],
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(client)
                (api_key,), (correlation,) = (
                    struct.unpack_from(">h", frame, 4),
                    struct.unpack_from(">i", frame, 8),
                )
                harm = self._next
                if harm is not None and api_key in harm.api_keys:
                    self._next = None
                    if harm.where == "after":
                        answers[correlation] = harm
                    elif harm.where == "astray":
                        to_client.transport.abort()
                        await self._do(harm)
                        to_broker.write(frame)
                        await asyncio.sleep(ARRIVES_S)
                        return
                    elif await self._do(harm):
                        return
                to_broker.write(frame)
                await to_broker.drain()

    async def _answers(
        self, broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, answers: dict[int, Harm]
    ) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(broker)
                (correlation,) = struct.unpack_from(">i", frame, 4)
                harm = answers.pop(correlation, None)
                if harm is not None and await self._do(harm):
                    return
                to_client.write(frame)
                await to_client.drain()

    async def _do(self, harm: Harm) -> bool:
        """Says whether the connection is cut."""
        harm.happens()
        if harm.away_s:
            self._away_until = time.monotonic() + harm.away_s
            for writer in self._open:
                writer.transport.abort()
        if harm.delay_s is None:
            return True
        await asyncio.sleep(harm.delay_s)
        return False


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One request or answer with its length in front."""
    length = await reader.readexactly(4)
    return length + await reader.readexactly(struct.unpack(">i", length)[0])
