"""The joiner as a process on a real broker: labels by producers of every kind, and what is left after a kill."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.support.cluster import broker_with_registry
from tests.support.joining_oracle import World, expected
from tests.support.producing import produce
from tests.support.waiting import until

from tailrace.avro.registry import RegistryClient
from tailrace.connection import Connection
from tailrace.local.health import ask
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.streaming import dead_letters
from tailrace.streaming.backends.kafka.reading import read_all
from tailrace.streaming.backends.kafka.topics import ensure_topics, lane_topics
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record, watermark_time
from tailrace.testing.joined_lane import CONTRACT, JoinedLane

PARTITIONS = 3
START = 1_600_000_000_000
INPUTS = ("predictions", "shadow-predictions", "labels", "actions")
# librdkafka's partitioners; a record without a key goes anywhere.
PRODUCERS = {"murmur2": "murmur2_random", "crc32": "consistent", "null": "random"}


class Joining:
    """A broker, a lane, and the joiner."""

    def __init__(self, connection: Connection, home: Path, env: dict[str, str]) -> None:
        self.connection, self.home, self.env = connection, home, env
        self.made = JoinedLane(CONTRACT, RegistryClient(connection.registry, connection.registry_auth))
        self.joiner: Process | None = None
        self.port = 0
        self.now = START
        self.requests = 0
        self.send([self.made.contract_record()])

    def send(self, records: list[Record], producer: str = "murmur2") -> None:
        client = Producer({**self.connection.kafka, "partitioner": PRODUCERS[producer]})
        for record in records:
            produce(client, record)
        assert client.flush(30) == 0

    def predict(self, count: int) -> list[str]:
        """Answers to new requests, by both scorers; their ids."""
        records, ids = [], []
        for _ in range(count):
            number, self.requests = self.requests, self.requests + 1
            self.now += 10
            ids.append(f"r{number}")
            identity = RecordRef("credit.requests", 0, number), f"r{number}", f"loan-{number}", self.now
            records += [
                self.made.prediction(*identity),
                self.made.prediction(*identity, version=2, shadow=True),
            ]
        self.send(records)
        return ids

    def label(self, ids: list[str], producer: str, bad: bool) -> None:
        self.now += 1_000
        for request_id in ids:
            key = request_id.replace("r", "loan-")
            record = self.made.label(request_id=request_id, loan_id=key, at=self.now, bad=bad)
            self.send([record._replace(key=None if producer == "null" else key.encode())], producer)

    def pass_time(self, milliseconds: int) -> None:
        self.now += milliseconds
        self.send([watermark_record(f"credit.{s}", p, self.now) for s in INPUTS for p in range(PARTITIONS)])

    def start(self) -> None:
        self.port = free_port()
        env = self.env | {"TAILRACE_HEALTH_PORT": str(self.port)}
        self.joiner = Process(
            [sys.executable, "-m", "tailrace.cli", "run", "joiner"], self.home / "joiner.log", env
        )
        self.joiner.launch()
        until(lambda: ask(f"http://{HOST}:{self.port}", "/readyz").ok, "the joiner is ready")

    def kill(self) -> None:
        assert self.joiner is not None
        self.joiner.kill()

    def outcomes(self) -> list[dict[str, Any]]:
        read = read_all(self.connection, "credit.outcomes")
        return [self.made.outcome(message) for message in read if watermark_time(message) is None]

    def await_outcomes(self) -> list[dict[str, Any]]:
        """Waits for what the log says, and holds the joiner to it."""
        messages: dict[str, list[list[Message]]] = {s: [[] for _ in range(PARTITIONS)] for s in INPUTS}
        for suffix in INPUTS:
            for message in read_all(self.connection, f"credit.{suffix}"):
                messages[suffix][message.partition()].append(message)

        def decode(value: bytes) -> dict[str, Any]:
            return self.made.codec.decode(value).record

        world = World("credit", messages, decode, 60_000, 5_000, 300_000, 60_000, "loan_id", "at", "bad")
        wanted, letters = expected(world)
        until(lambda: len(self.outcomes()) >= len(wanted), "all outcomes")
        outcomes = self.outcomes()
        assert Counter(o["outcome_id"] for o in outcomes) == Counter(wanted.keys())
        for outcome in outcomes:
            own = wanted[outcome["outcome_id"]]
            for field in ("revision", "state", "label", "known_at", "late", "replaces", "duplicate_of"):
                assert outcome[field] == own[field]
            assert (outcome["champion"] or {}).get("prediction_id") == own["champion"]
        refused = [dead_letters.parse(m) for m in read_all(self.connection, "credit.dead-letters")]
        assert Counter((str(letter.source), letter.code) for letter in refused) == Counter(letters)
        return outcomes


@pytest.fixture(scope="module")
def joining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joining]:
    with broker_with_registry(tmp_path_factory.mktemp("joining")) as (connection, home, env):
        ensure_topics(connection.kafka, lane_topics("credit", partitions=PARTITIONS))
        lane = Joining(connection, home, env)
        try:
            yield lane
        finally:
            if lane.joiner is not None:
                lane.joiner.stop(10)


def test_labels_of_every_producer_are_joined(joining: Joining) -> None:
    ids = joining.predict(90)
    for at, producer in enumerate(PRODUCERS):
        joining.label(ids[at::3][:25], producer, bad=at == 0)
    nameless = joining.made.label(request_id="r1", at=joining.now, bad=True)
    joining.send(
        [nameless, joining.made.label(request_id="nobody", loan_id="x", at=joining.now, bad=True)], "null"
    )
    joining.pass_time(10_000)
    joining.start()
    joined = joining.await_outcomes()
    assert len(joined) == 2 * 75
    assert {o["prediction"]["request_id"] for o in joined} == {i for at in range(3) for i in ids[at::3][:25]}
    assert all(o["champion"] is not None for o in joined if o["prediction"]["role"] == "shadow")
    assert len(list(read_all(joining.connection, "credit.rekeyed"))) > 20


def test_after_a_kill_it_goes_on_from_its_store_or_from_the_log_alone(joining: Joining) -> None:
    for round_, wipe in enumerate((True, False)):
        joining.kill()
        if wipe:
            shutil.rmtree(joining.home / "state")
        corrected = [f"r{number}" for number in range(0, 30, 3)]
        joining.label(corrected, "crc32", bad=bool(round_ % 2))
        joining.predict(10)
        joining.pass_time(5_000)
        joining.start()
        outcomes = joining.await_outcomes()
        assert Counter(o["revision"] for o in outcomes)[round_ + 2] == 2 * len(corrected)
    assert sorted(path.name for path in (joining.home / "state" / "joiner").iterdir()) == [
        f"credit-{number}" for number in range(PARTITIONS)
    ]


def test_at_the_horizon_it_says_what_had_no_label_and_what_had_no_request(
    joining: Joining,
) -> None:
    joining.pass_time(200_000)
    states = Counter(o["state"] for o in joining.await_outcomes())
    assert states["unlabelled"] > 0
    codes = Counter(dead_letters.parse(m).code for m in read_all(joining.connection, "credit.dead-letters"))
    assert codes == {"missing-key": 1, "no-request": 1}
