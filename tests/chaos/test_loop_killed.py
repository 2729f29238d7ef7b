"""The services of the loop are killed under load; what they make of a log is what undisturbed ones made of it.

One project lives the demo's story undisturbed: loans, labels days later, a change of the world, a training run, a
challenger in shadow, a promotion. A second one is fed what the first one's scorers answered and what came to be known,
while its joiner, drift, evaluator, trainer, rollout and broker are killed. Outcomes, reports, alerts, training runs and
rollout steps must then be the same, ids and numbers.

``make test`` runs the short form, ``make chaos`` (TAILRACE_CHAOS=long) the long one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from tests.support.loop_run import (
    DAY_MS,
    Feeder,
    Loop,
    copy,
    difference,
    is_prediction,
    loans,
    logged,
    results,
    running_loops,
)

from tailrace.demo.timeline import Timeline

LONG = os.environ.get("TAILRACE_CHAOS") == "long"
SEED = int(os.environ.get("TAILRACE_SEED", random.SystemRandom().randrange(2**31)))
SERVICES = ("joiner", "drift", "evaluator", "trainer", "rollout")
KILLS, BROKER_KILLS = (5, 2) if LONG else (2, 1)
LOANS_A_DAY = 60 if LONG else 36
RATE = 400 if LONG else 1_500
PAUSES_S = (0.2, 1.5) if LONG else (0.1, 0.8)


def lived(loop: Loop, plan: Timeline) -> None:
    """The story, as fast as the loop follows."""
    feeder = Feeder(loop, plan)
    feeder.until(plan.change_ms + 65 * DAY_MS)
    loop.project.wait(lambda: 2 in loop.rollouts()[-1]["shadow"], "version 2 in shadow")
    # The shadow scorer hears of it a moment later, and by then the rest could have been asked and answered without it.
    days = iter(range(66, 76))
    while not loop.records("credit.shadow-predictions"):
        feeder.until(plan.change_ms + next(days) * DAY_MS)
        time.sleep(1)
    feeder.until(plan.change_ms + 118 * DAY_MS)
    loop.project.wait(lambda: loop.rollouts()[-1]["champion"] == 2, "version 2 to become champion")
    feeder.until(plan.end_ms)
    # Time goes on until the last window has been judged for the last time, and nobody waits for labels.
    feeder.until(plan.end_ms + 60 * DAY_MS)


def final_results(loop: Loop, expected: dict[str, Any] | None = None, timeout: float = 60) -> dict[str, Any]:
    """The results once nothing moves any more; where they are to be others, once they are, or time is up."""
    deadline = time.monotonic() + timeout
    while True:
        loop.stand_still(2.0)
        reached = results(loop)
        if expected is None or reached == expected or time.monotonic() > deadline:
            return reached


class Killer(threading.Thread):
    """Kills everything as often as it is to be killed, in an order and at moments by chance."""

    def __init__(self, loop: Loop, chance: random.Random) -> None:
        super().__init__(daemon=True)
        self._loop, self._chance = loop, chance
        self.kills: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            victims = [*SERVICES * KILLS, *["kafka"] * BROKER_KILLS]
            self._chance.shuffle(victims)
            for name in victims:
                time.sleep(self._chance.uniform(*PAUSES_S))
                self._loop.kill(name)
                self.kills.append(name)
        except BaseException as error:
            self.error = error


@pytest.mark.timeout(900)
def test_whatever_is_killed_the_results_are_those_of_an_undisturbed_run(
    tmp_path: Path, summarize: Callable[[str], None]
) -> None:
    print(f"\nseed {SEED} (TAILRACE_SEED={SEED} replays the moments)")
    plan = loans(LOANS_A_DAY)
    with running_loops([tmp_path / "undisturbed", tmp_path / "killed"], plan) as (undisturbed, killed):
        lived(undisturbed, plan)
        expected = final_results(undisturbed)
        for kind, of_a_kind in expected.items():
            assert of_a_kind, f"the undisturbed loop has no {kind}"
        records = logged(undisturbed)
        decode = undisturbed.observer().decode
        revision_of = {r.at: decode(r.value)["rollout_revision"] for r in records if is_prediction(r)}
        assert_verified(undisturbed, aside=())

        began = time.monotonic()
        killer = Killer(killed, random.Random(SEED))
        killer.start()
        copy(records, revision_of, killed, RATE)
        killer.join(300)
        assert killer.error is None, killer.error
        actual = final_results(killed, expected)
        kills = Counter(killer.kills)
        killing = ", ".join(f"{name} {kills[name]}" for name in sorted(kills))
        made = ", ".join(f"{len(of_a_kind)} {kind}" for kind, of_a_kind in actual.items())
        seconds = time.monotonic() - began
        summarize(
            f"loop: {killing} kills over {len(records)} records in {seconds:.0f} s; {made} (seed {SEED})"
        )
        assert not difference(expected, actual), f"{difference(expected, actual)}\n{killed.project.logs()}"
        # The answers were copied, the requests were not.
        assert_verified(killed, aside=("unasked", "shadow-unasked"))


def assert_verified(loop: Loop, aside: Collection[str]) -> None:
    """The accounts from the topics, and rows = events."""
    problems = loop.project.json("verify", check=False)["problems"]
    assert not [problem for problem in problems if problem["check"] not in aside]


def test_the_comparison_sees_what_is_missing_more_and_otherwise() -> None:
    one = {"reports": {"a": {"n": 1}, "b": {"n": 2}}}
    assert difference(one, {"reports": {"a": {"n": 1}, "b": {"n": 2}}}) == ""
    assert "only undisturbed: 1" in difference(one, {"reports": {"a": {"n": 1}}})
    assert "only killed: 1" in difference(one, {"reports": {**one["reports"], "c": {"n": 3}}})
    assert "b: n: 2 / 3" in difference(one, {"reports": {"a": {"n": 1}, "b": {"n": 3}}})
