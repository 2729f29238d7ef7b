"""The account that the tests under tests/chaos rest on sees what is wrong, in transactions made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.support.account import Account, account
from tests.support.lane import HandmadeLane
from tests.support.observer import Observer

from tailrace.connection import Connection
from tailrace.local.kafka import LocalKafka
from tailrace.streaming.records import RecordRef

_NAMES = count(1)


class Bench:
    """A lane of its own with three requests in partition 0, and what a scorer might do with them."""

    def __init__(self, stack: Connection, kafka: LocalKafka) -> None:
        self._model = f"account-{next(_NAMES)}"
        self._kafka, self._stack = kafka, stack
        self.lane = HandmadeLane(stack, self._model)
        self.requests = self.lane.write([self.lane.request(number, partition=0) for number in range(3)])
        self._group = Consumer({**stack.kafka, "group.id": self._model})
        self._producer = Producer({**stack.kafka, "transactional.id": self._model})
        self._producer.init_transactions(30)

    def close(self) -> None:
        self._group.close()
        del self._producer

    def batch(self, end: int, *answers: tuple[RecordRef, dict[str, object]], abort: bool = False) -> None:
        """One transaction: answers to requests, with what is otherwise about them; commits offsets up to ``end``."""
        self._producer.begin_transaction()
        for source, changed in answers:
            made = self.lane.prediction(source, self.lane.lane.predictions, **changed)
            self._producer.produce(made.topic, made.value, made.key, 0)
        place = TopicPartition(self.lane.lane.requests, 0, end)
        self._producer.send_offsets_to_transaction([place], self._group.consumer_group_metadata())
        self._producer.abort_transaction() if abort else self._producer.commit_transaction()

    def account(self) -> Account:
        observer = Observer(self._stack.kafka, self._stack.registry, self._stack.registry_auth)
        logs = self._kafka.data / "logs"
        names = ("requests", "predictions", "dead-letters")
        since = {place: 0 for name in names for place in observer.ends(f"{self._model}.{name}")}
        return account(observer, logs, self._model, self._model, since)


@pytest.fixture
def bench(stack: Connection, kafka: LocalKafka) -> Iterator[Bench]:
    with closing(Bench(stack, kafka)) as made:
        yield made


def test_what_is_in_order(bench: Bench) -> None:
    first, second, third = bench.requests
    bench.batch(2, (first, {}), (second, {}))
    bench.batch(3, (third, {}), abort=True)
    bench.batch(3, (third, {}))
    account = bench.account()
    assert not account.wrong, account.examples
    assert (len(account.requests), account.answers, account.aborted) == (3, 3, 1)
    assert account.recovery_s(0) == account.committed_ms[tuple(first)] / 1000


@pytest.mark.parametrize(
    ("batches", "wrong"),
    [
        ([(2, (0, {}), (1, {})), (3,)], {"lost", "torn"}),
        ([(2, (0, {}), (1, {})), (3, (2, {}), (1, {}))], {"twice", "torn"}),
        ([(0, (0, {})), (3, (1, {}), (2, {}))], {"torn"}),
        ([(1, (0, {}), (1, {})), (3, (2, {}))], {"torn"}),
        ([(3, (0, {}), (1, {}), (2, {})), (1,)], {"torn"}),
        ([(2, (0, {}), (1, {}), (2, {}))], {"torn"}),
        ([(3, (0, {}), (1, {"version": 2}), (2, {}))], {"mixed", "misrouted"}),
    ],
    ids=[
        "lost",
        "twice",
        "without its offset",
        "before its offset",
        "offsets went back",
        "not committed",
        "mixed",
    ],
)
def test_what_is_wrong(
    bench: Bench, batches: list[tuple[int, *tuple[tuple[int, dict[str, object]], ...]]], wrong: set[str]
) -> None:
    for end, *answers in batches:
        bench.batch(end, *((bench.requests[number], changed) for number, changed in answers))
    account = bench.account()
    assert account.wrong.keys() == wrong, account.examples
