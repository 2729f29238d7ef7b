"""Keys of a home, signed commands, the cache of packages, what names a runtime."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tailrace.access.home_identity import home_id
from tailrace.errors import TailraceError, Unavailable
from tailrace.models.errors import PackageRefused
from tailrace.models.manifest import sha256
from tailrace.models.package.fetch import PackageFetcher
from tailrace.models.package.fingerprint import cpu_fingerprint, runtime_versions
from tailrace.models.package.open import Chunk
from tailrace.signing.keys import SigningKey, verifies
from tailrace.signing.records import sign_command
from tailrace.signing.trust import TrustStore, signing_key

PIECES = [b"first ", b"second ", b"third"]
CHUNKS = [Chunk("model", n, 0, 10 + n, len(data), sha256(data)) for n, data in enumerate(PIECES)]


# --- keys


def test_a_home_makes_its_key_once_for_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as many:
        keys = list(many.map(lambda _: signing_key(tmp_path).key_id, range(16)))
    assert len(set(keys)) == 1
    path = tmp_path / "keys" / "signing.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in path.parent.iterdir()) == ["signing.key", "trusted"]
    assert [p.name for p in (path.parent / "trusted").iterdir()] == ["owner"]
    other = signing_key(tmp_path / "other")
    assert other.key_id != keys[0]
    assert TrustStore(path.parent).public_key(other.key_id, "credit") is None
    signature = signing_key(tmp_path).sign(b"x")
    assert verifies(other.public, signature, b"x") is False


def test_a_key_file_that_is_none_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.key").write_text("not a key")
    with pytest.raises(TailraceError, match=r"signing\.key cannot be used"):
        signing_key(tmp_path)


def test_key_ids_from_a_topic_are_no_paths(tmp_path: Path) -> None:
    signing_key(tmp_path)
    trust = TrustStore(tmp_path / "keys")
    for name in ("", "../signing", "../../x", "0" * 17, "A" * 16, "0" * 15 + "\n"):
        assert trust.public_key(name, "credit") is None


def test_a_signed_command_cannot_be_altered(tmp_path: Path) -> None:
    command = {"command": "promote", "model": "credit", "version": 2, "follows": 1}
    signed = sign_command(home_id(tmp_path), command, signing_key(tmp_path))
    trust = TrustStore(tmp_path / "keys")
    assert trust.command_refusal(signed) is None
    for altered in (
        {"version": 3},
        {"follows": 2},
        {"model": "other"},
        {"command": "reject"},
        {"signature": b"x" * 64},
    ):
        assert "does not fit" in (trust.command_refusal({**signed, **altered}) or "")
    assert "not trusted" in (
        trust.command_refusal(sign_command(home_id(tmp_path), command, SigningKey.generate())) or ""
    )
    assert "not trusted" in (trust.command_refusal({**command, "key_id": None, "signature": None}) or "")


# --- fetching


class Topic:
    def __init__(self, *pieces: bytes | None) -> None:
        self.pieces = dict(enumerate(pieces, 10))
        self.read: list[int] = []

    def __call__(self, chunks: Sequence[Chunk]) -> list[bytes | None]:
        self.read += [c.offset for c in chunks]
        return [self.pieces[c.offset] for c in chunks]


def test_what_was_fetched_is_read_from_the_cache_and_checked_there(tmp_path: Path) -> None:
    topic = Topic(*PIECES)
    fetch = PackageFetcher(tmp_path, topic)
    assert fetch(CHUNKS) == PIECES
    assert fetch(CHUNKS) == PIECES
    assert topic.read == [10, 11, 12]

    # Somebody was at the folder: only what is wrong is fetched again.
    digest = CHUNKS[1].sha256
    (tmp_path / digest[:2] / digest).write_bytes(b"altered")
    assert PackageFetcher(tmp_path, topic)(CHUNKS) == PIECES
    assert topic.read == [10, 11, 12, 11]
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and len(p.name) != 64]


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    topic = Topic(*PIECES)
    fetch = PackageFetcher(tmp_path / "file", topic)
    assert [fetch(CHUNKS) for _ in range(2)] == [PIECES] * 2
    assert topic.read == [10, 11, 12] * 2


def test_chunks_that_are_not_there_or_not_those(tmp_path: Path) -> None:
    for pieces, what in (
        ((PIECES[0], None, PIECES[2]), "is not on"),
        ((PIECES[0], PIECES[0], PIECES[2]), "is not what"),
    ):
        with pytest.raises(PackageRefused, match=rf"chunk 1 of model .*{what}") as refused:
            PackageFetcher(tmp_path, Topic(*pieces))(CHUNKS)
        assert refused.value.check == "chunk"
    # A digest that would be a path is never one.
    hostile = Chunk("model", 0, 0, 10, 6, "../../outside")
    with pytest.raises(PackageRefused):
        PackageFetcher(tmp_path / "cache", Topic(*PIECES))([hostile])
    assert not (tmp_path / "outside").exists()


def test_a_topic_that_is_away_is_asked_again_later(tmp_path: Path) -> None:
    def away(_chunks: Sequence[Chunk]) -> list[bytes | None]:
        raise Unavailable("the broker is away")

    with pytest.raises(Unavailable):
        PackageFetcher(tmp_path, away)(CHUNKS)


# --- runtime


def test_a_runtime_is_named_by_versions_and_cpu() -> None:
    named = runtime_versions()
    assert named["cpu"] == cpu_fingerprint()
    assert len(named["cpu"]) == 12
    assert {"python", "numpy", "onnxruntime", "scikit-learn", "tailrace"} <= set(named)
