"""The loop on a real data set: a first version, a replay of the file, and what the loop made of it.

As in the story, everything is done by the commands that a person would type; the replay owns the lane's clock.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.clickhouse.client import ClickHouse
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.demo.data_sets import DataSet, find_file, write_phishing
from tailrace.demo.milestones import FIRST, day
from tailrace.demo.observed import Seen
from tailrace.demo.pacing import STILL_S, behind
from tailrace.demo.prequential import compare, first_version_answers
from tailrace.demo.watched_replay import WatchedReplay
from tailrace.files.data_mapping import find_mapping
from tailrace.files.rows import read_rows
from tailrace.replay.schedule import NOTHING
from tailrace.replay.send import Replay, labels_after
from tailrace.replay.trained import champion_manifest
from tailrace.runtime.patience import Patience

_BLOCK_MS = 7 * 86_400_000


@dataclass
class DemoResult:
    """What came of it; all but ``missing`` as ``--json`` prints it.

    ``accuracy`` is prequential: of the answers as they were given, with the loop and as version 1 would have given
    them, on the same requests, those that version 1 was trained on left out.
    """

    closed: bool = False
    data: str = ""
    rows: int = 0
    drift: dict[str, Any] = field(default_factory=dict)
    promoted: list[int] = field(default_factory=list)
    accuracy: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)


class DataStory(WatchedReplay):
    """
    Args:
        file: where the data's file is; by default under its usual name in the current folder.
        rate: records a second, instead of the set's own.
    """

    _usual_s = 0.0  # a training takes seconds, which are weeks of the world that is replayed

    def __init__(
        self, data: DataSet, file: Path | None, folder: Path, rate: float | None = None, keep: bool = False
    ) -> None:
        self._result = DemoResult(data=data.model)
        super().__init__(folder, keep, self._result.missing)
        self._data, self._given = data, file
        self._rate = data.rate if rate is None else rate
        self._trained_until = -1
        self._last_ms = self._steps = 0
        self._shown_alerts: set[tuple[str, int | None]] = set()

    def run(self) -> DemoResult:
        """Raises TailraceError when a command fails; what merely did not happen is in ``missing``."""
        began = time.monotonic()
        data, result, project = self._data, self._result, self._project
        source = find_file(data, self._given)  # before anything is made anew
        self._contract = project.make(data.model)
        file = project.folder / data.file
        if source is None:
            write_phishing(file)
        else:
            shutil.copy(source, file)
        self._display.say(data.about)
        with self._running():
            project.tailrace("train", data.model, "--data", data.file, *data.train)
            project.wait_for_champion(data.model, FIRST)
            first = champion_manifest(project.connection, project.folder / ".tailrace", data.model)
            if first is not None and first.lineage.trained_on is not None and not data.train:
                self._trained_until = first.lineage.trained_on.last_ms
            with self._display:
                seen = self._replay(file)
            self._judge(seen)
            if data.retrained:
                self._compare(self._contract, seen)
            result.verify = project.verify()
            self._require("verify", result.verify.get("ok"))
        result.seconds = round(time.monotonic() - began, 1)
        result.closed = not self._missing
        return result

    def _replay(self, file: Path) -> Seen:
        data, contract = self._data, self._contract
        rows = read_rows(file, find_mapping(self._project.folder, data.model), contract, where=data.where)
        self._result.rows = len(rows)
        self._last_ms = int(rows[contract.event_time.name][-1])
        labels = NOTHING
        if data.label_delay_ms is not None:
            labels, _ = labels_after(rows, contract, data.label_delay_ms, until_ms=int(time.time() * 1000))
        return self._watch(
            contract, Replay(self._project.connection, contract, rows, labels, rate=self._rate)
        )

    def _take_note(self, seen: Seen) -> None:
        for alert in list(seen.alerts.values()):
            kind = alert["kind"], alert["version"]  # the first of its kind says enough
            if kind not in self._shown_alerts and not alert["detail"].get("segment"):
                self._shown_alerts.add(kind)
                self._display.say(f"{day(alert['at'])}: {alert['summary']}")
        for step in seen.steps[self._steps :]:
            self._steps += 1
            when = f"{day(seen.event_ms)}: " if seen.event_ms else ""
            self._display.say(f"{when}version {step['version']}: {step['step']}, {step['reason']}")
        if self._data.retrained and any(step["step"] == "promote" for step in seen.steps):
            self._keep_first(self._data.model)  # or it would be retired when the second candidate is promoted

    def _behind(self, seen: Seen, sent: int) -> str | None:
        return behind(seen, sent, self._rate)

    def _waits_for(self, seen: Seen, sent: int) -> str | None:
        """None once all is answered, and the last window that could be judged has been."""
        unanswered = self._result.rows - len(seen.answers) - seen.dead_letters
        if unanswered > 0:
            return f"answers to {unanswered:,} requests"

        def last(window_ms: int) -> int:
            return self._last_ms // window_ms * window_ms

        drift_end, quality_end = map(last, (self._contract.drift.window_ms, self._contract.quality.window_ms))
        if drift_end not in [report["window_end"] for report in list(seen.drift.values())]:
            return "the drift report on the last window"
        ends = [report["window_end"] for report in seen.judged()]
        if self._data.label_delay_ms is not None and quality_end not in ends:
            return "the performance report on the last window"
        return None

    def _judge(self, seen: Seen) -> None:
        result = self._result
        result.counts = seen.counts() | {"trainings": len(seen.runs)}
        result.versions = seen.versions()
        is_exact = not (result.counts["lost"] or seen.twice) and seen.requests == result.rows
        self._require("every request answered exactly once", is_exact)
        alerts = [a for a in seen.alerts_of("drift") if not a["detail"].get("segment")]
        features = sorted({name for a in alerts for name in a["detail"]["features"].split(",")})
        first = min((a["at"] for a in alerts), default=None)
        result.drift = {"detected_at": first, "alerts": len(alerts), "features": features}
        drift_on = self._data.drift_on
        self._require(f"a drift alert that names {drift_on}", drift_on is None or drift_on in features)
        result.promoted = [s["version"] for s in seen.steps if s["step"] == "promote" and s["version"]]
        self._require("a promotion of a retrained version", not self._data.retrained or result.promoted)

    def _compare(self, contract: ModelContract, seen: Seen) -> None:
        """Prequential accuracy from ClickHouse; waits until it has all that was answered."""
        store = ClickHouse.connect(self._project.connection)
        model, target = self._data.model, contract.target.name
        answer = "request_id, version, predicted_class"
        patience = Patience(STILL_S)
        predictions: list[dict[str, Any]] = []
        while len(predictions) < len(seen.answers) and patience.look(len(predictions)):
            predictions = store.select(
                f"SELECT {answer}, toUnixTimestamp64Milli(event_time) AS at FROM {model}_predictions ORDER BY at"  # noqa: S608
            )
        shadow = store.select(f"SELECT {answer} FROM {model}_shadow_predictions")  # noqa: S608
        truth = {
            row["request_id"]: "true" if row[target] else "false"
            for row in store.select(f"SELECT request_id, {target} FROM {model}_labels")  # noqa: S608
        }
        without = first_version_answers(predictions, shadow, FIRST)
        new = [row for row in predictions if row["at"] > self._trained_until and row["request_id"] in truth]
        both = [row for row in new if row["request_id"] in without]
        comparison = compare(
            [row["at"] for row in both],
            [row["predicted_class"] == truth[row["request_id"]] for row in both],
            [without[row["request_id"]] == truth[row["request_id"]] for row in both],
            min(_BLOCK_MS, contract.quality.window_ms),
        )
        if comparison is None:
            self._missing.append("a comparison with version 1")
            return
        self._result.accuracy = comparison._asdict() | {"left_out": len(new) - len(both)}

    def _figures(self, seen: Seen) -> dict[str, str]:
        state = seen.rollout
        return {
            "date": day(seen.event_ms) if seen.event_ms else "-",
            "requests": f"{seen.requests:,}",
            "answers": f"{len(seen.answers):,}",
            "outcomes": f"{seen.outcomes:,}",
            "open alerts": ", ".join(sorted({a["kind"] for a in seen.open_alerts()})) or "none",
            "trainings": f"{len(seen.runs)}",
            "versions": f"champion {state.champion or '-'}"
            + (f", shadow {', '.join(map(str, state.shadow))}" if state.shadow else ""),
        }
