"""What is kept running comes back whatever was short, and no thread that keeps it ends before."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tailrace.local import keeper as module
from tailrace.local.home import Home
from tailrace.local.keeper import Keeper, KeptProgram
from tailrace.local.room import Shortage

FULL = [Shortage("disk", "/", 0, 1, "the file system / is full")]


class Fake:
    """A program without a process."""

    pid = None
    log = Path("/dev/null")

    def __init__(self) -> None:
        self.starts = 0
        self.fails: BaseException | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        self.starts += 1
        if self.fails is not None:
            raise self.fails
        self._ended.clear()

    def running(self) -> bool:
        return not self._ended.is_set()

    def wait(self, timeout: float | None = None) -> int | None:
        return 1 if self._ended.wait(timeout) else None

    def end(self) -> None:
        self._ended.set()

    def stop(self, timeout: float) -> None:
        self.end()

    def last_life(self) -> list[str]:
        return ["tailrace: OSError: [Errno 28] No space left on device"]


class SmallHome(Home):
    """A home on a disk that is full when the test says so."""

    full = False

    def write(self, file: Path, content: Mapping[str, Any]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(file, content)


@pytest.fixture
def home(tmp_path: Path) -> SmallHome:
    made = SmallHome(tmp_path / "home")
    made.prepare()
    return made


@pytest.fixture
def keeper(home: SmallHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    monkeypatch.setattr(module, "full_disks", lambda _: FULL if home.full else [])
    monkeypatch.setattr(module, "_TEND_S", 0.01)
    made = Keeper(home)
    yield made
    home.full = False
    made.stop()


def _keep(keeper: Keeper, fake: Fake) -> KeptProgram:
    kept = KeptProgram("scorer", fake, fake.start, "http://127.0.0.1:1")
    keeper.keep(kept)
    return kept


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _state(home: Home) -> dict[str, Any]:
    return dict(home.read(home.state)["processes"][0])


def test_what_ends_is_started_again_and_how_it_ended_is_written(keeper: Keeper, home: SmallHome) -> None:
    fake = Fake()
    _keep(keeper, fake)
    fake.end()
    _until(lambda: fake.starts == 2 and _state(home)["restarts"] == 1)
    assert _state(home)["deaths"]["times"] == 1
    assert "No space left" in _state(home)["deaths"]["why"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), OSError(errno.EMFILE, "many"), RuntimeError("a bug")]
)
def test_what_cannot_be_started_is_tried_again(
    keeper: Keeper, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    fake = Fake()
    kept = _keep(keeper, fake)
    fake.fails = error
    fake.end()
    _until(lambda: fake.starts >= 5)
    assert kept.thread
    assert kept.thread.is_alive()
    assert "cannot be started" in kept.deaths.why
    fake.fails = None
    _until(fake.running)
    assert kept.thread.is_alive()


def test_on_a_full_disk_it_waits_and_is_back_as_soon_as_there_is_room(
    keeper: Keeper, home: SmallHome
) -> None:
    fake = Fake()
    kept = _keep(keeper, fake)
    home.full = True
    fake.end()
    time.sleep(0.2)
    assert fake.starts == 1, "there is no room yet, and the next attempt is due in ten seconds"
    assert _state(home)["deaths"] is None, "which could not be written"
    home.full = False
    _until(lambda: fake.starts == 2)
    _until(lambda: _state(home)["restarts"] == 1)
    assert _state(home)["deaths"]["times"] == 1
    assert kept.thread
    assert kept.thread.is_alive()


def test_on_a_disk_that_stays_full_it_is_tried_all_the_same(
    keeper: Keeper, home: SmallHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.05)
    fake = Fake()
    _keep(keeper, fake)
    home.full = True
    for starts in (2, 3):
        fake.end()
        _until(lambda starts=starts: fake.starts == starts)  # type: ignore[misc]
