"""The sink on a real broker and the real ClickHouse engine: killed between any two steps, rows are records."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.environment import environment
from tests.support.lane import HandmadeLane
from tests.support.observer import Observer
from tests.support.stack import running_stack
from tests.support.stored import Stored, count_by_topic, references
from tests.support.waiting import until, until_answers

from tailrace.access.credentials import HTTP, SERVICES, Credentials
from tailrace.clickhouse.client import ClickHouse
from tailrace.connection import Connection
from tailrace.contracts.records.schemas import lane_schemas
from tailrace.local.health import ask
from tailrace.local.kafka import LocalKafka
from tailrace.local.ports import HOST, free_port
from tailrace.local.process import Process
from tailrace.streaming import dead_letters
from tailrace.streaming.records import DeadLetter, Message, PlainMessage, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.signed_records import home_with_keys

DEATHS = [("plan", 2), ("planned", 2), ("inserted", 4), ("lost", 3), ("committed", 1)]


def refused(source: RecordRef) -> Message:
    """A request that a scorer refused."""
    return PlainMessage(*source, b"\x05\xff", b"key", [("trace", b"\xff\x00")])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Of this module alone: a sink stores all that a broker holds, for which five sinks should not have to."""
    broker = LocalKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    try:
        with running_stack(broker, tmp_path_factory.mktemp("stack")) as connection:
            yield connection
    finally:
        broker.stop()


@pytest.fixture(scope="module")
def lane(stack: Connection) -> HandmadeLane:
    """A lane with a bit of everything that comes along in real life."""
    lane = HandmadeLane(stack, f"s{uuid.uuid4().hex[:8]}")
    chance = random.Random(5)
    requests = []
    for number in range(1_500):
        record = lane.request(number)
        chosen = chance.random()
        if chosen < 0.1:
            value = json.dumps({"request_id": f"r{number}", "income": number, "purpose": "home"}).encode()
            record = record._replace(value=value)
        elif chosen < 0.15:
            bad = [
                b"\x05garbage",
                b"{not json",
                b"\x00\x7f\x00\x00\x00x",
                (record.value or b"")[:-3],
                b'{"shoe": 1}',
            ]
            record = record._replace(value=chance.choice(bad))
        requests.append(record)
    sources = lane.write(requests)
    lane.write(watermark_record(lane.lane.requests, partition, 1_700_000_000_000) for partition in range(3))
    lane.write((lane.prediction(source) for source in sources), transactional_id=f"{lane.model}-1")
    label = lane_schemas(lane.contract)[lane.lane.labels]
    assert label["name"] == "Label"
    labels = [{"request_id": f"r{n}", "defaulted": n % 2 == 0, "labelled_by": "test"} for n in range(300)]
    label_id = lane.schema_ids[lane.lane.labels]
    lane.write(
        Record(lane.lane.labels, lane.codec.encode(label_id, record), record["request_id"].encode())
        for record in labels
    )
    letters = [
        DeadLetter(lane.lane.dead_letters, refused(source), "wrong-magic", "x") for source in sources[:50]
    ]
    lane.write(
        [
            *(dead_letters.to_record(letter, "scorer") for letter in letters),
            Record(lane.lane.dead_letters, b"?"),
        ]
    )
    return lane


def events(stack: Connection, lane: HandmadeLane) -> dict[str, set[tuple[str, int, int]]]:
    """What an independent consumer finds on the lane's topics, watermark records left out."""
    observer = Observer(stack.kafka, stack.registry, stack.registry_auth)
    return {
        topic: {r.at for r in observer.read(topic) if "tailrace-mark" not in r.headers}
        for topic in lane.lane.topics
    }


def launch(stack: Connection, home: Path, database: str, group: str, step: str, times: int) -> Process:
    env = os.environ | {
        **environment(stack, database),
        "TAILRACE_HOME": str(home_with_keys(home)),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    command = [sys.executable, "-m", "tests.support.dying_sink", group, step, str(times)]
    process = Process(command, home / f"{group}.log", env)
    process.launch()
    return process


def test_killed_between_any_two_steps(stack: Connection, lane: HandmadeLane, tmp_path: Path) -> None:
    expected = events(stack, lane)
    assert sum(map(len, expected.values())) > 3_000

    def die_and_recover(case: int) -> dict[str, Stored]:
        step, times = DEATHS[case]
        name = f"{lane.model}_{case}"
        first = launch(stack, tmp_path, name, name, step, times)
        assert first.wait(60) == -signal.SIGKILL, first.last_words()
        second = launch(stack, tmp_path, name, name, "never", 0)
        clickhouse = ClickHouse(f"{stack.clickhouse}/{name}", auth=stack.clickhouse_auth)
        try:
            until(
                lambda: all(
                    count_by_topic(clickhouse).get(topic, Stored(0, 0)).records == len(places)
                    for topic, places in expected.items()
                ),
                lambda: f"{step}: {count_by_topic(clickhouse)}\n{second.last_words()}",
            )
        finally:
            # It ends in order, and so has committed what it inserted.
            second.stop(10)
        return check_rows(clickhouse, expected)

    with ThreadPoolExecutor(len(DEATHS)) as pool:
        results = list(pool.map(die_and_recover, range(len(DEATHS))))
    for counted in results:
        assert counted == {
            topic: Stored(len(places), len(places)) for topic, places in expected.items() if places
        }


def check_rows(clickhouse: ClickHouse, expected: dict[str, set[tuple[str, int, int]]]) -> dict[str, Stored]:
    for topic, places in expected.items():
        rows = references(clickhouse, topic)
        assert len(rows) == len(places)
        assert set(rows) == places
    return {topic: counted for topic, counted in count_by_topic(clickhouse).items() if topic in expected}


@pytest.fixture
def sink(stack: Connection, tmp_path: Path) -> Iterator[Callable[[str, int], Process]]:
    """Starts the sink as it is, with the ClickHouse at an address, on a health port."""
    running: list[Process] = []

    def launch(clickhouse: str, health: int) -> Process:
        env = os.environ | {
            **environment(stack),
            "CLICKHOUSE_URL": clickhouse,
            "TAILRACE_HOME": str(home_with_keys(tmp_path)),
            "TAILRACE_HEALTH_PORT": str(health),
        }
        process = Process([sys.executable, "-m", "tailrace.cli", "run", "sink"], tmp_path / "sink.log", env)
        process.launch()
        running.append(process)
        return process

    yield launch
    for process in running:
        process.stop(10)


def test_clickhouse_away_and_a_contract_applied_live(
    stack: Connection, lane: HandmadeLane, sink: Callable[[str, int], Process], tmp_path: Path
) -> None:
    port, health = free_port(), free_port()
    token = Credentials(tmp_path / "bridge").make(HTTP, SERVICES)
    process = sink(f"http://{SERVICES}:{token}@{HOST}:{port}/live", health)

    def reason() -> Any:
        answer = ask(f"http://{HOST}:{health}", "/readyz")
        return json.loads(answer.text)["reason"] if answer.status == 503 else None

    until(lambda: "ClickHouse" in (reason() or ""), process.last_words)
    bridge = start_bridge(tmp_path, port)
    clickhouse = ClickHouse(f"http://{SERVICES}:{token}@{HOST}:{port}/live")
    try:
        expected = {topic: len(places) for topic, places in events(stack, lane).items()}

        def stored(counts: dict[str, int]) -> bool:
            counted = count_by_topic(clickhouse) if bridge.running() else {}
            return all(counted.get(topic) == Stored(n, n) for topic, n in counts.items() if n)

        until(lambda: stored(expected), lambda: f"{count_by_topic(clickhouse)}\n{process.last_words()}")
        row = clickhouse.select(
            f"SELECT * FROM {lane.model}_predictions WHERE (source_topic, source_partition, source_offset) IN "
            f"(SELECT _topic, _partition, _offset FROM {lane.model}_requests WHERE request_id = 'r7')"
        )
        assert len(row) == 1
        assert (row[0]["score"], row[0]["income"], row[0]["action"]) == (0.25, 1.0, "approve")
        letters = clickhouse.select(
            f"SELECT * FROM dead_letters WHERE _topic = '{lane.lane.dead_letters}' LIMIT 1"
        )
        assert (letters[0]["code"], letters[0]["service"]) == ("wrong-magic", "scorer")

        # A model that nobody had heard of when the sink started; and ClickHouse dies in between.
        late = HandmadeLane(stack, f"l{uuid.uuid4().hex[:8]}")
        late.write(late.request(n) for n in range(500))
        until(lambda: stored({late.lane.requests: 500}), process.last_words)
        for kill in range(3):
            start = 500 * (kill + 1)
            late.write(late.request(n) for n in range(start, start + 500))
            time.sleep(random.Random(kill).uniform(0.0, 0.4))
            os.kill(bridge.pid or 0, signal.SIGKILL)
            bridge.wait(60)
            bridge = start_bridge(tmp_path, port)
            until(lambda n=start + 500: stored({late.lane.requests: n}), process.last_words)
        until(lambda: "ClickHouse" not in (reason() or ""), process.last_words)
        assert stored(expected)
    finally:
        bridge.stop(10)


def start_bridge(home: Path, port: int) -> Process:
    env = os.environ | {"TAILRACE_HOME": str(home / "bridge"), "TAILRACE_PORT": str(port)}
    (home / "bridge").mkdir(exist_ok=True)
    process = Process([sys.executable, "-m", "tailrace.cli", "run", "clickhouse"], home / "bridge.log", env)
    process.launch()
    until_answers(process, f"http://{HOST}:{port}")
    return process
