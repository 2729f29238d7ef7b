"""Metrics by model, version and role: what is counted, when, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import REGISTRY
from tests.support.scoring import CONTRACT, NOW, REQUEST, Bench, Publisher

from tailrace.streaming.backends.memory.clock import MemoryClock
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Record
from tailrace.telemetry.metrics import BulkHistogram
from tailrace.testing.formula_model import Formula, formula_model

CHAIN = "guardrails: {score: {max: 0.9}, fallback: [{constant: 0.4}]}\n"


@pytest.fixture
def bench() -> Bench:
    publisher = Publisher()
    made = Bench(publisher.logic(), publisher)
    # A name of its own: metrics are the process's.
    contract = publisher.contract(CONTRACT + CHAIN)
    model = publisher.contracts["credit"][-1]
    made.control(
        contract,
        publisher.manifest(71, formula_model(model, 71, Formula(1))),
        publisher.manifest(72, formula_model(model, 72, Formula(2))),
        publisher.rollout(champion=71),
    )
    return made


def value(name: str, version: int = 71, **labels: str) -> float:
    facts = {"model": "credit", "version": str(version), "role": "champion", **labels}
    return REGISTRY.get_sample_value(f"tailrace_{name}", facts) or 0.0


def test_requests_actions_findings_and_fallbacks_are_counted_by_version(bench: Bench) -> None:
    names = ("requests_total", "latency_seconds_count")
    before = {name: value(name) for name in names}
    bench.requests(
        REQUEST,  # 0.38: refer
        REQUEST | {"debt_ratio": 0.0},  # 0.27: approve
        REQUEST | {"debt_ratio": 9.0},  # beyond 0.9: the constant, refer
        REQUEST | {"debt_ratio": Formula.poison},  # raises: the constant, refer
    )
    assert {name: value(name) - before[name] for name in names} == dict.fromkeys(names, 4.0)
    assert [value("actions_total", action=action) for action in ("refer", "approve", "refuse")] == [3, 1, 0]
    assert [value("guard_findings_total", guard=guard) for guard in ("score", "model")] == [1, 1]
    assert [value("fallbacks_total", cause=cause) for cause in ("score", "model", "off")] == [1, 1, 0]


def test_what_is_not_committed_is_not_counted(bench: Bench) -> None:
    before = value("requests_total")
    message = bench.message(Record("credit.requests", bench.publisher.request_value(REQUEST)))
    bench.logic.process([message], MemoryClock(MemoryLog(start_ms=NOW)))
    assert value("requests_total") == before


def test_latency_runs_from_the_append_to_the_commit(bench: Bench) -> None:
    bench.requests(REQUEST)
    total = value("latency_seconds_sum")
    message = bench.message(Record("credit.requests", bench.publisher.request_value(REQUEST)), NOW - 700)
    bench.process([message])
    assert value("latency_seconds_sum") - total == pytest.approx(0.7)
    assert value("latency_seconds_bucket", le="0.5") + 1 == value("latency_seconds_bucket", le="1.0")


def test_a_version_that_serves_no_more_is_forgotten(bench: Bench) -> None:
    bench.requests(REQUEST)
    assert value("requests_total") > 0
    bench.control(bench.publisher.rollout(champion=72))
    bench.requests(REQUEST)
    assert value("requests_total", 72) == 1
    for name in ("requests_total", "latency_seconds_count"):
        labels = {"model": "credit", "version": "71", "role": "champion"}
        assert REGISTRY.get_sample_value(f"tailrace_{name}", labels) is None
    assert REGISTRY.get_sample_value("tailrace_actions_total", {**labels, "action": "refer"}) is None


def test_a_histogram_of_many_values_is_what_it_is_of_each() -> None:
    histogram = BulkHistogram("test_bulk", "For this test.", ["of"], (1, 2, 5))
    histogram.observe(("a",), np.array([0.5, 1.0, 1.5, 7.0]))
    histogram.observe(("a",), np.array([2.0]))
    [family] = histogram.collect()
    samples = {(s.name, s.labels.get("le")): s.value for s in family.samples}
    assert samples == {
        ("test_bulk_bucket", "1.0"): 2,
        ("test_bulk_bucket", "2.0"): 4,
        ("test_bulk_bucket", "5.0"): 4,
        ("test_bulk_bucket", "+Inf"): 5,
        ("test_bulk_count", None): 5,
        ("test_bulk_sum", None): 12.0,
    }
    REGISTRY.unregister(histogram)
