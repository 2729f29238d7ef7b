"""Scorers, and what they stand on, are hurt under load; an independent observer then keeps the account.

``make test`` runs the short form, ``make chaos`` (TAILRACE_CHAOS=long) the long one, which writes what it found into
docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from tests.support import reliability
from tests.support.account import Account, nearest_rank
from tests.support.kafka_files import producer_ids
from tests.support.observer import Reference
from tests.support.poison import Poison, loan, poisons
from tests.support.scored import PARTITIONS, RATE, Load, Scored, scored_project
from tests.support.tcp_proxy import COMMITTING, Harm

from tailrace.avro.registry import RegistryClient
from tailrace.client import Client
from tailrace.client.errors import DeliveryFailed
from tailrace.streaming.backends.kafka.clients import sending

LONG = os.environ.get("TAILRACE_CHAOS") == "long"
SEED = int(os.environ.get("TAILRACE_SEED", random.SystemRandom().randrange(2**31)))
RECOVERED_S = 15.0 if LONG else 30.0
"""The aim, for a machine that does nothing else; the short form is run on all sorts, and is about the account."""
REQUESTS = "credit.requests"
LIMIT = 1024 * 1024
AWAY_S = 4.0
pytestmark = pytest.mark.timeout(900 if LONG else 240)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scored]:
    with scored_project(tmp_path_factory.mktemp("scored")) as running:
        yield running


@dataclass
class Trial:
    """One thing that hurts, a number of times.

    Attributes:
        chance: decides when and how, by the seed.
        moments: when it hurt, as ``time.time()`` says.
    """

    scored: Scored
    what: str
    times: int
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    moments: list[float] = field(default_factory=list)
    outages: list[float] = field(default_factory=list)
    """Where the broker was away: for how long, by moment. How fast it starts is the machine's affair."""
    account: Account = field(init=False)

    def rounds(self) -> Iterator[int]:
        """Counts them, aloud."""
        for number in range(self.times):
            if LONG:
                print(f"{time.strftime('%H:%M:%S')} {self.what}: {number} of {self.times}", flush=True)
            yield number

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.chance.uniform(least, most))


Trials = Callable[[str, int, int], AbstractContextManager[Trial]]
"""What hurts, and how often in the long and in the short form."""


@pytest.fixture
def trial(scored: Scored, summarize: Callable[[str], None]) -> Trials:
    @contextmanager
    def run(what: str, long: int, short: int) -> Iterator[Trial]:
        """Load while the block runs; then the account, which has to be in order."""
        print(f"\nseed {SEED} (TAILRACE_SEED={SEED} replays what chance decides)")
        mine = Trial(scored, what, long if LONG else short)
        scored.caught_up()
        since = scored.ends()
        load = Load(scored.project)
        load.start()
        try:
            yield mine
        finally:
            load.stop()
            scored.alone()
        scored.caught_up()
        account = mine.account = scored.account(since)
        recoveries = [account.recovery_s(moment) for moment in mine.moments]
        row = reliability.row(what, SEED, mine.times, account, recoveries)
        summarize(" | ".join(row))
        if LONG:
            reliability.write(row)
        assert not account.wrong, f"{account.wrong} {account.examples}\n{scored.project.logs()}"
        assert len(account.requests) >= load.sent
        outages = mine.outages or [0.0] * len(recoveries)
        after = [recovery - outage for recovery, outage in zip(recoveries, outages, strict=True)]
        if after:
            assert nearest_rank(after, 0.99) <= RECOVERED_S, list(zip(recoveries, outages, strict=True))

    return run


def test_broker_killed(scored: Scored, trial: Trials) -> None:
    """First of all, while there is little of what the groups have committed: here nobody tidies it up."""
    with trial("broker killed", 10, 2) as hurt:
        for _ in hurt.rounds():
            hurt.pause(0.2, 2.0)
            hurt.moments.append(time.time())
            scored.kafka.kill()
            scored.kafka.start()
            hurt.outages.append(time.time() - hurt.moments[-1])
            scored.caught_up()


def test_scorer_killed(scored: Scored, trial: Trials) -> None:
    """While versions are swapped, and a canary answers beside the champion."""
    ended = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        for champion, former in cycle([(2, 1), (1, 2)]):
            for step in (
                partial(scored.promote, champion),
                partial(scored.canary, former, 0.2),
                partial(scored.canary, former, 0.5),
            ):
                if ended.wait(1.0):
                    return
                step()
            swaps += 1

    with trial("scorer killed, swaps and canary", 50, 5) as hurt:
        swapping = threading.Thread(target=swap, daemon=True)
        swapping.start()
        for number in hurt.rounds():
            hurt.pause(0.2, 2.0)
            moment = scored.kill("scorer")
            if number % 5 != 4:  # the next one hits the successor as it starts
                scored.caught_up()
                hurt.moments.append(moment)
        scored.caught_up()
        ended.set()
        swapping.join(60)
    assert swaps >= (10 if LONG else 1)


def test_scorer_stalled(scored: Scored, trial: Trials) -> None:
    """Past the time that it has for a batch, and its session; it wakes up and writes nothing of what it had in hand."""
    with trial("scorer stopped past max.poll.interval", 20, 1) as hurt:
        stalled = scored.scorer("stalled", TAILRACE_BATCH_SECONDS="6")
        stood: list[tuple[float, float]] = []
        for _ in hurt.rounds():
            scored.members(2)
            hurt.pause(0.2, 1.0)
            stopped = time.time()
            stalled.send(signal.SIGSTOP)
            time.sleep(6.5)
            scored.members(1)
            scored.caught_up()
            hurt.moments.append(stopped)
            stood.append((stopped, time.time()))
            stalled.send(signal.SIGCONT)
        scored.members(2)
        stalled.send(signal.SIGTERM)
        scored.members(1)
    ids = producer_ids(scored.logs, stalled.transactional_id)
    by_zombie = [
        source
        for source, producer in hurt.account.producers.items()
        if producer in ids
        for stopped, went_on in stood
        if hurt.account.requests[source] < stopped * 1000
        and hurt.account.committed_ms[source] > went_on * 1000
    ]
    assert ids & set(hurt.account.producers.values()), "it never answered anything"
    assert not by_zombie


def test_scorers_come_and_go(scored: Scored, trial: Trials) -> None:
    with trial("1 to 4 to 1 scorers", 20, 1) as hurt:
        for number in hurt.rounds():
            others = [scored.scorer(f"more-{n}") for n in range(3)]
            scored.members(4)
            hurt.pause(0.2, 1.0)
            hurt.chance.shuffle(others)
            for other in others:
                hurt.moments.append(time.time())
                other.send(hurt.chance.choice([signal.SIGTERM, signal.SIGKILL]))
            if number % 4 == 3:
                hurt.moments.append(scored.kill("scorer"))
            scored.members(1)


def test_connection_cut_while_it_commits(scored: Scored, trial: Trials) -> None:
    """Or delayed; before the broker has the request, when only the client does not know its answer, or so that the
    request arrives after the client has made it again.
    """
    proxy = scored.kafka.proxy
    with trial("connection cut or delayed in a commit", 100, 6) as hurt:
        proxied = scored.scorer("proxied", KAFKA_BOOTSTRAP_SERVERS=proxy.address)
        scored.members(2)
        ways = [("before", False), ("before", True), ("after", False), ("after", True), ("astray", True)]
        for number in hurt.rounds():
            moment, delayed = ways[number % len(ways)]
            delay = hurt.chance.choice([0.2, 1.0, 3.0, 5.0]) if delayed else None
            # Now and then for so long that the outcome cannot be waited for.
            away = 17.0 if LONG and number % 50 == 48 else 0.0
            harm = proxy.harm(Harm((hurt.chance.choice(COMMITTING),), moment, delay, away))
            assert harm.done.wait(60), f"no request of kind {harm.api_keys} came by\n{scored.project.logs()}"
            hurt.moments.append(harm.at)
            scored.caught_up()
            if away:
                scored.members(2)
        proxied.send(signal.SIGTERM)
        scored.members(1)


def test_promoted_and_rolled_back_again_and_again(scored: Scored, trial: Trials) -> None:
    times, seconds = (100, 60.0) if LONG else (10, 6.0)
    with trial("promotions and rollbacks in a minute", times, times) as hurt:
        if scored.rollout()["champion"] != 1:
            scored.promote(1)
        began = time.monotonic()
        for number in hurt.rounds():
            time.sleep(max(0.0, began + number * seconds / times - time.monotonic()))
            scored.rollback() if number % 2 else scored.promote(2)
        took = time.monotonic() - began
    revisions = {p["rollout_revision"] for p in hurt.account.predictions.values()}
    print(f"{times} steps in {took:.0f} s, answers under {len(revisions)} revisions")
    assert len(revisions) >= times // 2


def test_poisoned(scored: Scored, trial: Trials) -> None:
    """One request in a hundred cannot be read, or breaks the contract: it goes alone."""
    registry = RegistryClient(scored.connection.registry, scored.connection.registry_auth)
    requests, labels = (registry.latest(f"credit.{name}-value") for name in ("requests", "labels"))
    assert requests is not None
    assert labels is not None
    kinds = list(poisons(requests.id, requests.schema, labels.id))
    sent: dict[Reference, Poison] = {}
    with trial("poison, one in a hundred", 5 * len(kinds), len(kinds)) as hurt, producing(scored) as producer:

        def delivered(kind: Poison, error: object, message: Any) -> None:
            assert error is None, error
            sent[message.topic(), message.partition(), message.offset()] = kind

        for number in hurt.rounds():
            time.sleep(100 / RATE if LONG else 0.1)  # the short form is worse than one in a hundred
            kind = kinds[number % len(kinds)]
            at = hurt.chance.randrange(PARTITIONS)
            producer.produce(REQUESTS, kind.value, b"L1", partition=at, on_delivery=partial(delivered, kind))
            producer.poll(0)
    letters = {}
    for record in scored.observer.read("credit.dead-letters"):
        headers = {name.removeprefix("tailrace-"): text.decode() for name, text in record.headers.items()}
        letters[headers["topic"], int(headers["partition"]), int(headers["offset"])] = (record.value, headers)
    for at, kind in sent.items():
        value, headers = letters[at]
        assert (value, headers["code"], headers.get("field")) == tuple(kind), headers
        assert headers["reason"]
    assert len(sent) == hurt.times
    answered = hurt.account.predictions.keys()
    assert not answered & sent.keys()
    assert answered | sent.keys() == hurt.account.requests.keys(), "a good request went to the dead letters"


def test_requests_of_all_sizes(scored: Scored, trial: Trials) -> None:
    """What is too large is refused where it is sent; what is just small enough is answered, by more than its size."""
    large: dict[Reference, dict[str, Any]] = {}
    refused: list[int] = []

    def delivered(row: dict[str, Any], error: KafkaError | None, message: Any) -> None:
        if error is None:
            large[message.topic(), message.partition(), message.offset()] = row
        else:
            refused.append(error.code())

    with (
        trial("requests of 0.99, 1.01 and 10 times the limit", 30, 3) as hurt,
        producing(scored) as producer,
        Client(scored.connection) as client,
    ):
        for number in hurt.rounds():
            size = int((0.99, 1.01, 10)[number % 3] * LIMIT)
            row = loan()
            # The key stands in an answer three times, what is replaced twice.
            row[("loan_id", "purpose")[number // 3 % 2]] = "x" * (size - len(json.dumps(row)))
            hurt.moments.append(time.time())
            value = json.dumps(row).encode()
            producer.produce(REQUESTS, value, b"L1", on_delivery=partial(delivered, row))
            assert producer.flush(30) == 0
            if size > LIMIT:
                del row["request_id"]
                with pytest.raises(DeliveryFailed, match="too large"):
                    client.send("credit", row)
            hurt.pause(0.2, 0.5)
    assert refused == [KafkaError.MSG_SIZE_TOO_LARGE] * (hurt.times * 2 // 3)
    assert len(large) == hurt.times // 3
    for at, row in large.items():
        request = hurt.account.predictions[at]["request"]
        assert [request[name] for name in ("loan_id", "purpose")] == [row["loan_id"], row["purpose"]]


def test_sink_killed(scored: Scored, trial: Trials) -> None:
    with trial("sink killed", 25, 3) as hurt:
        for _ in hurt.rounds():
            hurt.pause(0.2, 1.5)
            scored.kill("sink")
    rows_are_events(scored)


def test_registry_and_clickhouse_away(scored: Scored, trial: Trials) -> None:
    """They stand still, so that nobody is refused and everybody waits; then they are killed as well."""
    with trial("registry and ClickHouse away", 3, 1) as hurt:
        for _ in hurt.rounds():
            hurt.pause(0.2, 1.0)
            hurt.moments.append(time.time())
            away = [scored.project.pid(name) for name in ("registry", "clickhouse")]
            for pid in away:
                os.kill(pid, signal.SIGSTOP)
            hurt.pause(AWAY_S, 20.0 if LONG else AWAY_S)
            for pid in away:
                os.kill(pid, signal.SIGKILL)
    assert hurt.account.waits_s()[-1] < AWAY_S, "scoring waited for what it does not need"
    rows_are_events(scored)


def test_in_the_end_the_books_agree(scored: Scored) -> None:
    rows_are_events(scored)
    verified = scored.project.json("verify", check=False)
    assert verified["ok"], verified


@contextmanager
def producing(scored: Scored) -> Iterator[Producer]:
    """Writes what the client would refuse to write."""
    options = {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.max.bytes": 20 * LIMIT,
        "log_level": 0,
    }
    with sending({**scored.connection.kafka, **options}) as producer:
        yield producer
        assert producer.flush(30) == 0


def rows_are_events(scored: Scored) -> None:
    """The rows of the sink are the events of the topics: as many, and each of them once."""
    events = len([r for r in scored.observer.read("credit.predictions") if r.value is not None])
    sql = "SELECT count() AS n, uniqExact(_topic, _partition, _offset) AS u FROM credit_predictions"
    row = {}

    def stored() -> bool:
        nonlocal row
        asked = scored.project.run("query", sql, "--json", check=False)
        if asked.returncode != 0:  # ClickHouse has been killed a moment ago
            return False
        row = json.loads(asked.stdout)[0]
        return int(row["n"]) == events

    scored.project.wait(stored, f"{events} rows")
    assert (int(row["n"]), int(row["u"])) == (events, events)
