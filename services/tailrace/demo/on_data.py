"""The loop on a real data set: a first version, a replay of the file, and what the loop made of it.

As in the story, everything is done by the commands that a person would type; the replay owns the lane's clock.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.clickhouse.client import ClickHouse
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.contracts.records.lanes import Lane
from tailrace.demo import accuracy
from tailrace.demo.data_sets import DataSet, find_file, write_phishing
from tailrace.demo.display import Display
from tailrace.demo.milestones import FIRST, day
from tailrace.demo.observed import Report, Seen
from tailrace.demo.pacing import STILL_S, Pacing, behind
from tailrace.demo.prequential import compare, first_version_answers
from tailrace.demo.project import DemoProject
from tailrace.demo.sender import Sender
from tailrace.demo.watch import Watcher
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


class DataStory:
    """Runs in a project folder of its own, which it makes anew.

    Args:
        data: the set.
        file: where its file is; by default under its usual name in the current folder.
        folder: the project folder.
        rate: records a second, instead of the set's own.
        keep: leave everything running at the end.
    """

    def __init__(
        self, data: DataSet, file: Path | None, folder: Path, rate: float | None = None, keep: bool = False
    ) -> None:
        self._data, self._given, self._keep = data, file, keep
        self._rate = data.rate if rate is None else rate
        self._display = Display()
        self._project = DemoProject(folder, self._display)
        self._found = DemoResult(data=data.model)
        self._trained_until = -1

    def run(self) -> DemoResult:
        """Raises TailraceError when a command fails; what merely did not happen is in ``missing``."""
        began = time.monotonic()
        data, found, project = self._data, self._found, self._project
        source = find_file(data, self._given)  # before anything is made anew
        contract = project.make(data.model)
        file = project.folder / data.file
        if source is None:
            write_phishing(file)
        else:
            shutil.copy(source, file)
        self._display.say(data.about)
        done = False
        try:
            project.tailrace("up", "--detach")
            project.tailrace("train", data.model, "--data", data.file, *data.train)
            project.wait_for_champion(data.model, FIRST)
            first = champion_manifest(project.connection, project.folder / ".tailrace", data.model)
            if first is not None and first.lineage.trained_on is not None and not data.train:
                self._trained_until = first.lineage.trained_on.last_ms
            with self._display:
                seen = self._replay(contract, file)
            self._judge(seen)
            if data.retrained:
                self._compare(contract, seen)
            found.verify = project.verify()
            if not found.verify.get("ok"):
                found.missing.append("verify")
            done = True
        finally:
            if not (self._keep and done):
                project.tailrace("down", check=False)
        found.seconds = round(time.monotonic() - began, 1)
        found.closed = not found.missing
        return found

    def _replay(self, contract: ModelContract, file: Path) -> Seen:
        data, project = self._data, self._project
        mapping = find_mapping(project.folder, data.model)
        rows = read_rows(file, mapping, contract, where=data.where)
        self._found.rows = len(rows)
        labels = NOTHING
        if data.label_delay_ms is not None:
            labels, _ = labels_after(rows, contract, data.label_delay_ms, until_ms=int(time.time() * 1000))
        connection = project.connection
        watcher = Watcher(connection, data.model, Lane(contract.lane))
        watcher.start()
        sender = Sender(Replay(connection, contract, rows, labels, rate=self._rate))
        sender.start()
        seen, told, steps, shown, before, kept = watcher.seen, set[str](), 0, 0, 0, False
        began = time.monotonic()
        last = int(rows[contract.event_time.name][-1])
        # A training takes seconds, which are weeks of the world that is replayed.
        pacing, end = Pacing(usual_s=0), Patience(STILL_S)
        while True:
            sending = sender.is_alive()
            waits = None if sending else self._waits_for(contract, seen, len(rows), last)
            if not sending and waits is None:
                break
            watcher.check()
            elapsed = time.monotonic() - began
            if waits is None:
                reason = behind(seen, sender.replay.sent.requests, self._rate)
                if pacing.holds(reason, *seen.progress()):
                    sender.replay.hold()
                    self._display.waits(f"{reason}; meanwhile no time passes")
                else:
                    sender.replay.go_on()
            elif not end.look(*seen.progress()):
                self._found.missing.append(f"an end (it waited for {waits})")
                break
            else:
                self._display.waits(waits)
            for alert in list(seen.alerts.values()):
                about = f"{alert['kind']} {alert['version']}"  # the first of its kind says enough
                if about not in told and not alert["detail"].get("segment"):
                    told.add(about)
                    self._display.say(f"{day(alert['at'])}: {alert['summary']}")
            for step in seen.steps[steps:]:
                steps += 1
                when = f"{day(seen.event_ms)}: " if seen.event_ms else ""
                self._display.say(f"{when}version {step['version']}: {step['step']}, {step['reason']}")
            if data.retrained and not kept and any(s["step"] == "promote" for s in seen.steps):
                kept = True  # or it would be retired when the second candidate is promoted
                words = ("shadow", data.model, str(FIRST))
                threading.Thread(target=project.tailrace, args=words, kwargs={"check": False}).start()
            if elapsed >= shown + 1:
                shown = int(elapsed)
                rate, before = len(seen.answers) - before, len(seen.answers)
                self._display.tick(elapsed, _figures(seen), rate, accuracy.line(seen.judged(), FIRST)[-24:])
            time.sleep(0.05)
        watcher.stop()
        sender.check()
        return seen

    def _waits_for(self, contract: ModelContract, seen: Seen, rows: int, last_ms: int) -> str | None:
        """What is to come after the replay; None once all is answered, and the last window that could be judged has
        been.
        """
        unanswered = rows - len(seen.answers) - seen.dead_letters
        if unanswered > 0:
            return f"answers to {unanswered:,} requests"

        def judged(reports: list[Report], window_ms: int) -> bool:
            return any(r["window_end"] == last_ms // window_ms * window_ms for r in reports)

        if not judged(list(seen.drift.values()), contract.drift.window_ms):
            return "the drift report on the last window"
        if self._data.label_delay_ms is not None and not judged(seen.judged(), contract.quality.window_ms):
            return "the performance report on the last window"
        return None

    def _judge(self, seen: Seen) -> None:
        found = self._found
        found.counts = seen.counts() | {"trainings": len(seen.runs)}
        found.versions = seen.versions()
        if found.counts["lost"] or seen.twice or seen.requests != found.rows:
            found.missing.append("every request answered exactly once")
        alerts = [a for a in seen.alerts_of("drift") if not a["detail"].get("segment")]
        features = sorted({name for a in alerts for name in a["detail"]["features"].split(",")})
        first = min((a["at"] for a in alerts), default=None)
        found.drift = {"detected_at": first, "alerts": len(alerts), "features": features}
        if self._data.drift_on is not None and self._data.drift_on not in features:
            found.missing.append(f"a drift alert that names {self._data.drift_on}")
        found.promoted = [s["version"] for s in seen.steps if s["step"] == "promote"]
        if self._data.retrained and not found.promoted:
            found.missing.append("a promotion of a retrained version")

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
        result = compare(
            [row["at"] for row in both],
            [row["predicted_class"] == truth[row["request_id"]] for row in both],
            [without[row["request_id"]] == truth[row["request_id"]] for row in both],
            min(_BLOCK_MS, contract.quality.window_ms),
        )
        if result is None:
            self._found.missing.append("a comparison with version 1")
            return
        self._found.accuracy = result._asdict() | {"left_out": len(new) - len(both)}


def _figures(seen: Seen) -> dict[str, str]:
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
