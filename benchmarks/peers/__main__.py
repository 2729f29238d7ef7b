"""The scorer beside others that do the same scoring: records a second and CPU per record, in one run.

    python -m benchmarks.peers [--records 100000] [--rounds 5] [--json]

The same requests (Avro, the example contract ``credit``) on one broker, one process each, all warm, in turn:

- ``scorer``: Tailrace's, as it runs in production;
- ``quixstreams``: exactly once, one row at a time through the same ONNX model, the same prediction event by fastavro;
- ``Faust``: the same by an agent, at least once, and then exactly once;
- ``Kafka Streams``: exactly_once_v2, passing the bytes on;
- ``empty loop``: a transactional client that passes the bytes on and does nothing else.

quixstreams and Faust run in environments of their own, by peers/quixstreams.lock and peers/faust.lock. Each must have
written as many events as there were requests, and each Python peer events that equal the scorer's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import Broker, Measured, arguments, broker, interleave, say, show, spread, summary
from benchmarks.pass_on_loops import EMPTY, STREAMS, loop_of, pass_on_loop
from benchmarks.peers.environment import python_of
from benchmarks.running import Loop, Requests, Running, running, wait_for_loop, work_off
from tailrace.avro.codec import Codec
from tailrace.contracts.records.schemas import prediction_schema, request_schema
from tailrace.streaming.backends.kafka.reading import Ends, TopicReader
from tailrace.streaming.records import TopicPartition

HERE = Path(__file__).parent
WARM_UP = 500
SAMPLE = 1_000
OWN = {"prediction_id", "source", "latency_ms"}
"""What is a loop's own in its events."""
FAUST_ONCE = "Faust, exactly once"
SCORING = ("scorer", "quixstreams", "Faust", FAUST_ONCE)
CASES = (*SCORING, STREAMS, EMPTY)
CLOSE = 1e-6
"""How near the scores have to be, since the scorer runs the model on many rows at once."""


@dataclass
class _Events:
    count: int = 0
    sample: dict[str, dict[str, Any]] = field(default_factory=dict)


class Peers:
    """The loops, started one after the other, each with topics of its own but the scorer."""

    def __init__(self, kafka: Broker, tailrace: Running, folder: Path) -> None:
        self._kafka = kafka
        self._tailrace = tailrace
        self._folder = folder
        self._right: Mapping[str, Mapping[str, Any]] = {}
        self.loops: dict[str, Loop] = {}
        self.compared = 0
        self.largest_difference = 0.0

    def start(self, name: str, requests: Requests) -> None:
        """Starts a loop and waits until it answers; only then is it ready to be measured."""
        say(f"starting {name}")
        if name == "scorer":
            loop = self._tailrace.scorer()
        elif name in SCORING:
            loop = loop_of(self._kafka, self._folder, name, partial(self._command, name))
        else:
            loop = pass_on_loop(self._kafka, self._folder, name)
        self.loops[name] = loop
        wait_for_loop(self._kafka, loop, requests)
        if name == "scorer":
            self._write_task(self._events(loop.target, {}, {requests[0][0]}).sample)

    def _command(self, name: str, arguments: Sequence[str]) -> list[str]:
        peer = name.lower().split(",")[0]
        program = [
            str(python_of(HERE / f"{peer}.lock")),
            str(HERE / f"{peer}_peer.py"),
            *arguments,
            str(self._folder),
        ]
        return [*program, "exactly_once"] if name == FAUST_ONCE else program

    def _write_task(self, sample: Mapping[str, Mapping[str, Any]]) -> None:
        """What the Python peers have to know: the model, the schemas, and what is the same in all of the events."""
        (example,) = sample.values()
        contract, package = self._tailrace.contract, self._tailrace.package
        header = self._tailrace.registry.register(
            f"{self._tailrace.lane.predictions}-value", prediction_schema(contract)
        )
        task = {
            "request_schema": _plain(request_schema(contract)),
            "prediction_schema": _plain(prediction_schema(contract)),
            "prediction_header": (b"\0" + header.to_bytes(4, "big")).hex(),
            "constant": {key: value for key, value in example.items() if key not in OWN},
            "rules": [(rule.do, rule.name) for rule in contract.policy[1:]],
            "output": package.manifest.output,
        }
        (self._folder / "model.onnx").write_bytes(package.parts["model"])
        (self._folder / "task.json").write_text(json.dumps(task))

    def run(self, name: str, requests: Requests) -> Measured:
        """One run, checked: as many events as requests, and those of a sample are the scorer's."""
        loop = self.loops[name]
        before = Ends(self._kafka.connection).of([loop.target])
        measured = work_off(self._kafka, loop, requests)
        events = self._events(
            loop.target, before, {key for key, _ in requests[:: max(1, len(requests) // SAMPLE)]}
        )
        assert events.count == len(requests), f"{name}: {events.count:,} events of {len(requests):,} requests"
        if name == "scorer":
            self._right = events.sample
        elif name in SCORING:
            self._compare(name, events.sample)
        return measured

    def _compare(self, name: str, sample: Mapping[str, Mapping[str, Any]]) -> None:
        for key, event in sample.items():
            self.compared += 1
            right = self._right[key]
            self.largest_difference = max(self.largest_difference, abs(event["score"] - right["score"]))
            differing = [f for f in right.keys() - OWN - {"score"} if event[f] != right[f]]
            assert not differing, f"{name}, {key}: {', '.join(sorted(differing))} differ"
        assert self.largest_difference < CLOSE, f"{name}: scores differ by {self.largest_difference:.1e}"

    def _events(self, topic: str, starts: Mapping[TopicPartition, int], wanted: Collection[bytes]) -> _Events:
        """What was written to a topic since then: how many events, and those with the wanted keys."""
        codec, events = Codec(self._tailrace.registry), _Events()
        reader = TopicReader(self._kafka.connection, topic, starts=starts)
        while not reader.caught_up():
            for message in reader.poll(0.2):
                value = message.value()
                if value is not None:  # watermark records
                    events.count += 1
                    key = message.key()
                    if key is not None and key in wanted:
                        events.sample[key.decode()] = codec.decode(value).record
        reader.close()
        return events

    def stop(self) -> None:
        for loop in self.loops.values():
            loop.stop()


def _plain(schema: Any) -> Any:
    """Without logical types, which fastavro would turn into objects and back for every record."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def main() -> None:
    parser = arguments("The scorer beside others that do the same scoring.")
    parser.add_argument("--records", type=int, default=100_000, help="requests in each run")
    parser.add_argument(
        "--cases", nargs="*", choices=CASES, default=CASES, help="which to run, the scorer always"
    )
    given = parser.parse_args()
    with ExitStack() as stack:
        kafka = stack.enter_context(broker())
        tailrace = stack.enter_context(running(kafka))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tailrace-benchmark-peers-")))
        say("making requests")
        requests = tailrace.requests(given.records)
        peers = Peers(kafka, tailrace, folder)
        stack.callback(peers.stop)
        cases = [name for name in CASES if name == "scorer" or name in given.cases]
        for name in cases:
            peers.start(name, requests[:WARM_UP])
        measured = interleave({name: partial(peers.run, name, requests) for name in cases}, given.rounds)
    say(f"largest difference of a score to the scorer's: {peers.largest_difference:.1e}")
    result = summary(measured, "scorer")
    for name, runs in measured.items():
        result[name] |= {"scorer": compared(measured["scorer"], runs)}
    show({"same requests": result}, given.json)
    for name, facts in () if given.json else result.items():
        rate, cpu = facts["scorer"]["times_as_fast"], facts["scorer"]["records_per_cpu_second"]
        print(f"  scorer to {name}: {_in_words(rate)} as fast, {_in_words(cpu)} the records per CPU second")


def compared(scorer: Sequence[Measured], peer: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """How many times the peer's the scorer's speed is, and its records per CPU second, round by round."""
    pairs = list(zip(scorer, peer, strict=True))
    return {
        "times_as_fast": spread([one.rate / other.rate for one, other in pairs]),
        "records_per_cpu_second": spread(
            [one.records / one.cpu_seconds / (other.records / other.cpu_seconds) for one, other in pairs]
        ),
    }


def _in_words(times: Mapping[str, float]) -> str:
    return f"{times['median']:.2f} times ({times['least']:.2f} to {times['most']:.2f})"


if __name__ == "__main__":
    main()
