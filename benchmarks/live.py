"""What a running Tailrace costs and how quick it is, measured from outside on its topics.

    python -m benchmarks.live [--seconds 20] [--rate 1000] [--json]

Starts everything in a folder of its own through the command line, then measures

- latency: from a request's append to its prediction's append (the broker's clock), at a steady rate;
- memory: resident bytes per service, after that load.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tailrace.client import Client
from tailrace.connection import connect
from tailrace.contracts.records.lanes import Lane
from tailrace.demo.loans import simulate
from tailrace.demo.watch import Watcher
from tailrace.package_data import data_dir


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Live:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "contracts" / "models").mkdir(parents=True)
        shutil.copy(data_dir("contracts", "models") / "credit.yaml", folder / "contracts" / "models")
        self._env = {k: v for k, v in os.environ.items() if k != "TAILRACE_HOME"}
        simulate(rows=3_000, seed=1).write_csv(folder / "loans.csv")

    def tailrace(self, *words: str) -> str:
        say(f"$ tailrace {' '.join(words)}")
        done = subprocess.run(
            [sys.executable, "-m", "tailrace.cli", *words],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"`tailrace {' '.join(words)}` failed:\n{done.stderr}")
        return done.stdout

    def champion(self) -> int | None:
        models = json.loads(self.tailrace("status", "--json"))["models"]
        return next((m["champion"] for m in models if m["model"] == "credit"), None)

    def latency(self, client: Client, watcher: Watcher, seconds: float, rate: int) -> dict[str, Any]:
        rows = simulate(rows=20_000, seed=2).drop("defaulted").to_dicts()
        seen_before = len(watcher.seen.answers)
        began = time.monotonic()
        sent = 0
        while (elapsed := time.monotonic() - began) < seconds:
            for _ in range(int(elapsed * rate) - sent):
                client.send("credit", rows[sent % len(rows)])
                sent += 1
            time.sleep(0.001)
        client.flush()
        deadline = time.monotonic() + 30
        while len(watcher.seen.answers) - seen_before < sent and time.monotonic() < deadline:
            time.sleep(0.05)
        waits = sorted(a.wait_ms for a in watcher.seen.answers[seen_before:])
        assert len(waits) == sent, f"{sent} sent, {len(waits)} answered"
        warm = sorted(a.wait_ms for a in watcher.seen.answers[seen_before + 2 * rate :])
        return {"rate": rate, "requests": sent} | {
            f"p{name}_ms": warm[min(len(warm) - 1, int(len(warm) * float(name) / 100))]
            for name in ("50", "99", "99.9")
        }

    def memory(self) -> dict[str, float]:
        status = json.loads(self.tailrace("status", "--json"))
        running = {s["name"]: s["pid"] for s in status["services"]}
        running |= {
            name: status[name]["pid"] for name in ("kafka", "registry", "clickhouse") if "pid" in status[name]
        }
        return {
            name: round(psutil.Process(pid).memory_info().rss / 2**20, 1) for name, pid in running.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tailrace-live-"))
    live = Live(folder)
    try:
        live.tailrace("up", "--detach")
        live.tailrace("train", "credit", "--data", "loans.csv", "--where", "debt_ratio >= 0")
        while live.champion() != 1:
            time.sleep(0.2)
        connection = connect({}, folder / ".tailrace")
        watcher = Watcher(connection, "credit", Lane("credit"))
        watcher.start()
        with Client(connection) as client:
            measured = {
                "latency": live.latency(client, watcher, wanted.seconds, wanted.rate),
                "memory_mib": live.memory(),
            }
        watcher.stop()
    finally:
        subprocess.run(
            [sys.executable, "-m", "tailrace.cli", "down", "--purge"],
            cwd=folder,
            capture_output=True,
        )
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(measured) if wanted.json else json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
