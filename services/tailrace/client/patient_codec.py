"""Records in wire format and back, for callers who wait while the registry is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Lock
from typing import Any, TypeVar

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.client.errors import Rejected
from tailrace.errors import BadRecord, TailraceError, Unavailable

T = TypeVar("T")

_REGISTRY_S = 30.0
"""How long the registry may be away before the caller is told."""


class PatientCodec:
    """Encodes by the newest schema of a subject. Threads may share it.

    Args:
        closed: once it is set, nothing is waited for.
    """

    def __init__(self, registry: RegistryClient, closed: Event) -> None:
        self._registry = registry
        self._codec = Codec(registry)
        self._closed = closed
        self._lock = Lock()
        self._schema_ids: dict[str, int] = {}

    def forget_schemas(self) -> None:
        """The registry may have newer ones."""
        with self._lock:
            self._schema_ids.clear()

    def encode(self, subject: str, record: dict[str, Any]) -> bytes:
        """
        Raises:
            Rejected: the record is not of the schema.
            TailraceError: the registry is away, or has no such subject.
        """
        schema_id = self._schema_id(subject)
        try:
            return self._patiently(lambda: self._codec.encode(schema_id, record))
        except BadRecord as bad:
            raise Rejected(bad.code, bad.reason, bad.field) from bad

    def decode(self, value: bytes | None) -> dict[str, Any]:
        """
        Raises:
            BadRecord: it cannot be read.
            TailraceError: the registry is away.
        """
        return self._patiently(lambda: self.decode_now(value))

    def decode_now(self, value: bytes | None) -> dict[str, Any]:
        """
        Raises:
            BadRecord: it cannot be read.
            Unavailable: the registry is away.
        """
        return dict(self._codec.decode(value).record)

    def _schema_id(self, subject: str) -> int:
        with self._lock:
            schema_id = self._schema_ids.get(subject)
            if schema_id is None:
                schema = self._patiently(lambda: self._registry.latest(subject))
                if schema is None:
                    raise TailraceError(
                        f"the registry has no schema {subject}: `tailrace apply` registers it"
                    )
                schema_id = self._schema_ids[subject] = schema.id
            return schema_id

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Asks again while the registry is away, for a while."""
        deadline = time.monotonic() + _REGISTRY_S
        while True:
            try:
                return ask()
            except Unavailable as away:
                if time.monotonic() > deadline or self._closed.wait(0.2):
                    raise TailraceError(str(away)) from away
