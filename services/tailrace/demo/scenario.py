"""The demo's story: a credit model goes live, its scorer is killed, the world changes, and the loop closes.

Everything is done by the commands that a person would type; the loans come from a replay of a timeline, which owns
the lane's clock.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.clickhouse.client import ClickHouse
from tailrace.contracts.records.record_types import DriftReportRecord
from tailrace.contracts.state.lane_clocks import WALL
from tailrace.demo import accuracy
from tailrace.demo.display import chart
from tailrace.demo.milestones import FIRST, LEAST_PAIRED, day, drift_alerts, milestones, successor
from tailrace.demo.observed import ObservedAnswer, Seen
from tailrace.demo.pacing import STILL_S, TIMES, behind, unjudged
from tailrace.demo.timeline import Timeline, timeline
from tailrace.demo.watched_replay import WatchedReplay
from tailrace.replay.claim import set_clock
from tailrace.replay.send import Replay
from tailrace.runtime.patience import Patience

MODEL = "credit"
_KILL_AFTER_DAYS = 14.0
_LEAST_RECOVERY = 0.05
"""By so much the accuracy has to be better with the loop than without it."""
_LONGEST_WAIT_MS = 1_000
_USUAL_END_S = 10.0
"""After the stream, until the last reports are in."""
_SHOWN = {
    "requests": "income, debt_ratio, age, purpose, amount",
    "predictions": "version, score, predicted_class, action, rule",
    "shadow_predictions": "version, score, predicted_class",
    "actions": "action, by",
    "labels": "defaulted, toString(applied_at) AS known",
    "outcomes": "version, role, state, label, revision",
}
_DAY_MS = 86_400_000


@dataclass
class Happened:
    """What the demo saw. ``missing`` names what did not happen; the rest is as ``--json`` prints it."""

    closed: bool = False
    drift: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, float | None] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recovery_seconds: float | None = None
    verify: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)


class Story(WatchedReplay):
    """
    Args:
        seconds: how long loans stream.
        rate: loans a second.
        seed: for the simulated loans; the same seed simulates the same applicants.
    """

    def __init__(self, folder: Path, seconds: float, rate: int, seed: int, keep: bool) -> None:
        self._happened = Happened()
        super().__init__(folder, keep, self._happened.missing)
        self._longest_s = TIMES * (seconds + _USUAL_END_S)
        self._seconds, self._rate, self._seed = seconds, rate, seed
        self._killed_ms = self._scorer = 0

    def run(self) -> Happened:
        """Raises TailraceError when a command of the story fails; what merely did not happen is in ``missing``."""
        began = time.monotonic()
        self._contract = self._project.make(MODEL)
        with self._running():
            self._plan = plan = self._first_version()
            with self._display:
                seen = self._stream(plan)
            self._judge(plan, seen)
            self._follow(plan, seen)
            self._happened.verify = self._project.verify()
            self._require("verify", self._happened.verify.get("ok"))
            if self._keep:  # event time has come to now, and goes on with the wall clock
                set_clock(self._project.connection, self._contract.lane, WALL, int(time.time() * 1000))
        self._happened.seconds = round(time.monotonic() - began, 1)
        self._happened.closed = not self._missing
        return self._happened

    # --- before the stream

    def _first_version(self) -> Timeline:
        plan = self._timeline()
        plan.history.write_csv(self._project.folder / "loans.csv")
        self._project.tailrace("train", MODEL, "--data", "loans.csv", "--where", "TRUE")
        self._project.wait_for_champion(MODEL, FIRST)
        return self._timeline()

    def _timeline(self) -> Timeline:
        """That of a stream that begins now."""
        end_ms = int((time.time() + self._seconds) * 1000)
        return timeline(self._contract, self._seed, end_ms, self._seconds, self._rate)

    # --- the stream

    def _stream(self, plan: Timeline) -> Seen:
        connection = self._project.connection
        self._scorer = self._project.pid("scorer")
        self._milestones = milestones(plan.change_ms)
        replay = Replay(
            connection, self._contract, plan.loans, plan.labels, plan.actions, plan.done, speed=plan.speed
        )
        seen = self._watch(self._contract, replay)
        self._missing += [milestone.name for milestone in self._milestones if milestone.text(seen) is None]
        self._happened.counts["sent"] = replay.sent.requests
        return seen

    def _take_note(self, seen: Seen) -> None:
        if not self._killed_ms and seen.event_ms > self._plan.start_ms + _KILL_AFTER_DAYS * _DAY_MS:
            self._display.say(f"$ kill -9 {self._scorer}        # the scorer, in the middle of a batch")
            os.kill(self._scorer, signal.SIGKILL)
            self._killed_ms = int(time.time() * 1000)
        for milestone in list(self._milestones):
            if (text := milestone.text(seen)) is not None:
                self._display.say(text)
                self._milestones.remove(milestone)
        if successor(seen) is not None and FIRST in seen.rollout.shadow:
            self._keep_first(MODEL)

    def _behind(self, seen: Seen, sent: int) -> str | None:
        window = max(self._contract.drift.window_ms, self._contract.quality.window_ms)
        return behind(seen, sent, self._rate) or unjudged(seen, self._plan.start_ms, window)

    def _waits_for(self, seen: Seen, sent: int) -> str | None:
        """None once all is answered, and the last window that can be mature has been judged."""
        unanswered = sent - len(seen.answers) - seen.dead_letters
        if unanswered > 0:
            return f"answers to {unanswered:,} requests"
        window, (_, age, *_rest) = self._contract.quality.window_ms, self._contract.quality.judge_at_ms
        last = (self._plan.end_ms - age) // window * window
        judged = {r["role"] for r in accuracy.latest(seen.judged()) if r["window_end"] == last}
        missing = [role for role in ("champion", "shadow") if role not in judged]
        return f"a report on the {' and the '.join(missing)} until {day(last)}" if missing else None

    # --- after the stream

    def _judge(self, plan: Timeline, seen: Seen) -> None:
        happened = self._happened
        answers = sorted(seen.answers, key=lambda a: a.prediction_ms)
        happened.counts |= seen.counts()
        happened.versions = seen.versions()
        is_exact = answers and not seen.twice and not happened.counts["lost"]
        self._require("every request answered exactly once", is_exact)
        self._judge_recovery(answers)
        self._judge_drift(plan, seen)
        self._judge_accuracy(plan, seen)
        self._judge_swap(seen, answers)

    def _judge_recovery(self, answers: list[ObservedAnswer]) -> None:
        after = [a for a in answers if a.request_ms > self._killed_ms]
        if self._killed_ms and after:
            self._happened.recovery_seconds = round((after[0].prediction_ms - self._killed_ms) / 1000, 2)
            counts = self._happened.counts
            self._display.say(
                f"The scorer was killed and answered again after {self._happened.recovery_seconds} s; "
                f"{counts['lost']} lost, {counts['twice']} answered twice."
            )
        else:
            self._missing.append("recovery after the kill")

    def _judge_drift(self, plan: Timeline, seen: Seen) -> None:
        true, false = drift_alerts(seen, plan.change_ms)
        self._happened.drift = {
            "true_at": plan.change_ms,
            "detected_at": min((alert["at"] for alert in true), default=None),
            "false_alerts": len(false),
        }
        self._require("no false drift alert", not false)
        for alert in false:
            self._display.say(f"false alert, {day(alert['at'])}: {alert['summary']}")

    def _judge_accuracy(self, plan: Timeline, seen: Seen) -> None:
        reports = seen.judged()
        follower = successor(seen)
        before = accuracy.answered(reports, FIRST, plan.start_ms, plan.change_ms)
        fallen = accuracy.answered(reports, FIRST, plan.change_ms, plan.end_ms)
        without, recovered = accuracy.on_the_same_requests(
            reports, FIRST, set() if follower is None else {follower}
        )
        shares = {"before": before, "fallen": fallen, "recovered": recovered, "without_loop": without}
        self._happened.accuracy = {
            name: None if share.value is None else round(share.value, 4) for name, share in shares.items()
        }
        self._require("accuracy before the change", before.value is not None)
        if recovered.value is None or without.value is None or fallen.value is None:
            self._missing.append("accuracy with and without the loop")
            return
        self._require("a recovery of the accuracy", recovered.value >= without.value + _LEAST_RECOVERY)
        self._require("enough outcomes to compare", recovered.n >= LEAST_PAIRED)
        self._display.say("\nAccuracy by window of ten days: ● who answered, ○ version 1 in shadow")
        for line in chart(accuracy.line(reports, FIRST)):
            self._display.say(line)

    def _judge_swap(self, seen: Seen, answers: list[ObservedAnswer]) -> None:
        follower = successor(seen)
        second = next((a.prediction_ms for a in answers if a.version == follower), None)
        if second is None:
            self._missing.append("an answer of the new version")
            return
        around = [a.wait_ms for a in answers if abs(a.request_ms - second) <= 1000]
        quiet = [a.wait_ms for a in answers if a.request_ms > second + 1000]
        self._display.say(
            f"\nVersion {follower} took over: the longest wait within a second of the swap was {max(around)} ms, "
            f"in the calm after it {max(quiet, default=0)} ms."
        )
        longest = max(_LONGEST_WAIT_MS, max(quiet, default=0))
        self._require("a swap that no request waited for", max(around) <= longest)

    def _follow(self, plan: Timeline, seen: Seen) -> None:
        """One loan from its request to its outcome, with topics and offsets, as ClickHouse has them."""
        follower = successor(seen)
        known = set(plan.loans["request_id"].gather(plan.labels.row))
        acted = set(plan.loans["request_id"].gather(plan.actions.row))
        mine = [a for a in seen.answers if a.version == follower and a.request_id in known]
        answer = next((a for a in mine if a.request_id in acted), mine[0] if mine else None)
        if answer is None:
            self._missing.append("a loan that could be followed")
            return
        way: dict[str, list[dict[str, Any]]] = {}
        patience = Patience(STILL_S)
        store = ClickHouse.connect(self._project.connection)
        while "outcomes" not in way:
            stored = store.select(f"SELECT count() AS rows FROM {MODEL}_outcomes")  # noqa: S608
            way = self._way(store, answer.request_id)
            if not patience.look(stored[0]["rows"]):
                break
            time.sleep(0.2)
        self._display.say(f"\nOne loan's way, {answer.request_id}:")
        for table, rows in way.items():
            for row in rows:
                at = row.pop("at")
                values = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
                self._display.say(f"  {table.replace('_', ' '):<19}{at:<34}{values}")
        self._require(
            "a loan followed to its outcome", {"requests", "predictions", "labels", "outcomes"} <= way.keys()
        )

    def _way(self, store: ClickHouse, request_id: str) -> dict[str, list[dict[str, Any]]]:
        at = "concat(_topic, '/', toString(_partition), '/', toString(_offset)) AS at"
        way = {
            table: store.select(  # of our own ids, nothing from outside
                f"SELECT {at}, {columns} FROM {MODEL}_{table} "  # noqa: S608
                f"WHERE request_id = '{request_id}' ORDER BY _time"
            )
            for table, columns in _SHOWN.items()
        }
        return {table: rows for table, rows in way.items() if rows}

    def _figures(self, seen: Seen) -> dict[str, str]:
        state = seen.rollout
        share = ", ".join(
            f"{a} {n / max(len(seen.answers), 1):.0%}" for a, n in sorted(seen.actions.copy().items())
        )
        training = seen.training()
        return {
            "date": day(seen.event_ms) if seen.event_ms else "-",
            "requests": f"{seen.requests:,}",
            "answers": f"{len(seen.answers):,}",
            "labels": f"{seen.labels:,}",
            "outcomes": f"{seen.outcomes:,}",
            "reports": f"{len(seen.drift) + len(seen.performance):,}",
            "last window": _window(seen.last_window()),
            "open alerts": ", ".join(sorted({a["kind"] for a in seen.open_alerts()})) or "none",
            "training": f"{training[0].get('progress') or 0:.0%}" if training else "-",
            "versions": f"champion {state.champion or '-'}"
            + (f", shadow {', '.join(map(str, state.shadow))}" if state.shadow else ""),
            "actions": share or "-",
        }


def _window(report: DriftReportRecord | None) -> str:
    if report is None:
        return "-"
    return f"{day(report['window_start'])} to {day(report['window_end'])}, {report['rows']:,} rows: {report['verdict']}"
