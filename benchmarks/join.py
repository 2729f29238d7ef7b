"""The joiner beside Kafka Streams' inner join, on one broker, from the same topics.

The joiner does its whole work: it reads Avro, decides by event time, keeps what may still change, and writes outcome
events. The peer puts the bytes of both sides one behind the other. Both exactly once, both with RocksDB, both with one
thread of work. The peer's virtual machine joins everything once before the pass that counts.
"""

from __future__ import annotations

import gc
import json
import random
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import confluent_kafka

from benchmarks.harness import Broker, Measured, Stopwatch, arguments, broker, interleave, say, show, summary
from tailrace.joiner.processor import JoiningProcessor
from tailrace.joiner.rocks_store import open_store
from tailrace.local.java import jars, java
from tailrace.streaming.backends.kafka.backend import KafkaBackend
from tailrace.streaming.backends.kafka.topics import ensure_topics, lane_topics
from tailrace.streaming.batches import MAX_BATCH
from tailrace.streaming.partitioner import partition_of
from tailrace.streaming.processor import Clock, Output
from tailrace.streaming.records import Message, Record, RecordRef
from tailrace.streaming.runner import ExactlyOnceRunner
from tailrace.streaming.time_source import SystemClock
from tailrace.streaming.watermark_records import watermark_record
from tailrace.testing.java_program import compile_java
from tailrace.testing.joined_lane import CONTRACT, JoinedLane
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import message_of

PARTITIONS = 6
FEATURES = 12
START = 1_600_000_000_000
LABEL_DELAY_MS = (10_000, 600_000)
LOCK = Path(__file__).with_name("streams-jars.lock")
PEER = Path(__file__).with_name("StreamsJoin.java")
TEXT = CONTRACT.replace("horizon: 60s", "horizon: 60d").replace(
    "features: {x: {type: number}}",
    "features: {" + ", ".join(f"x{number}: {{type: number}}" for number in range(FEATURES)) + "}",
)


class Joiner(JoiningProcessor):
    """The joiner of one lane, told of its contract beforehand, with a count of the outcomes that are committed."""

    def __init__(self, made: JoinedLane, folder: Path) -> None:
        super().__init__(
            made.control.by("scorer"),
            lambda lane, number: open_store(folder, f"{lane}-{number}"),
            lambda _: PARTITIONS,
            list,
        )
        record = made.contract_record()
        self.control([message_of(record)])
        self.outcomes = 0
        self.watch: Stopwatch | None = None

    def control_topics(self) -> Sequence[str]:
        return ()

    def process(self, batch: Sequence[Message], clock: Clock) -> Output:
        self.watch = self.watch or Stopwatch()
        output = super().process(batch, clock)
        apply = output.on_committed

        def count() -> None:
            apply()
            self.outcomes += sum(record.value is not None for record in output.records)

        output.on_committed = count
        return output


def joining(kafka: Broker, processor: JoiningProcessor, max_batch: int = MAX_BATCH) -> ExactlyOnceRunner:
    """The joiner's loop, as the service has it, under a group of its own."""
    group = f"joiner-{uuid.uuid4().hex[:8]}"
    return ExactlyOnceRunner(
        KafkaBackend(kafka.connection, group),
        processor,
        service="joiner",
        group=group,
        transactional_id=group,
        clock=SystemClock(),
        quarantine=_no_quarantine,
        max_batch=max_batch,
        co_partitioned=True,
        linger_s=0.05,
    )


def join(kafka: Broker, made: JoinedLane, pairs: int, batch: int) -> Measured:
    """Joins everything that is in the lane's inputs, from the first batch to the last commit."""
    renew(kafka, made.lane.outcomes, made.lane.rekeyed)
    folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-joiner-"))
    processor = Joiner(made, folder)
    loop = joining(kafka, processor, batch)
    while processor.outcomes < pairs:
        loop.step()
    assert processor.watch is not None
    measured = processor.watch.stop(pairs)
    loop.close()
    shutil.rmtree(folder)
    return measured


def streams(kafka: Broker, made: JoinedLane, pairs: int, classpath: str, threads: int) -> Measured:
    """The same by Kafka Streams."""
    output = kafka.topic("streams-join", PARTITIONS)
    folder = Path(tempfile.mkdtemp(prefix="tailrace-benchmark-streams-"))
    command = [
        *(str(java()), "-Xmx1g", "-cp", classpath, "StreamsJoin"),
        *(kafka.connection.bootstrap, made.lane.predictions, made.lane.labels),
        *(output, output, str(folder), str(threads), "2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2_000:]
    shutil.rmtree(folder, ignore_errors=True)
    kafka.delete(output)
    figures = json.loads(done.stdout.splitlines()[-1])
    return Measured(pairs, figures["seconds"], figures["cpu_seconds"])


def _no_quarantine(message: Message, reason: str) -> Output:
    raise AssertionError(reason)


def renew(kafka: Broker, *topics: str) -> None:
    """Empties topics of the lane that a run writes and reads."""
    kafka.delete(*topics)
    wanted = [topic for topic in lane_topics("credit", partitions=PARTITIONS) if topic.name in topics]
    deadline = time.monotonic() + 30
    while True:
        try:
            ensure_topics(kafka.connection.kafka, wanted)
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def records(made: JoinedLane, pairs: int) -> Iterator[Record]:
    """Predictions in order of time, each with a label some minutes later; watermark records on silent topics."""
    draw = random.Random(1)
    lane = made.lane
    labels: list[tuple[int, int, Record]] = []
    request = {f"x{number}": draw.gauss(0, 1) for number in range(FEATURES)}
    first = made.prediction(RecordRef(lane.requests, 0, 0), "r", "k", START, request=request)
    event = made.codec.decode(first.value).record
    for number in range(pairs):
        time_ms, key, request_id = START + 10 * number, f"loan-{number:08d}", f"{draw.getrandbits(64):016x}"
        partition = partition_of(key.encode(), PARTITIONS)
        event |= {
            "prediction_id": f"{draw.getrandbits(128):032x}",
            "request_id": request_id,
            "key": key,
            "event_time": time_ms,
            "source": {"topic": lane.requests, "partition": partition, "offset": number},
        }
        event["request"] |= {"request_id": request_id, "loan_id": key}
        yield Record(
            lane.predictions, made.codec.encode(made.schema_ids[lane.predictions], event), key.encode()
        )
        at = time_ms + draw.randint(*LABEL_DELAY_MS)
        label = made.label(request_id=request_id, loan_id=key, at=at, bad=draw.random() < 0.3)
        labels.append((at, number, label._replace(key=key.encode())))
        if number % 1_000 == 0:
            for topic in (lane.actions, lane.shadow_predictions):
                yield from (watermark_record(topic, p, time_ms) for p in range(PARTITIONS))
    yield from (label for _, _, label in sorted(labels))
    end = START + 10 * pairs + LABEL_DELAY_MS[1] + 10_000
    for at in range(START + 10 * pairs, end, 10_000):
        for topic in (lane.actions, lane.shadow_predictions):
            yield from (watermark_record(topic, p, at) for p in range(PARTITIONS))
    for topic in (lane.predictions, lane.labels, lane.actions, lane.shadow_predictions):
        yield from (watermark_record(topic, p, end) for p in range(PARTITIONS))


def produce(kafka: Broker, records: Iterable[Record]) -> None:
    producer = confluent_kafka.Producer(
        {**kafka.connection.kafka, "partitioner": "murmur2_random", "linger.ms": 20}
    )
    for record in records:
        partition = -1 if record.partition is None else record.partition
        while True:
            try:
                producer.produce(
                    record.topic, record.value, record.key, partition, headers=list(record.headers)
                )
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()


def main() -> None:
    parser = arguments("The joiner and Kafka Streams' inner join, side by side.")
    parser.add_argument("--pairs", type=int, default=200_000, help="predictions, each with its label")
    parser.add_argument("--batch", type=int, default=20_000, help="records a commit of the joiner")
    given = parser.parse_args()
    with broker() as kafka, tempfile.TemporaryDirectory(prefix="tailrace-benchmark-classes-") as classes:
        classpath = compile_java(PEER, Path(classes), jars(LOCK))
        made = JoinedLane(TEXT, MemoryRegistry())
        ensure_topics(kafka.connection.kafka, lane_topics("credit", partitions=PARTITIONS))
        say(f"writing {given.pairs:,} predictions and labels")
        produce(kafka, records(made, given.pairs))
        # As every service does when it starts.
        gc.collect()
        gc.freeze()
        measured = interleave(
            {
                "joiner": lambda: join(kafka, made, given.pairs, given.batch),
                "Kafka Streams": lambda: streams(kafka, made, given.pairs, classpath, 1),
            },
            given.rounds,
        )
    show({"pairs": summary(measured, "Kafka Streams")}, given.json)


if __name__ == "__main__":
    main()
