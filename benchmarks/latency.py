"""From a request to reading its answer, at a steady rate, in milliseconds.

    python -m benchmarks.latency [--rate 1000] [--seconds 10] [--rounds 5] [--cases ...] [--json]

The same requests (Avro, the example contract ``credit``) go in turn through

- ``no service``: a read of what was just written;
- ``empty loop``: a transactional client that passes the bytes on, polling every 5 ms;
- ``batch loop``: the exactly-once runner, passing the bytes on;
- ``scorer``: as it runs in production;
- ``Kafka Streams`` and ``Kafka Streams, 10 ms``: exactly_once_v2, passing the bytes on, with its default interval
  between commits (100 ms) and with 10 ms.

All run for the whole time in processes of their own. The time is taken by the one that sends and reads. Ratios are to
the empty loop in the same round.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import confluent_kafka

from benchmarks.figures import percentile
from benchmarks.harness import Broker, arguments, broker, say, spread
from benchmarks.pass_on_loops import BATCH, EMPTY, STREAMS, STREAMS_10, pass_on_loop
from benchmarks.running import PARTITIONS, Loop, Requests, Running, running, wait_for_loop
from tailrace.streaming.backends.kafka.reading import TopicReader

CASES = ("no service", EMPTY, BATCH, "scorer", STREAMS, STREAMS_10)
BASE = EMPTY
AT = (50, 99, 99.9)
WARM_UP_S = 1.0
"""How much of the beginning of a round does not count."""


def latencies(kafka: Broker, source: str, target: str, requests: Requests, rate: int) -> list[float]:
    """Milliseconds for each request, sent at this rate; those of the first second do not count."""
    reader = TopicReader(kafka.connection, target, from_end=True)
    producer = confluent_kafka.Producer(
        {**kafka.connection.kafka, "linger.ms": 0, "partitioner": "murmur2_random"}
    )
    sent: dict[bytes | None, float] = {}
    took: dict[bytes | None, float] = {}

    def read() -> None:
        while len(took) < len(requests):
            for message in reader.poll(0.1):
                now = time.perf_counter()
                if message.value() is not None:  # watermark records
                    took[message.key()] = (now - sent[message.key()]) * 1e3

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    began = time.perf_counter()
    for number, (key, value) in enumerate(requests):
        due = began + number / rate
        while (wait := due - time.perf_counter()) > 0:
            time.sleep(wait)
        sent[key] = time.perf_counter()
        producer.produce(source, value, key)
        producer.poll(0)
    producer.flush()
    reading.join(60)
    assert len(took) == len(requests), f"{len(requests)} sent, {len(took)} answered"
    reader.close()
    return [took[key] for key, _ in requests[int(WARM_UP_S * rate) :]]


def facts(took: Sequence[float]) -> dict[str, float]:
    return {f"p{at:g}": percentile(took, at) for at in AT}


def summary(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """By case and percentile the median over the rounds, the range, and the ratio to the base of the same round."""
    return {
        name: {
            at: {
                **spread([one[at] for one in rounds]),
                "ratio": spread(
                    [one[at] / other[at] for one, other in zip(rounds, measured[BASE], strict=True)]
                ),
            }
            for at in rounds[0]
        }
        for name, rounds in measured.items()
    }


def measure(
    kafka: Broker, loops: Mapping[str, Loop | None], requests: Requests, rate: int, rounds: int
) -> dict[str, Any]:
    """All loops in turn (None: no service); a round before the first warms them up and does not count."""
    percentiles: dict[str, list[dict[str, float]]] = {name: [] for name in loops}
    nowhere = kafka.topic("no-service", PARTITIONS)
    for number in range(rounds + 1):
        for name, loop in loops.items():
            source, target = (loop.source, loop.target) if loop else (nowhere, nowhere)
            percentiles[name].append(facts(latencies(kafka, source, target, requests, rate)))
            line = "  ".join(f"{at} {value:.1f}" for at, value in percentiles[name][-1].items())
            say(f"round {number} of {rounds}: {name}  {line}")
    return summary({name: measured[1:] for name, measured in percentiles.items()})


def main() -> None:
    parser = arguments("From a request to reading its answer, at a steady rate.")
    parser.add_argument("--rate", type=int, default=1_000, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a round")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES, help="the empty loop always")
    given = parser.parse_args()
    with ExitStack() as stack:
        kafka = stack.enter_context(broker())
        tailrace = stack.enter_context(running(kafka))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-benchmark-latency-")))
        requests = tailrace.requests(int(given.rate * given.seconds))
        loops: dict[str, Loop | None] = {}
        for name in CASES:
            if name == BASE or name in given.cases:
                say(f"starting {name}")
                loops[name] = loop = start(kafka, tailrace, folder, name)
                if loop is not None:
                    stack.callback(loop.stop)
                    wait_for_loop(kafka, loop, requests[:100])
        result = measure(kafka, loops, requests, given.rate, given.rounds)
    if given.json:
        print(json.dumps(result))
        return
    for name, facts in result.items():
        parts = (
            f"{at} {fact['median']:.1f} ms, {fact['ratio']['median']:.2f} times" for at, fact in facts.items()
        )
        print(f"{name:22} {'   '.join(parts)}")


def start(kafka: Broker, tailrace: Running, folder: Path, name: str) -> Loop | None:
    if name == "no service":
        return None
    return tailrace.scorer() if name == "scorer" else pass_on_loop(kafka, folder, name)


if __name__ == "__main__":
    main()
