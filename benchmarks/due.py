"""The joiner when much is due at once: predictions without labels, and then every clock passes their horizon.

What counts is not the speed but that it gets through: the largest transaction, the longest time between two polls of
the consumer, what was given up, and that each prediction has its one outcome in the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Broker, broker, say
from benchmarks.join import PARTITIONS, START, Joiner, joining, produce
from tailrace.streaming.backends.kafka.consumer import KafkaConsumer
from tailrace.streaming.backends.kafka.topics import ensure_topics, lane_topics
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.watermark_records import watermark_record
from tailrace.telemetry import metrics
from tailrace.testing.joined_lane import CONTRACT, JoinedLane
from tailrace.testing.memory_registry import MemoryRegistry


class Watched(Joiner):
    """Keeps an account of what one step comes to."""

    def __init__(self, made: JoinedLane, folder: Path) -> None:
        super().__init__(made, folder)
        self.most, self.largest, self.longest, self.steps = 0, 0, 0.0, 0

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        began = time.monotonic()
        output = super().process(batch, clock)
        self.longest = max(self.longest, time.monotonic() - began)
        self.steps += 1
        self.most = max(self.most, len(output.records))
        self.largest = max(self.largest, sum(len(record.value or b"") for record in output.records))
        return output


def records(made: JoinedLane, count: int, same_time: bool) -> Iterator[Record]:
    lane = made.lane
    first = made.prediction(RecordRef(lane.requests, 0, 0), "r", "k", START)
    event = made.codec.decode(first.value).record
    for number in range(count):
        key, request_id = f"loan-{number:08d}", f"request-{number:08d}"
        event |= {
            "prediction_id": f"{number:032x}",
            "request_id": request_id,
            "key": key,
            "event_time": START if same_time else START + number % 50_000,
            "source": {
                "topic": lane.requests,
                "partition": partition_of(key.encode(), PARTITIONS),
                "offset": number,
            },
        }
        event["request"] |= {"request_id": request_id, "loan_id": key}
        value = made.codec.encode(made.schema_ids[lane.predictions], event)
        yield Record(lane.predictions, value, key.encode())


def passing(made: JoinedLane) -> list[Record]:
    lane = made.lane
    topics = (lane.predictions, lane.labels, lane.actions, lane.shadow_predictions)
    return [watermark_record(topic, p, START + 3_600_000) for topic in topics for p in range(PARTITIONS)]


def run(kafka: Broker, made: JoinedLane, count: int, give_up_s: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-due-"))
    processor = Watched(made, folder)
    loop = joining(kafka, processor)
    polled, longest, consume = time.monotonic(), 0.0, KafkaConsumer.consume

    def watched(self: KafkaConsumer, limit: int, timeout_s: float) -> Sequence[Message]:
        nonlocal polled, longest
        longest = max(longest, time.monotonic() - polled)
        messages = consume(self, limit, timeout_s)
        polled = time.monotonic()
        return messages

    KafkaConsumer.consume = watched  # type: ignore[method-assign]
    aborts = metrics.ABORTS._value.get()
    began = time.monotonic()
    while processor.outcomes < count and time.monotonic() - began < give_up_s:
        loop.step()
    seconds = time.monotonic() - began
    KafkaConsumer.consume = consume  # type: ignore[method-assign]
    loop.close()
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "outcomes": processor.outcomes,
        "seconds": round(seconds, 1),
        "steps": processor.steps,
        "most records in a transaction": processor.most,
        "largest transaction, MB": round(processor.largest / 1e6, 1),
        "longest step, s": round(processor.longest, 2),
        "longest between polls, s": round(max(longest, time.monotonic() - polled), 2),
        "given up": int(metrics.ABORTS._value.get() - aborts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The joiner when very much is due at once.")
    parser.add_argument("--predictions", type=int, default=300_000)
    parser.add_argument("--same-time", action="store_true", help="all of one event time")
    parser.add_argument("--give-up", type=float, default=240.0, help="seconds after which it is ended")
    given = parser.parse_args()
    with broker() as kafka:
        made = JoinedLane(CONTRACT, MemoryRegistry())
        ensure_topics(kafka.connection.kafka, lane_topics("credit", partitions=PARTITIONS))
        say(f"writing {given.predictions:,} predictions")
        produce(kafka, records(made, given.predictions, given.same_time))
        produce(kafka, passing(made))
        print(json.dumps(run(kafka, made, given.predictions, given.give_up), indent=2))


if __name__ == "__main__":
    main()
