"""Replays on a real broker: two files in one lane, the same file twice, and one that is stopped."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from tests.support.lane import HandmadeLane

from tailrace.avro.codec import Codec
from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.files.contents import content_digest
from tailrace.files.data_mapping import DataMapping
from tailrace.files.rows import read_rows, request_id_prefix
from tailrace.replay.overlap import count_replayed
from tailrace.replay.send import Replay, labels_after
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.watermark_records import watermark_time

ROWS = 100


def _file(folder: Path, name: str, month: int) -> Path:
    file = folder / name
    lines = [
        f"2024-{month:02}-01T{row // 60:02}:{row % 60:02}:00Z,{row},car,{row % 2}" for row in range(ROWS)
    ]
    file.write_text("\n".join(["at,income,purpose,bad", *lines]) + "\n")
    return file


def _rows(lane: HandmadeLane, file: Path) -> pl.DataFrame:
    mapping = DataMapping.model_validate({"model": lane.model, "target": "bad = 1", "time": "at"})
    return read_rows(file, mapping, lane.contract)


def _ids(connection: Connection, topic: str) -> list[str]:
    codec = Codec(RegistryClient(connection.registry, connection.registry_auth))
    messages = [message for message in read_all(connection, [topic]) if watermark_time(message) is None]
    return [codec.decode(message.value()).record["request_id"] for message in messages]


def _replayed(connection: Connection, lane: HandmadeLane, file: Path) -> int:
    prefix = request_id_prefix(lane.model, content_digest(file))
    return count_replayed(connection, lane.lane.requests, prefix, _rows(lane, file))


def test_two_files_share_no_request_and_a_replay_knows_its_own(stack: Connection, tmp_path: Path) -> None:
    lane = HandmadeLane(stack, "twofiles")
    first, second = _file(tmp_path, "first.csv", 1), _file(tmp_path, "second.csv", 2)
    assert _replayed(stack, lane, first) == 0
    for file in (first, second):
        rows = _rows(lane, file)
        labels, _ = labels_after(rows, lane.contract, 60_000, until_ms=2**50)
        sent = Replay(stack, lane.contract, rows, labels).run()
        assert (sent.requests, sent.labels, sent.is_interrupted) == (ROWS, ROWS, False)
    requests, labelled = _ids(stack, lane.lane.requests), _ids(stack, lane.lane.labels)
    assert len(set(requests)) == len(requests) == 2 * ROWS
    assert sorted(labelled) == sorted(requests)
    copy = tmp_path / "copy.csv"
    copy.write_bytes(first.read_bytes())
    assert _replayed(stack, lane, copy) == ROWS
    assert _replayed(stack, lane, _file(tmp_path, "third.csv", 3)) == 0


def test_a_replay_that_is_stopped_says_where(stack: Connection, tmp_path: Path) -> None:
    lane = HandmadeLane(stack, "stopped")
    rows = _rows(lane, _file(tmp_path, "f.csv", 1))

    def stop(done: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    sent = Replay(stack, lane.contract, rows, rate=200).run(stop)
    assert sent.is_interrupted
    assert 10 <= sent.requests < ROWS
    assert sent.last_ms == rows["event_time"][sent.requests - 1]
    ids = _ids(stack, lane.lane.requests)
    assert sorted(ids) == sorted(rows["request_id"].to_list()[: sent.requests])


def test_the_same_file_again_has_the_same_ids(stack: Connection, tmp_path: Path) -> None:
    lane = HandmadeLane(stack, "again")
    rows = _rows(lane, _file(tmp_path, "f.csv", 1))
    for _ in range(2):
        Replay(stack, lane.contract, rows).run()
    ids = _ids(stack, lane.lane.requests)
    assert len(ids) == 2 * ROWS
    assert len(set(ids)) == ROWS
