"""The demo's story: a credit model goes live, its scorer is killed, a better version takes over, nothing is lost.

Everything is done by the commands that a person would type; the stream itself uses the public client.
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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tailrace.client import Client
from tailrace.contracts.lanes import Lane
from tailrace.demo.display import Display
from tailrace.demo.watch import Answer, Watcher
from tailrace.kit.connection import connect
from tailrace.kit.data import data_dir
from tailrace.kit.errors import TailraceError

MODEL = "credit"
_HISTORY_ROWS = 6_000
_FIRST_ROWS = 2_000  # what the first version is trained on; the second sees the whole history


@dataclass
class Happened:
    """What the demo saw, as ``--json`` prints it."""

    ok: bool = False
    seconds: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    recovery_seconds: float | None = None
    swap: dict[str, float] = field(default_factory=dict)
    followed: dict[str, Any] = field(default_factory=dict)
    verify: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class Story:
    """Runs in a project folder of its own, which it makes anew.

    Args:
        folder: the project folder; a home left there by an earlier run is taken down and purged.
        seconds: how long applications stream.
        rate: applications a second.
        seed: for the simulated loans; the same seed streams the same applications.
        keep: leave everything running at the end.
    """

    def __init__(self, folder: Path, seconds: float, rate: int, seed: int, keep: bool) -> None:
        self._folder, self._seconds, self._rate, self._seed, self._keep = folder, seconds, rate, seed, keep
        self._happened = Happened()
        self._display = Display()

    def run(self) -> Happened:
        """Raises TailraceError when a command of the story fails; what merely did not happen is in ``missing``."""
        began = time.monotonic()
        self._fresh_folder()
        try:
            self._tailrace("up", "--detach")
            self._first_version()
            with self._display:
                watcher = self._stream()
            self._judge(watcher)
            self._follow(watcher)
            self._verify()
        finally:
            if not self._keep:
                self._tailrace("down", check=False)
        self._happened.seconds = round(time.monotonic() - began, 1)
        self._happened.ok = not self._happened.missing
        return self._happened

    # --- before the stream

    def _fresh_folder(self) -> None:
        if (self._folder / ".tailrace").exists():
            self._tailrace("down", "--purge", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)
        (self._folder / "contracts" / "models").mkdir(parents=True)
        for file in data_dir("contracts", "models").glob(f"{MODEL}.*"):
            shutil.copy(file, self._folder / "contracts" / "models" / file.name)

    def _first_version(self) -> None:
        from tailrace.demo.loans import simulate

        loans = simulate(rows=_HISTORY_ROWS, seed=self._seed)
        loans.head(_FIRST_ROWS).write_csv(self._folder / "loans-first.csv")
        loans.write_csv(self._folder / "loans.csv")
        self._tailrace("train", MODEL, "--data", "loans-first.csv", "--where", "debt_ratio >= 0")
        self._wait_for_champion(1)

    def _wait_for_champion(self, version: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = json.loads(self._tailrace("status", "--json", quiet=True, check=False))
            if any(m["model"] == MODEL and m["champion"] == version for m in status.get("models") or []):
                return
            time.sleep(0.2)
        raise TailraceError(
            f"version {version} of {MODEL} is not champion after 60 s: see `tailrace logs rollout`"
        )

    # --- the stream

    def _stream(self) -> Watcher:
        connection = connect(home=self._folder / ".tailrace")
        watcher = Watcher(connection, Lane(MODEL))
        watcher.start()
        swap = threading.Thread(target=self._second_version, name="second-version", daemon=True)
        applications = self._applications()
        killed = started_swap = False
        sent = 0
        began = time.monotonic()
        shown = 0
        before = 0
        with Client(connection) as client:
            while (elapsed := time.monotonic() - began) < self._seconds or (
                swap.is_alive() and elapsed < self._seconds + 60
            ):
                for _ in range(int(elapsed * self._rate) - sent):
                    client.send(MODEL, next(applications))
                    sent += 1
                if not killed and elapsed > 0.25 * self._seconds:
                    killed = True
                    self._kill_scorer()
                if not started_swap and elapsed > 0.5 * self._seconds:
                    started_swap = True
                    swap.start()
                if elapsed >= shown + 1:
                    shown = int(elapsed)
                    now = len(watcher.seen.answers)
                    self._display.tick(elapsed, self._figures(watcher), now - before)
                    before = now
                time.sleep(0.005)
            client.flush()
        swap.join(1)
        self._happened.counts["sent"] = sent
        self._await_answers(watcher, sent)
        watcher.stop()
        return watcher

    def _applications(self) -> Iterator[dict[str, Any]]:
        from tailrace.demo.loans import simulate

        block = 0
        while True:
            block += 1
            rows = simulate(rows=5_000, seed=self._seed + 1000 * block)
            yield from rows.drop("defaulted").iter_rows(named=True)

    def _figures(self, watcher: Watcher) -> dict[str, str]:
        seen = watcher.seen
        answers = seen.answers
        version = str(answers[-1].version) if answers else "-"
        share = ", ".join(f"{a} {n / max(len(answers), 1):.0%}" for a, n in sorted(seen.actions.items()))
        return {
            "requests": f"{seen.requests:,}",
            "predictions": f"{len(answers):,}",
            "dead letters": f"{seen.dead_letters:,}",
            "version": version,
            "actions": share or "-",
        }

    def _kill_scorer(self) -> None:
        status = json.loads(self._tailrace("status", "--json", quiet=True, check=False))
        pid = next(s["pid"] for s in status["services"] if s["name"] == "scorer")
        self._display.say(f"$ kill -9 {pid}        # the scorer, in the middle of a batch")
        os.kill(pid, signal.SIGKILL)
        self._killed_ms = int(time.time() * 1000)

    def _second_version(self) -> None:
        self._tailrace("train", MODEL, "--data", "loans.csv", "--where", "debt_ratio >= 0", check=False)
        self._tailrace("promote", MODEL, "2", check=False)
        time.sleep(5)  # so that the stream shows some of the second version

    def _await_answers(self, watcher: Watcher, sent: int) -> None:
        deadline = time.monotonic() + 30
        while len(watcher.seen.answers) + watcher.seen.dead_letters < sent and time.monotonic() < deadline:
            time.sleep(0.05)

    # --- after the stream

    def _judge(self, watcher: Watcher) -> None:
        seen = watcher.seen
        answers = sorted(seen.answers, key=lambda a: a.prediction_ms)
        happened = self._happened
        happened.counts |= {
            "requests": seen.requests,
            "predictions": len(answers),
            "dead_letters": seen.dead_letters,
            "lost": seen.requests - len(answers) - seen.dead_letters,
            "twice": seen.twice,
        }
        happened.versions = {
            f"v{v}": sum(a.version == v for a in answers) for v in sorted({a.version for a in answers})
        }
        if happened.counts["lost"] or happened.counts["twice"] or not answers:
            happened.missing.append("every request answered exactly once")
        after = [a for a in answers if a.request_ms > self._killed_ms]
        if after:
            happened.recovery_seconds = round((after[0].prediction_ms - self._killed_ms) / 1000, 2)
            self._display.say(
                f"The scorer was killed and answered again after {happened.recovery_seconds} s; "
                f"{happened.counts['lost']} lost, {happened.counts['twice']} answered twice."
            )
        else:
            happened.missing.append("recovery after the kill")
        self._judge_swap(answers)

    def _judge_swap(self, answers: list[Answer]) -> None:
        second = next((a.prediction_ms for a in answers if a.version == 2), None)
        if second is None:
            self._happened.missing.append("the second version answering")
            return
        quiet = [a.wait_ms for a in answers if a.request_ms > second + 1000]
        around = [a.wait_ms for a in answers if abs(a.request_ms - second) <= 1000]
        self._happened.swap = {
            "longest_wait_ms": max(around),
            "usual_longest_wait_ms": max(quiet, default=0),
            "requests_within_a_second": len(around),
        }
        self._display.say(
            f"Version 2 took over: the longest wait within a second of the swap was {max(around)} ms, "
            f"in the calm after it {max(quiet, default=0)} ms."
        )

    def _follow(self, watcher: Watcher) -> None:
        """One loan from its request through its prediction to its row in ClickHouse."""
        one = next((a for a in watcher.seen.answers if a.version == 2), watcher.seen.answers[-1])
        sql = (  # of our own coordinates, nothing from outside
            "SELECT request_id, version, score, action, rule FROM credit_predictions "  # noqa: S608
            f"WHERE _topic = '{one.at.topic}' AND _partition = {one.at.partition} AND _offset = {one.at.offset}"
        )
        rows: list[dict[str, Any]] = []
        deadline = time.monotonic() + 30
        while not rows and time.monotonic() < deadline:
            rows = json.loads(self._tailrace("query", sql, "--json", quiet=True))
        if not rows:
            self._happened.missing.append("the followed loan's row in ClickHouse")
            return
        self._happened.followed = {"request": str(one.source), "prediction": str(one.at), "row": rows[0]}
        self._display.say("\nOne loan's way:")
        self._display.say(f"  request     {one.source}")
        self._display.say(
            f"  prediction  {one.at}, {one.wait_ms} ms later, by version {one.version}: {one.action}"
        )
        self._display.say(f"  ClickHouse  {json.dumps(rows[0])}\n")

    def _verify(self) -> None:
        found = json.loads(self._tailrace("verify", "--json", check=False))
        self._happened.verify = {
            k: found.get(k) for k in ("ok", "requests", "predictions", "dead_letters", "lost", "duplicated")
        }
        if not found.get("ok"):
            self._happened.missing.append("verify")

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
