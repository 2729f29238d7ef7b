"""The broker dies under two trainers: whoever of them works on, or its successor, does what is to be done, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.support.training import TrainingLane, alert
from tests.support.waiting import until

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka


def test_a_run_goes_on_when_the_broker_comes_back(
    stack: Connection, kafka: LocalKafka, tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    lane = TrainingLane(stack, "trainer-broker", tmp_path)
    lane.days(range(100, 103))
    lane.write([lane.record("Alert", alert(lane.contract, 102))])
    lane.days(range(103, 105))
    trainers = [lane.trainer(tmp_path / f"trainer-{number}.log") for number in range(2)]
    started = 2

    def ended(runs: int) -> bool:
        nonlocal started
        for trainer in trainers:
            if not trainer.running():  # as the supervisor does
                trainer.launch()
                started += 1
        return len(lane.ended()) >= runs

    try:
        until(lambda: {"training"} <= {record["state"] for record in lane.runs()})
        kafka.kill()
        kafka.start()
        until(lambda: ended(1))
        # And the next one, by whichever is in its place now.
        lane.days(range(105, 107))
        lane.write([lane.record("Alert", alert(lane.contract, 106, "quality-drop"))])
        lane.days(range(107, 110))
        kafka.kill()
        kafka.start()
        until(lambda: ended(2))
    finally:
        for trainer in trainers:
            trainer.stop(10)
    states = Counter((record["run_id"], record["state"]) for record in lane.runs())
    runs = {run for run, _ in states}
    assert len(runs) == 2
    assert all(states[run, "planned"] == states[run, "published"] == 1 for run in runs)
    assert [record["version"] for record in lane.ended()] == [1, 2]
    summarize(
        f"trainer: the broker killed twice under two instances, 2 runs, each once; {started} processes in all"
    )
