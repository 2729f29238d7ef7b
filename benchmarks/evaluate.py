"""The evaluator: outcomes a second, next to pandas and scikit-learn that compute the same metrics anew.

Windows of outcomes of a binary model, judged over all rows and over the slices of a contract (two fields and a
condition: nine reports a window). ``service`` is all that the service does with outcomes but Kafka: reading their Avro
in batches, counting, merging, judging, reports with intervals and the business value. ``scikit-learn`` computes the
six metrics of each slice from a pandas frame that is there already, without intervals; ``fastavro and scikit-learn``
reads the same bytes first, record by record. The metrics of both are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from benchmarks.harness import Measured, Stopwatch, arguments, interleave, say, show, summary
from tailrace.contracts.records.lanes import PERFORMANCE_REPORTS
from tailrace.streaming.records import Message
from tailrace.testing.evaluated_lane import BINARY, EvaluatedLane, written
from tailrace.windows.kinds import NO_TIME, Closed

BATCH = 5_000
WINDOW = 10_000
REGIONS = ["north", "south", "east"]
Metrics = dict[tuple[int, str, str], float]
"""By window, segment and metric."""


class World:
    """Outcomes in windows, as bytes and as frames."""

    def __init__(self, rows: int, windows: int) -> None:
        self.lab = EvaluatedLane(BINARY)
        self.topic = self.lab.lane.outcomes
        self.frames = [self._frame(rows, number) for number in range(windows)]
        self.messages: list[list[Message]] = [
            [written(self.topic, self._encoded(row)) for row in frame.to_dict("records")]
            for frame in self.frames
        ]

    @property
    def rows(self) -> int:
        return sum(map(len, self.frames))

    def _frame(self, rows: int, number: int) -> pd.DataFrame:
        draw = np.random.default_rng(number)
        score = draw.random(rows)
        return pd.DataFrame(
            {
                "event_time": number * WINDOW + draw.integers(0, WINDOW, rows),
                "score": score,
                "label": draw.random(rows) < score,
                "predicted_class": np.where(score > 0.5, "true", "false"),
                "action": np.where(score > 0.5, "refuse", "approve"),
                "region": draw.choice(REGIONS, rows),
                "employed": draw.random(rows) < 0.8,
                "amount": draw.random(rows) * 100,
                "income": draw.random(rows) * 1e5,
            }
        )

    def _encoded(self, row: dict[str, Any]) -> bytes:
        label = row.pop("label")
        prediction = self.lab.prediction(prediction_id="0" * 32, **row)
        known_at = (row["event_time"] // WINDOW + 1) * WINDOW - 1
        return self.lab.encode(self.topic, self.lab.outcome(prediction, label=label, known_at=known_at))


def through_the_service(world: World, keep: Metrics | None = None) -> Measured:
    service = world.lab.windows()
    applied = service.contracts().by_digest[world.lab.contract.digest]
    watch = Stopwatch()
    for number, messages in enumerate(world.messages):
        subjects: dict[str, Any] = {}
        for first in range(0, len(messages), BATCH):
            batch = messages[first : first + BATCH]
            for _, cell in service.count(
                world.topic, service.read(world.topic, batch), np.full(len(batch), NO_TIME)
            ):
                subjects[cell.subject] = service.add(subjects.get(cell.subject), cell.counts)
        closed = Closed("credit", "predictions", applied, number * WINDOW, 0, dict(sorted(subjects.items())))
        judged = service.judge(closed, {})
        if keep is not None:
            for record in judged.records:
                if record.topic == PERFORMANCE_REPORTS:
                    report = world.lab.control.decode("PerformanceReport", record.value)
                    for metric in report["metrics"]:
                        keep[number, report["segment"], metric["metric"]] = metric["value"]
    return watch.stop(world.rows)


def by_scikit_learn(world: World, keep: Metrics | None = None) -> Measured:
    watch = Stopwatch()
    for number, frame in enumerate(world.frames):
        _recompute(frame, number, keep)
    return watch.stop(world.rows)


def by_fastavro_and_scikit_learn(world: World) -> Measured:
    watch = Stopwatch()
    for number, messages in enumerate(world.messages):
        records = [world.lab.codec.decode(message.value()).record for message in messages]
        frame = pd.DataFrame(
            [
                {
                    "label": record["label"],
                    **{name: record["prediction"][name] for name in ("score", "predicted_class", "action")},
                    **{
                        name: record["prediction"]["request"][name]
                        for name in ("region", "employed", "amount")
                    },
                }
                for record in records
            ]
        )
        _recompute(frame, number, None)
    return watch.stop(world.rows)


def _recompute(frame: pd.DataFrame, number: int, keep: Metrics | None) -> None:
    for segment, rows in _segments(frame):
        truth, score = rows["label"].to_numpy(), rows["score"].to_numpy()
        chosen = (rows["predicted_class"] == "true").to_numpy()
        metrics = {
            "auc": sk.roc_auc_score(truth, score),
            "log_loss": sk.log_loss(truth, score),
            "brier": sk.brier_score_loss(truth, score),
            "accuracy": sk.accuracy_score(truth, chosen),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, chosen),
            "f1": sk.f1_score(truth, chosen),
        }
        if keep is not None:
            keep.update({(number, segment, name): float(value) for name, value in metrics.items()})


def _segments(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "", frame
    for region, rows in frame.groupby("region"):
        yield f"region={region}", rows
    for employed, rows in frame.groupby("employed"):
        yield f"employed={str(employed).lower()}", rows
    yield "amount > 50", frame[frame["amount"] > 50]


def largest_difference(world: World) -> tuple[float, float]:
    """Between any two metrics; of AUCs, binned where there are more scores than are kept apart, by itself."""
    ours: Metrics = {}
    theirs: Metrics = {}
    through_the_service(world, ours)
    by_scikit_learn(world, theirs)
    assert ours.keys() == theirs.keys()
    differences = {key: abs(ours[key] - theirs[key]) for key in ours}
    return (
        max(d for (_, _, metric), d in differences.items() if metric != "auc"),
        max(d for (_, _, metric), d in differences.items() if metric == "auc"),
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=10_000, help="outcomes in each window")
    parser.add_argument("--windows", type=int, default=5, help="windows in each run")
    options = parser.parse_args(given)
    say("making outcomes")
    world = World(options.rows, options.windows)
    cases: dict[str, Callable[[], Measured]] = {
        "scikit-learn": lambda: by_scikit_learn(world),
        "fastavro and scikit-learn": lambda: by_fastavro_and_scikit_learn(world),
        "service": lambda: through_the_service(world),
    }
    result = {f"{options.rows} outcomes a window": summary(interleave(cases, options.rounds), "scikit-learn")}
    difference, of_auc = largest_difference(world)
    say(f"largest difference of a metric to scikit-learn's: {difference:.1e}, of an AUC: {of_auc:.1e}")
    assert difference < 1e-9
    show(result, options.json)


if __name__ == "__main__":
    main()
