"""Whatever file of a joiner's RocksDB is damaged, and however: the outcomes are those of an undamaged run."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulation import drained, quarantine

from tailrace.errors import TailraceError
from tailrace.joiner.partition_state import INPUTS
from tailrace.joiner.processor import JoiningProcessor
from tailrace.joiner.rocks_store import RocksStore, open_store
from tailrace.joiner.store import request_key
from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record, RecordRef
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.joined_lane import CONTRACT, JoinedLane
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import records

REGISTRY = MemoryRegistry()
MADE = JoinedLane(CONTRACT, REGISTRY)
START = 1_600_000_000_000
REQUESTS = 300


class Joined:
    """A lane in memory, with a joiner whose store is on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = MemoryLog()
        self.stores: list[RocksStore] = []
        for topic in ("tailrace.contracts", *(f"credit.{s}" for s in (*INPUTS, "outcomes", "dead-letters"))):
            self.log.create_topic(topic)
        self.append([MADE.contract_record()])

    def append(self, records: list[Record]) -> None:
        for record in records:
            self.log.append(record.topic, record.value, record.key, record.headers, 0)

    def predict(self) -> None:
        sources = (RecordRef("credit.requests", 0, n) for n in range(REQUESTS))
        self.append([MADE.prediction(s, f"r{s.offset}", f"k{s.offset}", START + s.offset) for s in sources])

    def label(self) -> None:
        for n in range(0, REQUESTS, 3):
            self.append([MADE.label(request_id=f"r{n}", loan_id=f"k{n}", at=START + n, bad=n % 2 == 0)])

    def pass_time(self, time: int) -> None:
        self.append([watermark_record(f"credit.{name}", 0, time) for name in INPUTS[:4]])

    def start(self) -> ExactlyOnceRunner:
        processor = JoiningProcessor(
            records(REGISTRY), self._open, lambda topic: 1, lambda: self.log.messages("tailrace.contracts")
        )
        return ExactlyOnceRunner(
            self.log.backend(),
            processor,
            service="joiner",
            group="joiner",
            transactional_id="joiner",
            clock=MemoryClock(self.log),
            quarantine=quarantine,
            max_batch=500,
            co_partitioned=True,
        )

    def _open(self, lane: str, number: int) -> RocksStore:
        self.stores.append(open_store(self.folder, f"{lane}-{number}"))
        return self.stores[-1]

    def finish(self, loop: ExactlyOnceRunner) -> None:
        self.until(loop, lambda: drained(self.log, "joiner", [f"credit.{name}" for name in INPUTS]))

    def until(self, loop: ExactlyOnceRunner, done: Callable[[], object]) -> None:
        for _ in range(2_000):
            if done():
                return
            loop.step()
        raise AssertionError(f"the joiner does not get on: {loop.waiting}")

    def stop(self, loop: ExactlyOnceRunner) -> None:
        """With all that it has in files."""
        loop.close()
        while self.stores:
            self.stores.pop().close()

    def outcomes(self) -> Counter[bytes]:
        assert self.log.messages("credit.dead-letters") == []
        return Counter(m.value() for m in self.log.messages("credit.outcomes") if watermark_time(m) is None)


def first_half(folder: Path) -> Joined:
    """Twice opened and closed, so that there are files of every kind."""
    joined = Joined(folder)
    joined.predict()
    for passed in (1, 2):
        joined.pass_time(START + passed)
        loop = joined.start()
        joined.finish(loop)
        joined.stop(loop)
    return joined


def second_half(joined: Joined, loop: ExactlyOnceRunner) -> Counter[bytes]:
    joined.label()
    joined.pass_time(START + 30_000)
    joined.finish(loop)
    joined.pass_time(START + 100_000)
    joined.finish(loop)
    joined.stop(loop)
    return joined.outcomes()


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Counter[bytes]:
    joined = first_half(tmp_path_factory.mktemp("undamaged"))
    outcomes = second_half(joined, joined.start())
    assert len(outcomes) == REQUESTS
    return outcomes


def in_place(file: Path, data: bytes) -> None:
    """As a disk would do it: who has the file open sees it."""
    with file.open("r+b") as opened:
        opened.write(data)
        opened.truncate()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for at in range(len(data) // 2 % 64, len(data), 64):
        data[at] ^= 0xFF
    in_place(file, bytes(data))


def become_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda file: in_place(file, file.read_bytes()[: file.stat().st_size // 2]),
    "emptied": lambda file: in_place(file, b""),
    "garbage": lambda file: in_place(file, os.urandom(max(100, file.stat().st_size))),
    "flipped": flip,
    "removed": Path.unlink,
    "a folder": become_folder,
}
KINDS = ("sst", "log", "CURRENT", "IDENTITY", "LOCK", "LOG", "MANIFEST", "OPTIONS", "rocksdict-config.json")


def kind_of(file: Path) -> str:
    return re.sub(r"^\d+\.|-\d+$|\.old.*", "", file.name)


def damage(folder: Path, kind: str, how: str) -> None:
    files = [file for file in (folder / "credit-0").iterdir() if kind_of(file) == kind]
    assert files, f"no file of {kind} in {sorted(p.name for p in (folder / 'credit-0').iterdir())}"
    for file in files:
        DAMAGES[how](file)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("running", [False, True])
def test_outcomes_do_not_depend_on_the_store(
    tmp_path: Path, undamaged: Counter[bytes], caplog: pytest.LogCaptureFixture, how: str, running: bool
) -> None:
    thrown_away = set()
    for kind in ("sst", "CURRENT", "MANIFEST") if running else KINDS:
        joined = first_half(tmp_path / kind)
        loop = joined.start()
        if running:
            joined.until(loop, lambda joined=joined: joined.stores and loop.waiting is None)  # noqa: B023
        damage(joined.folder, kind, how)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert second_half(joined, loop) == undamaged, kind
        sentences = [
            r.getMessage() for r in caplog.records if "is damaged and was thrown away" in r.getMessage()
        ]
        assert len(sentences) <= 1
        assert all(str(joined.folder / "credit-0") in sentence for sentence in sentences)
        thrown_away |= {kind} if sentences else set()
        shutil.rmtree(joined.folder)
    if running:
        # What was opened before it was removed stays there for who has it open.
        assert ("sst" in thrown_away) == (how not in ("removed", "a folder"))
    else:
        assert thrown_away >= {"sst", "CURRENT", "MANIFEST"}


def test_a_folder_that_is_no_store_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "credit-0").write_text("a file")
    store = open_store(tmp_path, "credit-0")
    store.write({request_key("m", b"1"): b"x"}, [])
    assert store.get(request_key("m", b"1")) == b"x"
    store.close()


class FailingDisk:
    """RocksDB's handle on a disk that cannot be read."""

    def get(self, key: object) -> None:
        raise Exception("IO error: While pread offset 0 len 9: /x/000009.sst: Input/output error")

    def close(self) -> None:
        pass


def test_a_disk_that_fails_is_said_and_nothing_is_thrown_away(tmp_path: Path) -> None:
    store = open_store(tmp_path, "credit-0")
    store.write({request_key("m", b"1"): b"x"}, [])
    whole, store._db = store._db, FailingDisk()  # type: ignore[assignment]
    with pytest.raises(TailraceError, match=r"Input/output error.*Look at the disk.*nothing is lost"):
        store.get(request_key("m", b"1"))
    store._db = whole
    assert store.get(request_key("m", b"1")) == b"x"
    store.close()
