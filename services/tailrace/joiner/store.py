"""Where a partition's requests are kept: RocksDB, or a dict in its place for tests.

A store is a cache of what the log says. It holds requests by key, times at which to look at them again, and the
standing: the offsets that all of it stands for. One write is one step from one standing to the next; after a kill
the store is at one of the last standings, and the log has the rest.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left, insort
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

STANDING = b"s"
REQUEST = b"r"
LOOK = b"t"
_SHIFT = 1 << 63
_LOCK_ATTEMPTS = 8
_BLOCK_CACHE = 32 << 20
_WRITE_BUFFER = 32 << 20


def request_key(model: str, request_id: bytes) -> bytes:
    return REQUEST + model.encode() + b"\0" + request_id


def look_key(time: int, request: bytes) -> bytes:
    """The key that orders by time, and after it names a request's key."""
    return LOOK + (time + _SHIFT).to_bytes(8, "big") + request


def look_bound(time: int) -> bytes:
    return LOOK + (min(max(time, -_SHIFT), _SHIFT - 1) + _SHIFT).to_bytes(8, "big")


class Store(Protocol):
    """Bytes by key."""

    def get(self, key: bytes) -> bytes | None: ...

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def looks(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        """Look keys of times from ``begin`` up to, not including, ``end``, by time; each with its request's key."""
        ...

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        """All of it or, after a kill, nothing; and nothing that is later without it."""
        ...

    def wipe(self) -> None: ...

    def close(self) -> None: ...


class MemoryStore:
    """A store that is gone with its process."""

    def __init__(self) -> None:
        self.content: dict[bytes, bytes] = {}
        self._looks: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        return self.content.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.content.get(key) for key in keys]

    def looks(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        first, last = (bisect_left(self._looks, look_bound(time)) for time in (begin, end))
        return [(key, key[9:]) for key in self._looks[first:last]]

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        for key, value in puts.items():
            if key.startswith(LOOK) and key not in self.content:
                insort(self._looks, key)
            self.content[key] = value
        for key in deletes:
            if self.content.pop(key, None) is not None and key.startswith(LOOK):
                del self._looks[bisect_left(self._looks, key)]

    def wipe(self) -> None:
        self.content.clear()
        self._looks.clear()

    def close(self) -> None:
        pass


class RocksStore:
    """A store in a folder. Its log is off: what a kill takes from it is read again from Kafka."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open()

    def _open(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self._folder), _options())
        self._batch_options = WriteOptions()
        self._batch_options.disable_wal = True  # type: ignore[method-assign, assignment]

    def get(self, key: bytes) -> bytes | None:
        found: bytes | None = self._db.get(key)
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: Any = self._db.get(list(keys)) if keys else []
        return list(found)

    def looks(self, begin: int, end: int) -> list[tuple[bytes, bytes]]:
        found, last = [], look_bound(end)
        at = self._db.iter()
        at.seek(look_bound(begin))
        while at.valid() and (key := at.key()) < last and key.startswith(LOOK):
            found.append((key, key[9:]))
            at.next()
        return found

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in puts.items():
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        self._db.write(batch, self._batch_options)

    def wipe(self) -> None:
        self._db.close()
        Rdict.destroy(str(self._folder), _options())
        self._open()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._db.flush()
        self._db.close()


def open_store(folder: Path, name: str) -> RocksStore:
    """The store of that name, or where another process of this machine has it, one beside it.

    Raises:
        OSError: none can be opened.
    """
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            return RocksStore(folder / (f"{name}.{attempt}" if attempt else name))
        except Exception as error:
            if "lock" not in str(error).lower() or attempt == _LOCK_ATTEMPTS - 1:
                raise OSError(f"the store {folder / name} cannot be opened: {error}") from error
    raise AssertionError("unreachable")


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(Cache(_BLOCK_CACHE))
    options.set_block_based_table_factory(table)
    return options
