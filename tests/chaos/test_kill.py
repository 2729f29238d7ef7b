"""Processes are killed at random moments under load; an independent observer then counts.

``make test`` runs the short form, ``make chaos`` (TAILRACE_CHAOS=long) the long one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.observer import Observer
from tests.support.project import Project, running_project

from tailrace.client import Client
from tailrace.demo.loans import simulate
from tailrace.kit.connection import connect

LONG = os.environ.get("TAILRACE_CHAOS") == "long"
SEED = int(os.environ.get("TAILRACE_SEED", random.SystemRandom().randrange(2**31)))
RATE = 400


class Load(threading.Thread):
    """Sends loans at a steady rate until stopped; counts what the broker has acknowledged."""

    def __init__(self, project: Project) -> None:
        super().__init__(daemon=True)
        self._client = Client(connect({}, project.home))
        self._stopping = threading.Event()
        self.sent = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            rows = simulate(rows=20_000, seed=7).drop("defaulted").to_dicts()
            began = time.monotonic()
            with self._client as client:
                while not self._stopping.is_set():
                    for _ in range(int((time.monotonic() - began) * RATE) - self.sent):
                        client.send("credit", rows[self.sent % len(rows)])
                        self.sent += 1
                    time.sleep(0.005)
                client.flush()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stopping.set()
        self.join(60)
        assert self.error is None, self.error


@pytest.fixture(scope="module")
def credit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with running_project(tmp_path_factory.mktemp("chaos")) as project:
        simulate(rows=2_000, seed=1).write_csv(project.path / "loans.csv")
        shipped = Path(__file__).resolve().parents[2] / "contracts" / "models"
        (project.path / "contracts" / "models").mkdir(parents=True, exist_ok=True)
        for file in shipped.glob("credit.*"):
            (project.path / "contracts" / "models" / file.name).write_bytes(file.read_bytes())
        project.run("apply")
        project.run("train", "credit", "--data", "loans.csv", "--where", "debt_ratio >= 0")
        wait_for(lambda: champion(project) == 1, 60, "version 1 to become champion", project)
        yield project


def wait_for(condition: Callable[[], bool], seconds: float, what: str, project: Project) -> float:
    """Seconds until the condition held; fails with the services' logs when it does not."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            pytest.fail(f"waited {seconds} s in vain for {what}\n{project.logs()}")
        time.sleep(0.1)
    return time.monotonic() - began


def champion(project: Project) -> Any:
    return next(
        (m["champion"] for m in (project.status().get("models") or []) if m["model"] == "credit"), None
    )


def observer(project: Project) -> Observer:
    addresses = connect({}, project.home)
    return Observer(addresses.bootstrap, addresses.registry)


def kill(project: Project, name: str) -> float:
    """SIGKILLs a service, wherever in its life it is; returns the seconds until a new process is healthy."""
    while True:
        before = service(project, name)
        try:
            os.kill(before["pid"], signal.SIGKILL)
            break
        except ProcessLookupError:  # it ended by itself, and its successor is not known yet
            time.sleep(0.1)
    return wait_for(
        lambda: (now := service(project, name))["pid"] != before["pid"] and now["healthy"],
        60,
        f"{name} to come back",
        project,
    )


def service(project: Project, name: str) -> dict[str, Any]:
    status = project.status()
    if name == "kafka":
        return dict(status["kafka"])
    return next(dict(s) for s in status["services"] if s["name"] == name)


def count_after(project: Project, load: Load) -> tuple[int, int]:
    """(lost, answered more than once) once everything has settled."""
    seen = observer(project)
    deadline = time.monotonic() + 60
    while True:
        requests, answers = seen.requests("credit"), seen.answers("credit")
        lost = requests - answers.keys()
        if not lost or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert len(requests) >= load.sent
    assert not (answers.keys() - requests), "answers to requests that nobody sent"
    return len(lost), sum(n > 1 for n in answers.values())


def rows_equal_events(project: Project) -> None:
    """The rows of the sink are the events of the topics: as many, and each of them once."""
    events = len([r for r in observer(project).read("credit.predictions") if r.value is not None])
    sql = "SELECT count() AS n, uniqExact(_topic, _partition, _offset) AS u FROM credit_predictions"
    deadline = time.monotonic() + 60
    while True:
        row = json.loads(project.run("query", sql, "--json").stdout)[0]
        if int(row["n"]) == events or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert (int(row["n"]), int(row["u"])) == (events, events)


@pytest.mark.parametrize(
    ("name", "times"),
    [("scorer", 50 if LONG else 10), ("sink", 25 if LONG else 5), ("kafka", 10 if LONG else 2)],
)
def test_killed_under_load_nothing_is_lost_or_doubled(
    credit: Project, name: str, times: int, tell: Callable[[str], None]
) -> None:
    print(f"\nseed {SEED} (TAILRACE_SEED={SEED} replays the moments)")
    chance = random.Random(SEED)
    load = Load(credit)
    load.start()
    recoveries = []
    for _ in range(times):
        time.sleep(chance.uniform(0.2, 1.5))
        recoveries.append(kill(credit, name))
    time.sleep(1)
    load.stop()
    lost, twice = count_after(credit, load)
    tell(
        f"{name}: {times} kills, {load.sent} requests, {lost} lost, {twice} answered twice; recovery "
        f"median {statistics.median(recoveries):.1f} s, longest {max(recoveries):.1f} s (seed {SEED})"
    )
    assert (lost, twice) == (0, 0), f"{lost} lost, {twice} answered twice\n{credit.logs()}"
    rows_equal_events(credit)
    verified = json.loads(credit.run("verify", "--json", check=False).stdout)
    assert verified["ok"], verified
