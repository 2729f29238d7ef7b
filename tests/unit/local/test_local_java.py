"""The lock file of jars, and which Java is run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tailrace.errors import TailraceError
from tailrace.local import java as module
from tailrace.local.java import Jar, JarLock, cache_dir, jars, java
from tailrace.local.kafka import LOCK


def test_kafka_s_lock_names_every_jar_with_its_sum_and_no_host() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    lock = JarLock.read(LOCK)
    assert any(one.startswith("org.apache.kafka:kafka_2.13:4.") for one in lock.asked)
    versions = {jar.coordinate.rpartition(":")[2] for jar in lock.jars if "apache.kafka" in jar.coordinate}
    assert len(versions) == 1, "jars of several versions of Kafka do not run together"
    assert len({jar.filename for jar in lock.jars}) == len(lock.jars) > 40


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    lock = JarLock(("g:a:1", "g:b:2"), (Jar("g:a:1", "0" * 64), Jar("g:b:2", "f" * 64)))
    lock.write(tmp_path / "lock")
    assert JarLock.read(tmp_path / "lock") == lock


@pytest.mark.parametrize(
    "line", ["abc  g:a:1", f"{'0' * 64} g:a:1", f"{'0' * 64}  g:a", f"{'0' * 64}  g:a:../x"]
)
def test_a_line_that_makes_no_sense_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "lock").write_text(f"# comment\n{line}\n")
    with pytest.raises(TailraceError, match="line 2"):
        JarLock.read(tmp_path / "lock")


class _Mirror:
    """Stands for jgo: hands out files from memory, as a repository would."""

    def __init__(self, folder: Path, content: dict[str, bytes]) -> None:
        self.folder, self.content = folder, content
        self.asked: list[str] = []

    def create_dependency(self, coordinate: str) -> Any:
        def resolve() -> Path:
            self.asked.append(coordinate)
            path = self.folder / coordinate.replace(":", "-")
            path.write_bytes(self.content[coordinate])
            return path

        return SimpleNamespace(artifact=SimpleNamespace(resolve=resolve))


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Mirror:
    content = {"g:a:1": b"the first jar", "g:b:2": b"the second"}
    made = _Mirror(tmp_path, content)

    def maven(repository: Path) -> _Mirror:
        made.folder = repository
        return made

    monkeypatch.setattr(module, "_maven", maven)
    sums = tuple(Jar(name, hashlib.sha256(data).hexdigest()) for name, data in content.items())
    JarLock(("g:a:1",), sums).write(tmp_path / "lock")
    return made


def test_jars_are_downloaded_once_and_checked_every_time(tmp_path: Path, mirror: _Mirror) -> None:
    cache = tmp_path / "cache"
    first = jars(tmp_path / "lock", cache)
    assert [path.read_bytes() for path in first] == [b"the first jar", b"the second"]
    assert jars(tmp_path / "lock", cache) == first
    assert sorted(mirror.asked) == ["g:a:1", "g:b:2"]
    first[0].write_bytes(b"damaged on disk")
    jars(tmp_path / "lock", cache)
    assert first[0].read_bytes() == b"the first jar"
    assert mirror.asked.count("g:b:2") == 1


def test_an_altered_jar_is_refused_and_not_kept(tmp_path: Path, mirror: _Mirror) -> None:
    mirror.content["g:b:2"] = b"not what was locked"
    with pytest.raises(TailraceError, match=r"g:b:2 .* sha256"):
        jars(tmp_path / "lock", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "jars").iterdir() if "b" in path.name] == []


def test_no_network_says_what_to_do(tmp_path: Path, mirror: _Mirror) -> None:
    mirror.content.clear()
    with pytest.raises(TailraceError, match=r"KAFKA_HOME.*KAFKA_BOOTSTRAP_SERVERS"):
        jars(tmp_path / "lock", tmp_path / "cache")


def test_the_cache_is_where_it_is_told_to_be() -> None:
    assert cache_dir({"TAILRACE_CACHE": "/c"}) == Path("/c")
    assert cache_dir({"XDG_CACHE_HOME": "/x"}) == Path("/x/tailrace")
    assert cache_dir({}) == Path.home() / ".cache" / "tailrace"


def test_java_home_is_used_where_it_is_new_enough(tmp_path: Path) -> None:
    with pytest.raises(TailraceError, match="does not exist"):
        java({"JAVA_HOME": str(tmp_path)})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    assert java({"JAVA_HOME": str(tmp_path)}) == tmp_path / "bin" / "java"
    (tmp_path / "release").write_text('IMPLEMENTOR="X"\nJAVA_VERSION="17.0.15"\n')
    assert java({"JAVA_HOME": str(tmp_path)}) == tmp_path / "bin" / "java"
    for old in ('JAVA_VERSION="11.0.2"\n', 'JAVA_VERSION="1.8.0_402"\n'):
        (tmp_path / "release").write_text(old)
        with pytest.raises(TailraceError, match=r"Java (11|8), Kafka 4 needs 17"):
            java({"JAVA_HOME": str(tmp_path)})


def test_else_java_comes_with_pip() -> None:
    assert java({}).is_file()
