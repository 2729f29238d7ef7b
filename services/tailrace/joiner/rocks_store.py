"""The store in RocksDB.

RocksDB checks the sums of what it reads. A store in which one is wrong, or whose files do not belong together, is
thrown away where that is noticed; a disk that cannot be read or written is no fault of the store's.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
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

from tailrace.errors import DiskFailed, StateLost
from tailrace.joiner.progress import Spot
from tailrace.joiner.store import TIMER, Timer, timer_bound

log = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 8
_CACHE_BYTES = 64 << 20
_BUFFERS_BYTES = 128 << 20
"""What all stores of a process share."""
_WRITE_BUFFER_BYTES = 16 << 20

_LOCKED = ("While lock file", "lock hold by current process")
# RocksDB tells these apart in its text only. None of them says that a file is damaged.
_OF_THE_DISK = tuple(
    os.strerror(number)
    for number in (
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.ESTALE),
    )
)


class RocksStore:
    """A store in a folder. Its log is off: what a kill takes from it is read again from Kafka.

    Raises:
        Locked: another has it.
        DiskFailed: the disk does not let it be opened.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._batch_options = WriteOptions()
        self._batch_options.disable_wal = True  # type: ignore[method-assign, assignment]
        try:
            with self._judged():
                self._open()
        except StateLost:
            pass  # nobody has read anything of it yet

    def get(self, key: bytes) -> bytes | None:
        with self._judged():
            value: bytes | None = self._db.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._judged():
            values: Any = self._db.get(list(keys)) if keys else []
        return list(values)

    def timers(self, begin: Spot, end: Spot) -> Iterator[Timer]:
        last = timer_bound(end)
        with self._judged():
            at = self._db.iter()
            try:
                at.seek(timer_bound(begin))
                while at.valid() and (key := at.key()) < last and key.startswith(TIMER):
                    yield Timer.of_key(key)
                    at.next()
                at.status()  # an iterator also ends where it cannot read on
            finally:
                del at  # it keeps the store open

    def write(self, puts: Mapping[bytes, bytes], deletes: Collection[bytes]) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in puts.items():
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        with self._judged():
            self._db.write(batch, self._batch_options)

    def wipe(self) -> None:
        self._db.close()
        self._make_anew()

    def throw_away(self, why: str) -> None:
        with contextlib.suppress(Exception):
            self._db.close()
        log.warning(
            f"{self._folder} is damaged and was thrown away; what it held is read again from the log",
            extra={"damage": why},
        )
        self._make_anew()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._db.flush()
        with contextlib.suppress(Exception):
            self._db.close()

    def _open(self) -> None:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self._folder), _options())

    def _make_anew(self) -> None:
        """Makes an empty store in place of what is in the folder; nothing of that can be at fault afterwards.

        Raises:
            Locked, DiskFailed: as opening does.
        """
        try:
            try:
                Rdict.destroy(str(self._folder), _options())
            except Exception as error:
                if _is_locked(error):
                    raise
            # What RocksDB does not take for its own.
            if self._folder.is_dir():
                shutil.rmtree(self._folder)
            else:
                self._folder.unlink(missing_ok=True)
            self._open()
        except Exception as error:
            raise self._refusal(error) from error

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """
        Raises:
            StateLost: the store was damaged, and is empty now.
            Locked, DiskFailed: as opening does.
        """
        try:
            yield
        except Exception as error:
            why = str(error)
            if _is_locked(error) or any(text in why for text in _OF_THE_DISK):
                raise self._refusal(error) from error
            self.throw_away(why)
            raise StateLost(f"{self._folder} was damaged: {why}") from error

    def _refusal(self, error: Exception) -> Exception:
        if _is_locked(error):
            return Locked(f"another process has the store {self._folder}: {error}")
        return DiskFailed(
            f"the disk with {self._folder} cannot be used: {error}. Look at the disk (`dmesg`, `df`, the rights of "
            "the folder); nothing is lost, and the service goes on from the log when it is started again"
        )


class Locked(OSError):
    """A store that another has open."""


def _is_locked(error: Exception) -> bool:
    return any(text in str(error) for text in _LOCKED)


def open_store(folder: Path, name: str) -> RocksStore:
    """The store of that name, or where another process of this machine has it, one beside it.

    Raises:
        DiskFailed: the disk does not let it be opened.
        Locked: so many others have stores of that name.
    """
    names = (name, *(f"{name}.{attempt}" for attempt in range(1, _LOCK_ATTEMPTS)))
    for each in names[:-1]:
        with contextlib.suppress(Locked):
            return RocksStore(folder / each)
    return RocksStore(folder / names[-1])


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
