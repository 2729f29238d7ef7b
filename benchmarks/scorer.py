"""The scorer against the empty transactional loop: how much of what Kafka allows is left.

The whole path of the service runs, exactly once: decoding, checks, guards, the model, policy, prediction events.
The empty loop passes the same requests on as bytes, with the client library's defaults; another one does not wait for
more than 1 ms for others to send with, as services do; and one, which has `events` in its name, writes the bytes of an
event for each request. What the cases are, scorer_cases.py says.
"""

from __future__ import annotations

import json
import uuid
from functools import partial
from typing import Any

from benchmarks.empty_loop import PARTITIONS, empty_loop, exactly_once
from benchmarks.harness import Broker, Measured, arguments, broker, interleave, say, show, summary
from benchmarks.scorer_cases import CASES, Case, Prepared
from tailrace.runtime.memory import settle_memory
from tailrace.streaming.backends.kafka.topics import ensure_topics, lane_topics
from tailrace.streaming.records import PlainMessage
from tailrace.streaming.time_source import SystemClock
from tailrace.testing.memory_registry import MemoryRegistry

TRANSACTIONS = 200
"""In each run of small batches; of larger ones there are fewer."""
LEAST_RECORDS = 20_000


def filled(kafka: Broker, registry: MemoryRegistry, case: Case, records: int) -> str:
    """The topic of a case's requests."""
    ensure_topics(kafka.connection.kafka, lane_topics(case.lane.name, partitions=PARTITIONS))
    kafka.fill(case.lane.requests, case.requests(registry, records))
    return case.lane.requests


def empty(
    kafka: Broker, source: str, records: int, batch: int, value: bytes | None = None, linger_ms: float = 5
) -> Measured:
    target = kafka.topic("empty", PARTITIONS)
    try:
        return empty_loop(kafka, source, target, records, batch, value, linger_ms)
    finally:
        kafka.delete(target)


def event(registry: MemoryRegistry, case: Case) -> bytes:
    """The value of a prediction event of the case."""
    (request,) = case.requests(registry, 1)
    asked = PlainMessage(case.lane.requests, 0, 0, request, None, (), 1_700_000_000_000)
    answered = case.scorer(registry).process([asked], SystemClock()).records
    (value,) = (record.value for record in answered if record.value is not None)
    return value


def scoring(kafka: Broker, processor: Prepared, records: int, batch: int) -> Measured:
    return exactly_once(kafka, processor, f"scorer-{uuid.uuid4().hex[:8]}", records, batch)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=500_000, help="requests in a run, at most")
    parser.add_argument(
        "--batch", type=int, nargs="*", default=[100, 1_000, 5_000, 20_000], help="requests a commit"
    )
    given = parser.parse_args()
    registry = MemoryRegistry()
    say("training")
    processors = {name: case.scorer(registry) for name, case in CASES.items()}
    lanes = sorted({case.lane.name for case in CASES.values()})
    events = {case.lane.name: event(registry, case) for case in CASES.values()}
    summaries: dict[str, dict[str, Any]] = {}
    with broker() as kafka:
        say("writing requests")
        sources = {}
        for case in CASES.values():
            if case.lane.name not in sources:
                sources[case.lane.name] = filled(kafka, registry, case, given.records)
        for batch in given.batch:
            records = min(given.records, max(LEAST_RECORDS, TRANSACTIONS * batch))
            runs = {
                f"empty loop, {lane}": partial(empty, kafka, sources[lane], records, batch) for lane in lanes
            }
            for lane, value in events.items():
                runs[f"empty loop, {lane}, 1 ms"] = partial(
                    empty, kafka, sources[lane], records, batch, linger_ms=1
                )
                runs[f"empty loop, {lane}, events"] = partial(
                    empty, kafka, sources[lane], records, batch, value
                )
            for name, processor in processors.items():
                runs[name] = partial(scoring, kafka, processor, records, batch)
            settle_memory()  # as a service does; the empty loop has it as easy
            measured = interleave(runs, given.rounds)
            for lane in lanes:
                of_lane = [n for n, case in CASES.items() if case.lane.name == lane]
                base = f"empty loop, {lane}"
                others = (f"{base}, 1 ms", f"{base}, events")
                facts = summary({n: measured[n] for n in (base, *others, *of_lane)}, base)
                summaries.setdefault(f"batch {batch}", {}).update(facts)
    if not given.json:
        show(summaries, False)
        return
    bases = {f"empty loop, {lane}" for lane in lanes}
    result: dict[str, dict[str, dict[str, object]]] = {}
    for group, cases in summaries.items():
        for name, facts in cases.items():
            for figure, spread in facts.items():
                if figure == "ratio" and name in bases:
                    continue
                result.setdefault(figure, {}).setdefault(name, {})[group.removeprefix("batch ")] = spread
    print(json.dumps({"rounds": given.rounds, "records": given.records, **result}))


if __name__ == "__main__":
    main()
