"""The benchmarks run, at toy size: what they say of speed means nothing here, what they count does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks import instances, latency, memory, swap
from benchmarks.harness import Broker
from benchmarks.load import swapping
from benchmarks.pass_on_loops import pass_on_loop
from benchmarks.peers import __main__ as beside
from benchmarks.running import Requests, Running, running, wait_for_loop

from tailrace.local.kafka import LocalKafka

RATE = 100


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The module's own: control topics are shared by all that runs on one."""
    folder = tmp_path_factory.mktemp("kafka")
    kafka = LocalKafka(folder)
    kafka.start()
    yield Broker(kafka.bootstrap)
    kafka.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def memory_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory") / "memory.txt"


@pytest.fixture(scope="module")
def tailrace(broker: Broker, memory_file: Path) -> Iterator[Running]:
    with running(broker) as found:
        found.roll_out([sys.executable, "-m", "benchmarks.collected", memory.MODULE, str(memory_file)])
        yield found


@pytest.fixture(scope="module")
def requests(tailrace: Running) -> Requests:
    return tailrace.requests(2_000)


def test_latency_counts_an_answer_for_each_request(
    broker: Broker, tailrace: Running, requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "WARM_UP_S", 0.2)
    empty = pass_on_loop(broker, tmp_path, latency.BASE)
    loops = {"no service": None, latency.BASE: empty, "scorer": tailrace.scorer()}
    try:
        wait_for_loop(broker, empty, requests[:10])
        measured = latency.measure(broker, loops, requests[:RATE], RATE, rounds=1)
    finally:
        empty.stop()
    assert measured.keys() == loops.keys()
    for facts in measured.values():
        assert 0 < facts["p50"]["median"] <= facts["p99"]["median"] <= facts["p99.9"]["median"]
    assert measured[latency.BASE]["p99"]["ratio"]["median"] == 1
    assert measured["scorer"]["p50"]["median"] > measured["no service"]["p50"]["median"]


def test_peers_write_the_scorers_events(
    broker: Broker, tailrace: Running, requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # faust-streaming is installed here too.
    monkeypatch.setattr(beside, "python_of", lambda _lock: Path(sys.executable))
    side = beside.Peers(broker, tailrace, tmp_path)
    try:
        for name in ("scorer", "Faust"):
            side.start(name, requests[:10])
            assert side.run(name, requests[:500]).records == 500
    finally:
        side.loops.pop("scorer")
        side.stop()
    assert side.compared == 500
    assert side.largest_difference < beside.CLOSE


def test_a_swap_is_measured_from_its_publication_and_memory_while_swaps_go_on(
    broker: Broker, tailrace: Running, memory_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SAMPLE_S", 0.2)
    with ExitStack() as stack:
        load, swaps = swapping(stack, broker, tailrace, RATE)
        measured = swap.measure(swaps, 1)
        held = memory.measure(tailrace.scorer(), swaps, memory_file, seconds=2, swap_every=1)
        load.stop()
    whole = measured["publish_to_first_prediction_ms"]["p50"]
    assert whole == pytest.approx(sum(part["p50"] for part in measured["parts_ms"].values()), abs=1)
    assert whole > 0
    assert all(0 < gap["p50"] < swap.WINDOW_S * 1e3 for gap in measured["longest_gap_ms"].values())
    assert held["swaps"] == 1
    assert held["samples"] >= 5
    assert 50 < held["mib"]["last"] < 1_000
    assert held["mib_per_hour"]["standard_error"] >= 0


def test_two_scorers_share_the_work_of_one(
    broker: Broker, tailrace: Running, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "WARM_UP", 100)
    measured = instances.measure(broker, tailrace, requests, rounds=1)
    assert measured["one"]["ratio"]["median"] == 1
    assert measured["two"]["records_per_second"]["median"] > 0
    assert measured["two"]["cores_busy"] > 0
