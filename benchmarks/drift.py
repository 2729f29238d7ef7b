"""Drift windows: rows a second, next to scipy and evidently on the same rows.

Windows of so many rows with 25 numbers and 5 categories against 10,000 rows of training. ``service`` is all that the
service does with predictions but Kafka: reading their Avro, counting, merging, closing, tests, reports. ``statistics``
is counting and tests on the columns that the others get too. ``scipy`` calls ks_2samp and chi2_contingency on the same
values and the same reference sample of 1,000 points, or on all rows of training. ``evidently`` runs its data drift
preset with the same two tests against all rows of training, in an environment of its own. The p-values of
``statistics`` and ``scipy`` are compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.harness import Measured, Stopwatch, arguments, interleave, say, show, summary
from benchmarks.scorer_cases import VALUES, features
from tailrace.avro.codec import Codec
from tailrace.avro.columns.decoder import Column
from tailrace.contracts.language.load import load_contract
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.contracts.records.record_types import DriftReportRecord
from tailrace.contracts.records.schemas import prediction_schema, subject
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.drift.count import DriftSubject
from tailrace.drift.counts import DriftCounts
from tailrace.drift.judge import DriftWindow, judge
from tailrace.drift.layout import NumberSlots, SlotLayout
from tailrace.drift.windows import DriftWindows
from tailrace.models.reference import Reference, category_profile, feature_profiles, number_profile
from tailrace.statistics.ks import p_value
from tailrace.streaming.records import PlainMessage
from tailrace.testing.control_records import contract_record, manifest_record
from tailrace.testing.formula_model import formula_model
from tailrace.testing.memory_registry import MemoryRegistry
from tailrace.testing.signed_records import Control, message_of
from tailrace.windows.kinds import NO_TIME, Closed

EVIDENTLY = ["evidently==0.7.23", "pandas<3", "pyarrow"]
NUMBERS = [f"number_{i}" for i in range(25)]
CATEGORIES = [f"category_{i}" for i in range(5)]
TRAINED = 10_000
DAY = 86_400_000
BATCH = 5_000
CONTRACT = f"""
model: benchmark
owner: {{team: benchmarks}}
{features(NUMBERS, CATEGORIES)}
target: {{name: bad, type: boolean}}
"""


def rows(count: int, seed: int) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({name: draw.normal(size=count) for name in NUMBERS})
    for name in CATEGORIES:
        frame[name] = draw.choice(VALUES, count, p=[0.4, 0.3, 0.2, 0.1]).astype(object)
    return frame


class World:
    """A contract, a version with its reference, and windows of rows, as columns and as prediction records."""

    def __init__(self, window_rows: int, windows: int) -> None:
        self.contract: ModelContract = load_contract(CONTRACT)
        self.applied = AppliedContract(
            "benchmark", 1, self.contract.digest, self.contract.resolved_json, "", "", 0
        )
        self.manifest = formula_model(self.contract, 1).manifest
        self.trained = rows(TRAINED, 0)
        columns = {name: self.trained[name].to_numpy() for name in self.trained}
        scores = np.random.default_rng(1).random(TRAINED)
        self.reference = Reference(
            rows=TRAINED,
            features=feature_profiles(columns, self.manifest.inputs),
            output_rows=TRAINED,
            score=number_profile(scores),
            predicted_class=category_profile(np.where(scores > 0.5, "true", "false"), ("false", "true")),
        )
        self.layout = SlotLayout.of(self.reference, [i.name for i in self.manifest.inputs])
        # Windows of a stream differ in size, so that their p-values are not those of the one before.
        self.frames = [rows(window_rows - 7 * number, 100 + number) for number in range(windows)]
        self.columns = [_columns(frame) for frame in self.frames]
        self.samples = {
            field.name: np.repeat(field.points, field.reference)
            for field in self.layout.fields
            if isinstance(field, NumberSlots)
        }
        self.registry = MemoryRegistry()
        self.messages = [self._messages(number, frame) for number, frame in enumerate(self.frames)]

    @property
    def rows(self) -> int:
        return sum(map(len, self.frames))

    def _messages(self, number: int, frame: pd.DataFrame) -> list[Any]:
        codec = Codec(self.registry)
        topic = Lane("benchmark").predictions
        schema_id = self.registry.register(
            subject(topic, "benchmark", "benchmark"), prediction_schema(self.contract)
        )
        event = {
            "key": "k",
            "model": "benchmark",
            "version": 1,
            "artifact_digest": self.manifest.digest,
            "contract_digest": self.contract.digest,
            "rollout_revision": 1,
            "runtime": {"python": "3.11", "onnxruntime": "1.31", "machine": "x86_64"},
            "role": "champion",
            "served_by": "model",
            "replaced": [],
            "probabilities": {},
            "action": "approve",
            "action_propensity": 1.0,
            "arm_propensity": 1.0,
            "guardrails": [],
            "guarded": False,
            "latency_ms": 1.5,
        }
        draw = np.random.default_rng(number)
        messages = []
        for at, row in enumerate(frame.to_dict("records")):
            score = float(draw.random())
            name = f"{draw.integers(2**60):016x}"
            value = codec.encode(
                schema_id,
                {
                    **event,
                    "prediction_id": name * 2,
                    "request_id": name,
                    "event_time": number * DAY + at,
                    "source": {"topic": "benchmark.requests", "partition": 0, "offset": at},
                    "request": {"request_id": name, **row},
                    "score": score,
                    "predicted_class": "true" if score > 0.5 else "false",
                },
            )
            messages.append(PlainMessage(topic, 0, at, value, b"k", timestamp_ms=10**15))
        return messages

    def service(self) -> DriftWindows:
        """Told of contract and version."""
        control = Control(self.registry)
        contract = contract_record(self.contract)
        manifest = manifest_record("benchmark", 1, self.manifest.digest)
        windows = DriftWindows(
            control.by("drift"), lambda _: (self.manifest, self.reference), lambda _: None, list
        )
        windows.control(
            [
                message_of(control.record("Contract", contract)),
                message_of(control.record("ModelManifest", manifest)),
            ]
        )
        return windows


def _columns(frame: pd.DataFrame) -> dict[str, Column]:
    found = {name: Column(frame[name].to_numpy(), None) for name in NUMBERS}
    return found | {name: Column([v.encode() for v in frame[name]], None) for name in CATEGORIES}


def through_the_service(world: World) -> Measured:
    service, topic = world.service(), Lane("benchmark").predictions
    # A p-value of a window is computed once in its life; those of the rounds before are not to help.
    p_value.cache_clear()
    watch = Stopwatch()
    for number, messages in enumerate(world.messages):
        subjects: dict[str, Any] = {}
        for first in range(0, len(messages), BATCH):
            batch = messages[first : first + BATCH]
            cells = service.count(topic, service.read(topic, batch), np.full(len(batch), NO_TIME))
            for _, cell in cells:
                subjects[cell.subject] = service.add(subjects.get(cell.subject), cell.counts)
        service.judge(Closed("benchmark", "predictions", world.applied, number * DAY, 0, subjects), {})
    return watch.stop(world.rows)


def by_statistics(
    world: World, *, warm: bool = False, keep: Callable[[DriftReportRecord], None] | None = None
) -> Measured:
    if not warm:
        p_value.cache_clear()
    watch = Stopwatch()
    for number, columns in enumerate(world.columns):
        n = len(columns[NUMBERS[0]].values)
        slots = np.concatenate(world.layout.slots(columns, n))
        counts = DriftCounts(n, 0, np.bincount(slots, minlength=world.layout.width))
        window = DriftWindow("benchmark", world.applied, number * DAY)
        report = judge(window, DriftSubject(1, "", "champion", ""), counts, world.layout)
        if keep is not None:
            keep(report)
    return watch.stop(world.rows)


def by_scipy(
    world: World, samples: Mapping[str, Any], keep: Callable[[dict[str, float]], None] | None = None
) -> Measured:
    watch = Stopwatch()
    for frame in world.frames:
        p_values = {}
        for name in NUMBERS:
            p_values[name] = float(stats.ks_2samp(frame[name].to_numpy(), samples[name]).pvalue)
        for name in CATEGORIES:
            table = pd.DataFrame(
                {"window": frame[name].value_counts(), "training": world.trained[name].value_counts()}
            ).fillna(0)
            p_values[name] = float(stats.chi2_contingency(table.T.to_numpy()).pvalue)
        if keep is not None:
            keep(p_values)
    return watch.stop(world.rows)


def evidently(world: World, folder: Path) -> Callable[[], Measured]:
    """Installs evidently in an environment of its own; gives what runs it. Its CPU time is not this process's."""
    python = folder / "environment" / "bin" / "python"
    say("installing evidently in an environment of its own")
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(folder / "environment")],
        ["pip", "install", "--quiet", "--python", str(python), *EVIDENTLY],
    ):
        subprocess.run([sys.executable, "-m", "uv", *command], check=True)
    reference, windows = folder / "reference.parquet", folder / "windows.parquet"
    world.trained.to_parquet(reference)
    numbered = [frame.assign(window=number) for number, frame in enumerate(world.frames)]
    pd.concat(numbered).to_parquet(windows)

    def run() -> Measured:
        peer = Path(__file__).with_name("evidently_peer.py")
        command = [str(python), "-W", "ignore", str(peer), str(reference), str(windows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
        return Measured(world.rows, sum(seconds), sum(seconds))

    return run


def largest_difference(world: World) -> float:
    """Between any two p-values of the same test of ours and of scipy."""
    reports: list[DriftReportRecord] = []
    others: list[dict[str, float]] = []
    by_statistics(world, keep=reports.append)
    by_scipy(world, world.samples, keep=others.append)
    return max(
        abs((test["p_value"] or 0.0) - other[test["feature"]])
        for report, other in zip(reports, others, strict=True)
        for test in report["tests"]
        if test["feature"] in other and test["test"] in ("ks", "chi2")
    )


def main(given: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=5_000, help="rows in each window")
    parser.add_argument("--windows", type=int, default=10, help="windows in each run")
    parser.add_argument(
        "--no-evidently", action="store_true", help="do without evidently, which is downloaded"
    )
    options = parser.parse_args(given)
    warnings.simplefilter("ignore")
    say("making rows")
    world = World(options.rows, options.windows)
    cases: dict[str, Callable[[], Measured]] = {
        "scipy": lambda: by_scipy(world, world.samples),
        "scipy, all of training": lambda: by_scipy(
            world, {name: world.trained[name].to_numpy() for name in NUMBERS}
        ),
        "statistics": lambda: by_statistics(world),
        "statistics, p-values known": lambda: by_statistics(world, warm=True),
        "service": lambda: through_the_service(world),
    }
    with tempfile.TemporaryDirectory(prefix="tailrace-benchmark-") as folder:
        if not options.no_evidently:
            cases["evidently"] = evidently(world, Path(folder))
        result = {f"{options.rows} rows a window": summary(interleave(cases, options.rounds), "scipy")}
    difference = largest_difference(world)
    say(f"largest difference of a p-value to scipy's: {difference:.1e}")
    assert difference < 1e-9
    show(result, options.json)


if __name__ == "__main__":
    main()
