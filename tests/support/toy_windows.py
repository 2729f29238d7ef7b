"""A small kind of windows with everything that a kind may have, and its reports computed over a whole log at once.

Records are JSON. A prediction has a time ``t``, a number ``v`` and the digest ``d`` of its contract; an outcome
also the stream of its prediction and the time at which it is ``known``. Windows are judged at two ages.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from tailrace.contracts.language.load import load_contract
from tailrace.contracts.records.control_codec import CONTROL_RECORDS, ControlCodec, control_schema
from tailrace.contracts.records.lanes import CONTRACTS, WINDOW_PARTS, WINDOW_STATE, Lane
from tailrace.contracts.state.contracts import AppliedContract, Contracts
from tailrace.errors import BadRecord
from tailrace.streaming.backends.memory.log import MemoryLog
from tailrace.streaming.records import Message, Record
from tailrace.streaming.watermark_records import watermark_record, watermark_stream, watermark_time
from tailrace.testing.control_records import contract_record
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.windows.kinds import NO_TIME, Cell, Closed, ReadRows, Times, WindowVerdict

LANE = Lane("toy")
REPORTS = "toy.reports"
COUNTED = (LANE.predictions, LANE.shadow_predictions, LANE.outcomes)
STREAMS = {LANE.predictions: "predictions", LANE.shadow_predictions: "shadow-predictions"}
LATENESS = 5
AGES = (LATENESS, 40)
"""How long after its end a window is judged."""

_TEXT = """
model: {model}
lane: toy
owner: {{team: t}}
features: {{x: {{type: number}}}}
target: {{name: y, type: boolean}}
drift: {{window: {seconds}s}}
"""
_SPOKEN = (("toy", 10), ("other", 15), ("toy", 25))
_CONTRACTS = [load_contract(_TEXT.format(model=model, seconds=seconds)) for model, seconds in _SPOKEN]
DIGESTS = [contract.digest for contract in _CONTRACTS]
"""Two models share the lane; the last contract takes the place of the first."""
LENGTHS = {contract.digest: seconds for contract, (_, seconds) in zip(_CONTRACTS, _SPOKEN, strict=True)}
MODELS = {contract.digest: contract.model for contract in _CONTRACTS}
REGISTRY = MemoryRegistry()
for _name in ("Contract", "WindowPart"):  # under the same ids in every process
    REGISTRY.register(f"{CONTROL_RECORDS[_name]}-value", control_schema(_name))
CODEC = ControlCodec(REGISTRY)


def contract_records() -> list[Record]:
    """The contracts, one after the other."""
    records = []
    revisions: Counter[str] = Counter()
    for contract in _CONTRACTS:
        number = revisions[contract.model]
        revisions[contract.model] += 1
        record = contract_record(contract, number)
        records.append(Record(CONTRACTS, CODEC.encode("Contract", record), contract.model.encode()))
    return records


def create_topics(log: MemoryLog, partitions: int) -> None:
    for topic in (*COUNTED, LANE.dead_letters):
        log.create_topic(topic, partitions)
    for topic in (CONTRACTS, WINDOW_PARTS, WINDOW_STATE, REPORTS):
        log.create_topic(topic)


class Feeder:
    """Makes records that come late, early and never in order, and marks that keep their promise.

    Attributes:
        all_contracts: whether the last contract has been applied.
    """

    def __init__(self, rng: random.Random, partitions: int) -> None:
        self.all_contracts = False
        self._rng = rng
        self._places = [(topic, p) for topic in STREAMS for p in range(partitions)]
        self._streams = [(p, stream) for p in range(partitions) for stream in STREAMS.values()]
        self._now = dict.fromkeys(self._places, 0)
        self._marks = dict.fromkeys(self._streams, 0)

    def some(self) -> list[Record]:
        records = [self._record() for _ in range(self._rng.randint(1, 12))]
        if self._rng.random() < 0.5:  # windows are judged on the way, and not only in the end
            records += self.tick(self.latest + self._rng.choice([0, 5, 20]))
        return records

    @property
    def latest(self) -> int:
        return max(*self._now.values(), *self._marks.values())

    def tick(self, time: int) -> list[Record]:
        """Time passes everywhere."""
        self._now.update(dict.fromkeys(self._places, time))
        self._marks.update(dict.fromkeys(self._streams, time))
        return [watermark_record(topic, p, time) for topic, p in self._places] + [
            watermark_record(LANE.outcomes, p, time, stream=stream) for p, stream in self._streams
        ]

    def _record(self) -> Record:
        rng = self._rng
        topic, (_, partition) = rng.choice(COUNTED), rng.choice(self._places)
        row: dict[str, Any] = {
            "v": rng.randrange(100),
            "d": rng.choice(DIGESTS[: 3 if self.all_contracts else 2]),
        }
        if topic in STREAMS:
            now = self._now[topic, partition] = self._now[topic, partition] + rng.choice([0, 0, 1, 3, 9])
            if rng.random() < 0.15:
                return watermark_record(topic, partition, now)
            row["t"] = max(0, now - rng.choice([0, 0, 0, 2, 8, 30]))
        else:
            stream = rng.choice(sorted(STREAMS.values()))
            marked = self._marks[partition, stream]
            if rng.random() < 0.4:
                self._marks[partition, stream] = marked + rng.choice([0, 4, 15])
                return watermark_record(topic, partition, marked, stream=stream)
            row["known"] = marked + rng.choice([0, 1, 5, 20])
            row["t"], row["stream"] = max(0, row["known"] - rng.choice([0, 2, 15, 50])), stream
        value = b"nonsense" if rng.random() < 0.03 else json.dumps(row).encode()
        return Record(topic, value, None, (), partition)


class Log(Protocol):
    """What is in a log, as a reader of committed records finds it."""

    def topics(self) -> Mapping[str, int]: ...
    def messages(self, topic: str, partition: int | None = None) -> Sequence[Message]: ...


class ToyWindows:
    kind = "toy"

    def __init__(self) -> None:
        self._contracts = Contracts()

    def control_topics(self) -> Sequence[str]:
        return (CONTRACTS,)

    def control(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._contracts.apply(CODEC.decode("Contract", message.value()))

    def contracts(self) -> Contracts:
        return self._contracts

    def look_again(self) -> None:
        """All that is on the control topics is read by the loop."""

    def topics(self) -> Collection[str]:
        return COUNTED if self._contracts.current else ()

    def stream_of(self, topic: str) -> str | None:
        return STREAMS.get(topic)

    def sources(self, contract: AppliedContract, stream: str) -> Sequence[str]:
        return [*(topic for topic, of in STREAMS.items() if of == stream), LANE.outcomes]

    def read(self, topic: str, messages: Sequence[Message]) -> ReadRows:
        bad, data = {}, []
        for at, message in enumerate(messages):
            try:
                data.append(json.loads(message.value() or b""))
            except ValueError:
                bad[at] = BadRecord("not-json", "not JSON")
                data.append(None)
        return ReadRows(np.array([row["t"] if row else 10**9 for row in data], dtype=np.int64), bad, data)

    def count(self, topic: str, rows: ReadRows, before: Times) -> Sequence[tuple[str, Cell]]:
        sums: Counter[tuple[Any, ...]] = Counter()
        for at, row in enumerate(rows.data):
            if at in rows.bad:
                continue
            length = LENGTHS[row["d"]]
            start = row["t"] - row["t"] % length
            if topic == LANE.outcomes:
                stream, seen, what = row["stream"], row["known"], "outcomes"
            else:
                stream, seen, what = STREAMS[topic], max(row["t"], int(before[at])), "rows"
            age = next((k for k, wait in enumerate(AGES) if seen < start + length + wait), None)
            if age is None and what == "rows":
                what, age, start = "late", 0, seen - seen % length
            if age is not None:
                cell = (stream, row["d"], start, age, json.dumps({"v": row["v"] % 2}))
                sums[cell, what] += 1
                sums[cell, "sum"] += row["v"]
        cells: dict[tuple[Any, ...], dict[str, int]] = defaultdict(dict)
        for (cell, what), number in sums.items():
            cells[cell][what] = number
        return [
            (MODELS[cell[1]], Cell(*cell, json.dumps(numbers).encode())) for cell, numbers in cells.items()
        ]

    def length_ms(self, contract: AppliedContract) -> int:
        return LENGTHS[contract.digest]

    def ages(self, contract: AppliedContract) -> int:
        return len(AGES)

    def closes_at(self, contract: AppliedContract, window_start: int, age: int) -> int:
        return window_start + LENGTHS[contract.digest] + AGES[age]

    def check(self, cell: Cell) -> None:
        """Every cell is one."""

    def add(self, into: Any | None, counts: bytes) -> Any:
        return Counter(json.loads(counts)) + Counter(into or {})

    def pack(self, total: Any) -> bytes:
        return json.dumps(total).encode()

    def judge(self, closed: Closed, memory: dict[str, Any]) -> WindowVerdict:
        # Each report names all before it, so that their order shows.
        identity = [closed.model, closed.stream, closed.contract.digest, closed.window_start, closed.age]
        chain = hashlib.sha256(f"{memory.get('chain')}|{identity}".encode()).hexdigest()
        report = {"id": identity, "chain": chain, "subjects": closed.subjects}
        value = json.dumps(report, sort_keys=True).encode()
        return WindowVerdict([Record(REPORTS, value, closed.model.encode())], {"chain": chain})


def reports(log: Log) -> list[dict[str, Any]]:
    """What was written, by model and stream, in order."""
    records = [json.loads(message.value() or b"") for message in log.messages(REPORTS)]
    return sorted(records, key=lambda report: report["id"][:2])


def expected_reports(log: Log) -> list[dict[str, Any]]:
    """The reports of windows that are over, computed from all that is in the log by grouping it."""
    rows, least = _table(log)
    if rows.is_empty():
        return []
    length = pl.col("d").replace_strict(LENGTHS, return_dtype=pl.Int64)
    rows = rows.with_columns(length=length, start=pl.col("t") - pl.col("t") % length)
    end = pl.col("start") + pl.col("length")
    age = pl.when(pl.col("seen") < end + AGES[0]).then(0).when(pl.col("seen") < end + AGES[1]).then(1)
    rows = rows.with_columns(age=age).filter((pl.col("what") == "rows") | pl.col("age").is_not_null())
    is_late = pl.col("age").is_null()
    rows = rows.with_columns(
        what=pl.when(is_late).then(pl.lit("late")).otherwise("what"),
        start=pl.when(is_late).then(pl.col("seen") - pl.col("seen") % pl.col("length")).otherwise("start"),
        age=pl.col("age").fill_null(0),
    )
    reports = []
    windows = rows.select("stream", "d", "length", "start").unique().rows()
    judged = [
        (MODELS[digest], stream, start + length + AGES[age], start, digest, age)
        for stream, digest, length, start in windows
        for age in range(len(AGES))
        if start + length + AGES[age] <= least[stream]
    ]
    chains: dict[tuple[str, str], str] = {}
    for model, stream, _, start, digest, age in sorted(judged):
        window = rows.filter(stream=stream, d=digest, start=start).filter(pl.col("age") <= age)
        if window.is_empty():
            continue
        subjects: dict[str, dict[str, int]] = {}
        for (odd,), group in window.group_by([pl.col("v") % 2]):
            counts = dict(group.group_by("what").len().rows())
            subjects[json.dumps({"v": odd})] = Counter({**counts, "sum": group["v"].sum()}) + Counter()
        identity = [model, stream, digest, start, age]
        chain = hashlib.sha256(f"{chains.get((model, stream))}|{identity}".encode()).hexdigest()
        chains[model, stream] = chain
        reports.append({"id": identity, "chain": chain, "subjects": subjects})
    return reports


def _table(log: Log) -> tuple[pl.DataFrame, Mapping[str, int]]:
    """All records, with when each is seen by its partition's clock; and of each stream the least clock."""
    tables = []
    least: dict[str, int] = defaultdict(lambda: 2**62)
    for topic in COUNTED:
        for partition in range(log.topics()[topic]):
            rows = []
            clocks = defaultdict(lambda: NO_TIME)
            for message in log.messages(topic, partition):
                time, stream = watermark_time(message), STREAMS.get(topic) or watermark_stream(message)
                if time is not None and stream is not None:
                    clocks[stream] = max(clocks[stream], time)
                    rows.append(
                        {"t": time, "v": None, "d": None, "stream": stream, "what": "mark", "known": None}
                    )
                elif (message.value() or b"")[:1] == b"{":
                    rows.append(
                        {
                            "what": "rows",
                            "known": None,
                            "stream": stream,
                            **json.loads(message.value() or b""),
                        }
                    )
            if rows:
                table = pl.DataFrame(
                    rows, schema_overrides={"v": pl.Int64, "d": pl.String, "known": pl.Int64}
                )
                if topic == LANE.outcomes:
                    table = table.with_columns(seen="known", what=pl.lit("outcomes"))
                else:
                    table = table.with_columns(seen=pl.col("t").cum_max())
                    clocks[STREAMS[topic]] = table["t"].max()  # type: ignore[assignment]
                tables.append(
                    table.filter(pl.col("v").is_not_null()).select("t", "v", "d", "stream", "what", "seen")
                )
            for stream in [STREAMS[topic]] if topic in STREAMS else STREAMS.values():
                least[stream] = min(least[stream], clocks[stream])
    return pl.concat(tables) if tables else pl.DataFrame(), least
