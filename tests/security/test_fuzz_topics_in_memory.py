"""Door: whoever may write to a topic. Hostile records of every kind on every topic, while a small loop runs in memory,
end no service and stop no lane; signed by stolen keys they may stop a lane, and end no service.

A failing seed is named, and played alone with ``TAILRACE_SEED``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.hostile_records import Mutator
from tests.support.hostile_signers import Forger
from tests.support.simulation import LONG
from tests.support.small_loop import LANE, SERVICES, SmallLoop

from tailrace.contracts.records import lanes
from tailrace.streaming.records import Record
from tailrace.streaming.watermark_records import watermark_time

GIVEN = os.environ.get("TAILRACE_SEED")
SEEDS = [int(GIVEN)] if GIVEN else list(range(40 if LONG else 2))
ROUNDS, HOSTILE = 12, 150


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def samples(loop: SmallLoop) -> dict[str, list[Record]]:
    """What honest services and people wrote, by topic."""
    return {
        topic: [
            Record(topic, m.value(), m.key(), m.headers() or ())
            for m in loop.log.messages(topic)
            if m.value() is not None
        ]
        for topic in loop.log.topics()
    }


def honest(loop: SmallLoop, rounds: int) -> list[str]:
    asked = []
    for _ in range(rounds):
        names = loop.ask(12)
        asked += names
        loop.run(2)
        loop.log.pass_time(700)
        loop.label(names)
        loop.act(names[:3])
        loop.run(2)
    return asked


def attack(loop: SmallLoop, mutator: Mutator, forger: Forger) -> None:
    """Rounds of hostile records on all topics, honest ones between them, and now and then a restart."""
    for number in range(ROUNDS):
        for _ in range(HOSTILE):
            topic = loop.rng.choice(sorted(loop.log.topics()))
            loop.write(forger.signed(mutator.record(topic, loop.log.now_ms)))
        honest(loop, 1)
        if number % 4 == 3:
            loop.restart(loop.rng.choice(SERVICES))
        assert not loop.ended, ended(loop)
    loop.trainer()


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_records_end_no_service_and_stop_no_lane(seed: int) -> None:
    print(f"seed {seed}: play it alone with TAILRACE_SEED={seed}")
    loop = SmallLoop(seed)
    honest(loop, 6)
    mutator = Mutator(seed, loop.publisher.codec, samples(loop))
    attack(loop, mutator, Forger(seed, loop.publisher.control.by))
    loop.log.pass_time(7_200_000)  # what was marked ahead, as far as that is let in, has come
    after = honest(loop, 6)
    for _ in range(40):  # the members of the groups have to join again
        loop.run(10)
        # The labels of the last round wait for the stream time of all partitions.
        if set(after) <= answered(loop) and set(after[:12]) <= joined(loop):
            break
    assert not loop.ended, ended(loop)
    assert set(after) <= answered(loop)
    assert set(after[:12]) <= joined(loop)


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_records_by_stolen_keys_end_no_service(seed: int) -> None:
    print(f"seed {seed}: play it alone with TAILRACE_SEED={seed}")
    loop = SmallLoop(seed)
    honest(loop, 6)
    mutator = Mutator(seed, loop.publisher.codec, samples(loop))
    attack(loop, mutator, Forger(seed, loop.publisher.control.by, stolen=True, revision=loop.revision))
    follows = loop.revision(lanes.ROLLOUTS)
    loop.write(loop.publisher.rollout(follows=follows, champion=1, evidence={"sequence": "abc"}))
    for name in (*SERVICES, "sink"):
        loop.restart(name)
    honest(loop, 6)
    assert not loop.ended, ended(loop)


def answered(loop: SmallLoop) -> set[str]:
    return {event.get("request_id", "") for event in events(loop, LANE.predictions)}


def joined(loop: SmallLoop) -> set[str]:
    outcomes = events(loop, LANE.outcomes)
    return {o["prediction"]["request_id"] for o in outcomes if o.get("state") == "labelled"}


def events(loop: SmallLoop, topic: str) -> list[dict[str, Any]]:
    records = []
    for message in loop.log.messages(topic):
        if watermark_time(message) is None:
            try:
                records.append(loop.publisher.codec.decode(message.value()).record)
            except Exception:  # a hostile one
                continue
    return records


def ended(loop: SmallLoop) -> str:
    (name, error), *_ = loop.ended.items()
    trace = error.__traceback__
    lines = []
    while trace is not None:
        lines.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{name} ended by {error!r}\n  " + "\n  ".join(lines[-6:])
