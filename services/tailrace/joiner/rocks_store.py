"""The store in RocksDB."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from tailrace.joiner.progress import Spot
from tailrace.joiner.store import LOOK, Look, look_bound

_LOCK_ATTEMPTS = 8
_CACHE_BYTES = 64 << 20
_BUFFERS_BYTES = 128 << 20
"""What all stores of a process share."""
_WRITE_BUFFER_BYTES = 16 << 20


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

    def looks(self, begin: Spot, end: Spot) -> Iterator[Look]:
        last = look_bound(end)
        at = self._db.iter()
        at.seek(look_bound(begin))
        while at.valid() and (key := at.key()) < last and key.startswith(LOOK):
            yield Look.of_key(key)
            at.next()

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


@cache
def _shared() -> tuple[Cache, WriteBufferManager]:
    return Cache(_CACHE_BYTES), WriteBufferManager(_BUFFERS_BYTES, False)


def _options() -> Options:
    blocks, buffers = _shared()
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_manager(buffers)
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # Most requests that are asked for are new.
    options.set_memtable_prefix_bloom_ratio(0.1)
    options.set_memtable_whole_key_filtering(True)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(blocks)
    options.set_block_based_table_factory(table)
    return options
