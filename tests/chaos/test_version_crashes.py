"""A version that is a native crash is promoted under load: the processes that die, who answers, and how soon."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster import LANE, Cluster, Traffic, running_cluster
from tests.support.waiting import until

from tailrace.control.commands import ask, rollouts
from tailrace.local.ports import free_port
from tailrace.local.process import Process
from tailrace.models.rollout_state.fold import RolloutState

CRASHING = 2
PAUSES_S = (0.0, 0.25, 0.5, 1.0)
"""What `tailrace up` waits before it starts a service once more that does not stay up."""


class Supervisor(threading.Thread):
    """Starts the crashing scorer again whenever it ends, as `tailrace up` does."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        env = cluster.env | {
            "TAILRACE_HEALTH_PORT": str(free_port()),
            "TAILRACE_INSTANCE": "scorer",
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
            ),
        }
        command = [sys.executable, "-m", "tests.support.crashing_scorer", str(CRASHING)]
        self.process = Process(command, cluster.home / "crashing-scorer.log", env)
        self.ended: list[tuple[float, int | None]] = []
        self.stopping = threading.Event()
        self.process.launch()

    def run(self) -> None:
        while True:
            status = self.process.wait()
            if self.stopping.wait(PAUSES_S[min(len(self.ended), 3)]):
                return
            self.ended.append((time.time(), status))
            self.process.launch()

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.process.stop(10)
        self.join()


def test_a_version_that_crashes_twice_is_quarantined_and_the_one_before_it_answers(
    tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    with running_cluster(tmp_path, "rollout") as cluster, Supervisor(cluster) as supervisor:

        def state() -> RolloutState:
            return rollouts(cluster.connection).state("credit")

        cluster.publish(1)
        until(lambda: state().champion == 1, "the first version is let in")
        cluster.publish(CRASHING, "forest")
        until(lambda: CRASHING in state().shadow, "the second is let in")
        answers = cluster.answering()
        with Traffic(cluster) as traffic:
            until(answers, "version 1 answers")
            assert ask(cluster.connection, cluster.home, "promote", "credit", CRASHING).step is not None
            until(lambda: CRASHING in state().rolled_back, "it is taken back")
            revision = state().revision
            until(
                lambda: any(e["rollout_revision"] >= revision for e in answers()), "version 1 answers again"
            )
            until(lambda: traffic.count >= 300, "some more")
        asked = {s.at for s in cluster.observer.read(LANE.requests)}
        until(lambda: len(cluster.events()) >= len(asked), "everything is answered")
        seen = [s for s in cluster.observer.read(LANE.predictions) if s.value is not None]
        events = [(s.appended_ms, cluster.observer.decode(s.value)) for s in seen]
        alerts = [a for a in cluster.alerts() if a["kind"] == "version-quarantined"]
        letters = cluster.observer.read(LANE.dead_letters)
    sources = [tuple(event["source"].values()) for _, event in events]
    assert len(sources) == len(set(sources))
    assert set(sources) == asked
    assert letters == []
    crashes = [at for at, status in supervisor.ended if status == -signal.SIGSEGV]
    assert len(crashes) == len(supervisor.ended) == 2
    instead = [(at, event) for at, event in events if event["version"] == CRASHING]
    assert {(e["served_by"], e["served_cause"]) for _, e in instead} == {("previous", "quarantined")}
    (alert,) = alerts
    assert (alert["version"], alert["severity"]) == (CRASHING, "severe")
    waited = instead[0][0] / 1000 - crashes[0]
    assert waited < 30
    summarize(
        f"a version that crashes natively: the one before it answers {waited:.1f} s after the first crash"
    )
