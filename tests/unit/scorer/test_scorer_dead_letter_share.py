"""Dead letters as a share of a partition's requests: by every 1,000 of them, whoever owns the partition."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.scoring import CONTRACT, NOW, REQUEST, Bench, Publisher

from tailrace.scorer.serving.handover import Handover
from tailrace.streaming.backends.abstract import Committed
from tailrace.streaming.processor import Output
from tailrace.streaming.records import Record, TopicPartition
from tailrace.streaming.watermark_records import watermark_record

LEVELS = "service_levels: {answered: 99%}\nalerts: {silence: 1h, severe: [dead-letter share over 50%]}\n"


class Lane:
    """A scorer whose partition goes from owner to owner."""

    def __init__(self, sections: str = LEVELS, role: Any = "champion") -> None:
        self.publisher = Publisher()
        self.control = [
            self.publisher.contract(CONTRACT + sections),
            self.publisher.manifest(1),
            self.publisher.rollout(champion=1, shadow=[1]),
        ]
        self.good = self.publisher.request_value(REQUEST)
        self.role = role
        self.sent = 0
        self.metadata = ""
        self.bench = self.owner()

    def owner(self) -> Bench:
        bench = Bench(self.publisher.logic(self.role), self.publisher, {0: self.metadata})
        bench.control(*self.control)
        bench._ends["credit.requests", 0] = self.sent
        return bench

    def ask(self, count: int, bad: int = 0, at: int = NOW) -> list[dict[str, Any]]:
        """So many requests, the first of them bad; the alerts."""
        values = [b"{}"] * bad + [self.good] * (count - bad)
        messages = [self.bench.message(Record("credit.requests", value), at) for value in values]
        output = self.bench.process(messages)
        self.sent += count
        self.metadata = next(iter(output.metadata_of.values()), output.metadata)
        return self.bench.alerts(output)


def test_more_dead_letters_than_the_contract_bears_are_told_and_so_is_their_end() -> None:
    lane = Lane()
    # P(17 or more of 1,000 at 1 %) is 0.027, of 18 or more 0.014, of 19 or more 0.0067.
    assert lane.ask(1_000, bad=18) == []
    (raised,) = lane.ask(1_000, bad=19)
    assert (raised["kind"], raised["state"], raised["severity"]) == ("dead-letter-share", "raised", "warning")
    assert (raised["model"], raised["version"], raised["service"]) == ("credit", None, "scorer")
    detail = {"found": "19", "requests": "1000", "first": "credit.requests/0/1000"}
    assert raised["detail"].items() >= detail.items()
    assert float(raised["detail"]["level"]) == pytest.approx(0.01)
    assert raised["source"] == {"topic": "credit.requests", "partition": 0, "offset": 1999}
    assert lane.ask(1_000, bad=500) == []  # the silence
    (again,) = lane.ask(1_000, bad=500, at=NOW + 3_600_000)
    assert lane.ask(1_000, bad=12) == []
    (resolved,) = lane.ask(1_000, bad=10)
    assert {raised["alert_id"]} == {again["alert_id"], resolved["alert_id"]}
    assert resolved["state"] == "resolved"


def test_what_was_counted_goes_to_the_next_owner() -> None:
    lane, alone = Lane(), Lane()
    alerts = []
    for bad in (0, 200, 0, 0, 30, 0, 0, 0):
        alerts += lane.ask(300, bad)
        lane.bench = lane.owner()
    expected = []
    for bad in (0, 200, 0, 0, 30, 0, 0, 0):
        expected += alone.ask(300, bad)
    assert alerts == expected
    assert [alert["state"] for alert in alerts] == ["raised"]
    assert "[400,0,2000," in lane.metadata  # of 2,400 requests


def test_the_strictest_of_what_is_said_decides_how_severe_it_is() -> None:
    (raised,) = Lane("alerts: {severe: [dead-letter share over 1%]}\n").ask(1_000, bad=100)
    assert raised["severity"] == "severe"


def test_where_the_contract_says_nothing_nothing_is_counted() -> None:
    lane = Lane("")
    assert lane.ask(1_000, bad=900) == []
    output = lane.bench.requests(REQUEST)
    assert output.metadata_of == {}


def test_a_shadow_scorer_counts_none() -> None:
    assert Lane(role="shadow").ask(1_000, bad=900) == []


def test_marks_are_no_requests_and_what_waits_is_not_counted_yet() -> None:
    bench = Lane().bench
    made = watermark_record("credit.requests", 0, NOW)
    output = bench.process([bench.message(made), bench.message(Record("credit.requests", b"{}"))])
    assert counted(output, 0) == [1, 1]
    waits = TopicPartition("credit.requests", 1)
    bench.logic.assigned({waits: Committed(0, Handover(rollouts=99).to_metadata())})
    output = bench.process([bench.message(Record("credit.requests", b"{}", partition=1))])
    assert output.paused.keys() == {waits}
    assert counted(output, 1) == [0, 0]


def counted(output: Output, partition: int) -> list[Any]:
    """Requests and dead letters, as the next owner of a partition hears of them."""
    left = output.metadata_of[TopicPartition("credit.requests", partition)]
    return list(Handover.from_metadata(left).count[:2])
