"""`verify` while requests flow: what is under way is in flight, never lost."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.project import Project


def test_verify_is_right_while_requests_flow(credit: Project) -> None:
    command = [sys.executable, "-m", "tailrace.cli", "replay", "loans.csv", "--model", "credit"]
    replay = subprocess.Popen(
        [*command, "--rate", "400", "--json"],
        cwd=credit.path,
        env=credit.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = []
    while replay.poll() is None:
        report = credit.json("verify", "--model", "credit", check=False)
        assert report["ok"], report["problems"]
        assert report["requests"] == report["predictions"] + report["dead_letters"] + report["in_flight"]
        seen.append(report["requests"])
    printed, progress = replay.communicate()
    assert replay.returncode == 0, progress
    assert json.loads(printed)["requests"] == json.loads(printed)["trained_on"] == 2_000
    assert " of 2,000 records, " in progress
    assert " s left" in progress
    final = credit.json("verify", "--model", "credit", check=False)
    assert final["ok"], final["problems"]
    assert seen[0] < final["requests"], f"never looked in between: {seen}"
