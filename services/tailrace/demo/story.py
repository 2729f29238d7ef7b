"""The demo's story: a credit model goes live, its scorer is killed, the world changes, and the loop closes.

Everything is done by the commands that a person would type; the loans come from a replay of a timeline, which owns
the lane's clock.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.contracts.lanes import Lane
from tailrace.contracts.model_contract import ModelContract, load_contract
from tailrace.demo import accuracy
from tailrace.demo.beats import FIRST, LEAST_PAIRED, beats, day, drift_alerts, successor
from tailrace.demo.display import Display, chart
from tailrace.demo.seen import Answer, Seen
from tailrace.demo.timeline import Timeline, timeline
from tailrace.demo.watch import Watcher
from tailrace.kit.connection import Connection, connect
from tailrace.kit.data import data_dir
from tailrace.kit.errors import TailraceError
from tailrace.replay.send import Replay

MODEL = "credit"
_KILL_AFTER_DAYS = 14.0
_LEAST_RECOVERY = 0.05
"""By so much the accuracy has to be better with the loop than without it."""
_LONGEST_WAIT_MS = 1_000
_PATIENCE_S = 45.0
"""After the stream, until the last reports are in."""
_TABLES = ("requests", "predictions", "shadow_predictions", "actions", "labels", "outcomes")
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


class Story:
    """Runs in a project folder of its own, which it makes anew.

    Args:
        folder: the project folder; a home left there by an earlier run is taken down and purged.
        seconds: how long loans stream.
        rate: loans a second.
        seed: for the simulated loans; the same seed simulates the same applicants.
        keep: leave everything running at the end.
    """

    def __init__(self, folder: Path, seconds: float, rate: int, seed: int, keep: bool) -> None:
        self._folder, self._seconds, self._rate, self._seed, self._keep = folder, seconds, rate, seed, keep
        self._happened = Happened()
        self._display = Display()
        self._killed_ms = 0

    def run(self) -> Happened:
        """Raises TailraceError when a command of the story fails; what merely did not happen is in ``missing``."""
        began = time.monotonic()
        contract = self._fresh_folder()
        done = False
        try:
            self._tailrace("up", "--detach")
            plan = self._first_version(contract)
            with self._display:
                seen = self._stream(contract, plan)
            self._judge(plan, seen)
            self._follow(plan, seen)
            self._verify()
            done = True
        finally:
            if not (self._keep and done):
                self._tailrace("down", check=False)
        self._happened.seconds = round(time.monotonic() - began, 1)
        self._happened.closed = not self._happened.missing
        return self._happened

    # --- before the stream

    def _fresh_folder(self) -> ModelContract:
        if (self._folder / ".tailrace").exists():
            self._tailrace("down", "--purge", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
        models = self._folder / "contracts" / "models"
        models.mkdir(parents=True)
        shutil.copy(data_dir("contracts", "models") / f"{MODEL}.yaml", models)
        return load_contract(models / f"{MODEL}.yaml")

    def _first_version(self, contract: ModelContract) -> Timeline:
        plan = timeline(contract, self._seed, self._end_ms(), self._seconds, self._rate)
        plan.history.write_csv(self._folder / "loans.csv")
        self._tailrace("train", MODEL, "--data", "loans.csv", "--where", "TRUE")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if any(
                m["model"] == MODEL and m["champion"] == FIRST for m in self._status().get("models") or []
            ):
                return timeline(contract, self._seed, self._end_ms(), self._seconds, self._rate)
            time.sleep(0.2)
        raise TailraceError(
            f"version {FIRST} of {MODEL} is not champion after 60 s: see `tailrace logs rollout`"
        )

    def _end_ms(self) -> int:
        """When a stream that begins now has ended."""
        return int((time.time() + self._seconds) * 1000)

    # --- the stream

    def _stream(self, contract: ModelContract, plan: Timeline) -> Seen:
        connection = connect(home=self._folder / ".tailrace")
        scorer = self._pid("scorer")
        watcher = Watcher(connection, MODEL, Lane(contract.lane))
        watcher.start()
        sender = _Sender(connection, contract, plan)
        sender.start()
        untold = beats(plan.change_ms)
        seen, shown, before = watcher.seen, 0, 0
        began = time.monotonic()
        rescued = False
        while sender.is_alive() or not self._settled(contract, plan, seen, sender):
            watcher.check()
            elapsed = time.monotonic() - began
            if not self._killed_ms and seen.event_ms > plan.start_ms + _KILL_AFTER_DAYS * _DAY_MS:
                self._kill(scorer)
            for beat in list(untold):
                if (text := beat.tell(seen)) is not None:
                    self._display.say(text)
                    untold.remove(beat)
            rescued = rescued or self._keep_first(seen)
            if elapsed >= shown + 1:
                shown = int(elapsed)
                rate = len(seen.answers) - before
                before = len(seen.answers)
                points = accuracy.line(seen.performance.values(), FIRST)
                self._display.tick(elapsed, _figures(seen), rate, points)
            if elapsed > self._seconds + _PATIENCE_S:
                break
            time.sleep(0.1)
        watcher.stop()
        sender.check()
        self._happened.missing += [beat.name for beat in untold if beat.tell(seen) is None]
        self._happened.counts["sent"] = sender.replay.sent.requests
        return seen

    def _settled(self, contract: ModelContract, plan: Timeline, seen: Seen, sender: _Sender) -> bool:
        """All is answered, and the last window that can be mature has been judged."""
        if len(seen.answers) + seen.dead_letters < sender.replay.sent.requests:
            return False
        window, (_, age, *_rest) = contract.quality.window_ms, contract.quality.judge_at_ms
        last = (plan.end_ms - age) // window * window
        reports = accuracy.latest(seen.performance.values())
        return {"champion", "shadow"} <= {r["role"] for r in reports if r["window_end"] == last}

    def _kill(self, pid: int) -> None:
        self._display.say(f"$ kill -9 {pid}        # the scorer, in the middle of a batch")
        os.kill(pid, signal.SIGKILL)
        self._killed_ms = int(time.time() * 1000)

    def _keep_first(self, seen: Seen) -> bool:
        """Puts the first version back into shadow if its retirement took it out; says whether it had to."""
        if successor(seen) is None or FIRST not in seen.rollout.retired:
            return False
        words = ("shadow", MODEL, str(FIRST))
        threading.Thread(target=self._tailrace, args=words, kwargs={"check": False}, daemon=True).start()
        return True

    # --- after the stream

    def _judge(self, plan: Timeline, seen: Seen) -> None:
        happened, require = self._happened, self._require
        answers = sorted(seen.answers, key=lambda a: a.prediction_ms)
        happened.counts |= {
            "requests": seen.requests,
            "predictions": len(answers),
            "labels": seen.labels,
            "outcomes": seen.outcomes,
            "dead_letters": seen.dead_letters,
            "lost": seen.requests - len(answers) - seen.dead_letters,
            "twice": seen.twice,
        }
        happened.versions = {
            f"v{v}": sum(a.version == v for a in answers) for v in sorted({a.version for a in answers})
        }
        require(
            "every request answered exactly once", answers and not seen.twice and not happened.counts["lost"]
        )
        self._judge_recovery(answers)
        self._judge_drift(plan, seen)
        self._judge_accuracy(plan, seen)
        self._judge_swap(seen, answers)

    def _judge_recovery(self, answers: list[Answer]) -> None:
        after = [a for a in answers if a.request_ms > self._killed_ms]
        if self._killed_ms and after:
            self._happened.recovery_seconds = round((after[0].prediction_ms - self._killed_ms) / 1000, 2)
            counts = self._happened.counts
            self._display.say(
                f"The scorer was killed and answered again after {self._happened.recovery_seconds} s; "
                f"{counts['lost']} lost, {counts['twice']} answered twice."
            )
        else:
            self._happened.missing.append("recovery after the kill")

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
        reports = list(seen.performance.values())
        follower = successor(seen)
        before = accuracy.answered(reports, FIRST, plan.start_ms, plan.change_ms)
        fallen = accuracy.answered(reports, FIRST, plan.change_ms, plan.end_ms)
        without, recovered = accuracy.on_the_same_requests(
            reports, FIRST, set() if follower is None else {follower}
        )
        found = {"before": before, "fallen": fallen, "recovered": recovered, "without_loop": without}
        self._happened.accuracy = {
            name: None if share.value is None else round(share.value, 4) for name, share in found.items()
        }
        self._require("accuracy before the change", before.value is not None)
        if recovered.value is None or without.value is None or fallen.value is None:
            self._happened.missing.append("accuracy with and without the loop")
            return
        self._require("a recovery of the accuracy", recovered.value >= without.value + _LEAST_RECOVERY)
        self._require("enough outcomes to compare", recovered.n >= LEAST_PAIRED)
        self._display.say("\nAccuracy by window of ten days: ● who answered, ○ version 1 in shadow")
        for line in chart(accuracy.line(reports, FIRST)):
            self._display.say(line)

    def _judge_swap(self, seen: Seen, answers: list[Answer]) -> None:
        follower = successor(seen)
        second = next((a.prediction_ms for a in answers if a.version == follower), None)
        if second is None:
            self._happened.missing.append("an answer of the new version")
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
        one = next((a for a in mine if a.request_id in acted), mine[0] if mine else None)
        if one is None:
            self._happened.missing.append("a loan that could be followed")
            return
        way: dict[str, list[dict[str, Any]]] = {}
        deadline = time.monotonic() + 30
        while "outcomes" not in way and time.monotonic() < deadline:
            way = self._way(one.request_id)
        self._display.say(f"\nOne loan's way, {one.request_id}:")
        for table, rows in way.items():
            for row in rows:
                self._display.say(f"  {table.replace('_', ' '):<19}{row.pop('at'):<34}{_plainly(row)}")
        self._require(
            "a loan followed to its outcome", {"requests", "predictions", "labels", "outcomes"} <= way.keys()
        )

    def _way(self, request_id: str) -> dict[str, list[dict[str, Any]]]:
        at = "concat(_topic, '/', toString(_partition), '/', toString(_offset)) AS at"
        shown = {
            "requests": "income, debt_ratio, age, purpose, amount",
            "predictions": "version, score, predicted_class, action, rule",
            "shadow_predictions": "version, score, predicted_class",
            "actions": "action, by",
            "labels": "defaulted, toString(applied_at) AS known",
            "outcomes": "version, role, state, label, revision",
        }
        found = {}
        for table in _TABLES:
            sql = (  # of our own ids, nothing from outside
                f"SELECT {at}, {shown[table]} FROM {MODEL}_{table} "  # noqa: S608
                f"WHERE request_id = '{request_id}' ORDER BY _time"
            )
            rows = json.loads(self._tailrace("query", sql, "--json", quiet=True))
            if rows:
                found[table] = rows
        return found

    def _verify(self) -> None:
        found = json.loads(self._tailrace("verify", "--json", check=False))
        for problem in found.pop("problems", None) or []:
            self._display.say(f"verify: {problem}")
        self._happened.verify = {name: value for name, value in found.items() if not isinstance(value, dict)}
        self._require("verify", found.get("ok"))

    def _require(self, name: str, happened: Any) -> None:
        if not happened:
            self._happened.missing.append(name)

    # --- commands

    def _status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._tailrace("status", "--json", quiet=True, check=False))
        return found

    def _pid(self, service: str) -> int:
        return next(int(s["pid"]) for s in self._status()["services"] if s["name"] == service)

    def _tailrace(self, *words: str, check: bool = True, quiet: bool = False) -> str:
        """Runs a command in the project folder; returns its stdout."""
        if not quiet:
            self._display.command(*words)
        env = {k: v for k, v in os.environ.items() if k != "TAILRACE_HOME"}
        done = subprocess.run(
            [sys.executable, "-m", "tailrace.cli", *words],
            cwd=self._folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise TailraceError(f"`tailrace {' '.join(words)}` failed:\n{done.stderr.strip()}")
        return done.stdout


class _Sender(threading.Thread):
    """Replays a timeline."""

    def __init__(self, connection: Connection, contract: ModelContract, plan: Timeline) -> None:
        super().__init__(name="sender", daemon=True)
        self.replay = Replay(
            connection, contract, plan.loans, plan.labels, plan.actions, plan.done, speed=plan.speed
        )
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self.replay.run()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raises what ended the thread."""
        if self._error is not None:
            raise self._error


def _figures(seen: Seen) -> dict[str, str]:
    state = seen.rollout
    share = ", ".join(f"{a} {n / max(len(seen.answers), 1):.0%}" for a, n in sorted(seen.actions.items()))
    open_alerts = [a for a in seen.alerts.values() if a["alert_id"] not in seen.resolved]
    training = [run for run in seen.runs.values() if run["state"] in ("planned", "training", "trained")]
    return {
        "date": day(seen.event_ms) if seen.event_ms else "-",
        "requests": f"{seen.requests:,}",
        "answers": f"{len(seen.answers):,}",
        "labels": f"{seen.labels:,}",
        "outcomes": f"{seen.outcomes:,}",
        "reports": f"{len(seen.drift) + len(seen.performance):,}",
        "open alerts": ", ".join(sorted({a["kind"] for a in open_alerts})) or "none",
        "training": f"{training[0].get('progress') or 0:.0%}" if training else "-",
        "versions": f"champion {state.champion or '-'}"
        + (f", shadow {', '.join(map(str, state.shadow))}" if state.shadow else ""),
        "actions": share or "-",
    }


def _plainly(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
