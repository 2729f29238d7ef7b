"""docs/integrate.md, as it stands: every example is taken from the page and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from tests.support.project import Project
from tests.support.waiting import until

from tailrace.access.credentials import APPLICATION
from tailrace.connection import connect
from tailrace.local.java import jars
from tailrace.testing.java_program import compile_java, run_java

PAGE = Path(__file__).parents[2] / "docs" / "integrate.md"
AVRO = Path(__file__).parents[1] / "support" / "avro.lock"
ANSWERED = re.compile(r"answered: (approve|refer|refuse) 0[.,]\d{3} by version 1")


def _examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _predictions(project: Project, key: str) -> list[dict[str, Any]]:
    lines = project.run("tail", "credit.predictions", "--limit", "100000", "--json").stdout.splitlines()
    return [r["value"] for r in map(json.loads, lines) if r["key"] == key]


def _until_answered(project: Project, key: str) -> dict[str, Any]:
    (event,) = until(lambda: _predictions(project, key), lambda: f"an answer to {key}\n{project.logs()}")
    return dict(event)


def test_python(credit: Project) -> None:
    (program,) = _examples("python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=credit.path,
        env=credit.env,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    answered, rejected = done.stdout.splitlines()
    assert ANSWERED.fullmatch(answered)
    assert rejected.startswith("rejected: age - ")
    assert _until_answered(credit, "L-3")["request"]["loan_id"] == "L-3"
    (label,) = [json.loads(x) for x in credit.run("tail", "credit.labels", "--json").stdout.splitlines()]
    assert (label["key"], label["value"]["defaulted"]) == ("L-3", False)
    (action,) = [json.loads(x) for x in credit.run("tail", "credit.actions", "--json").stdout.splitlines()]
    assert (action["key"], action["value"]["action"], action["value"]["by"]) == ("L-3", "approve", "maria")


def test_java(credit: Project, tmp_path: Path) -> None:
    (program,) = _examples("java")
    source = tmp_path / "Score.java"
    source.write_text(program)
    classpath = compile_java(source, tmp_path / "classes", also=jars(AVRO))
    printed = run_java(classpath, "Score", env=os.environ | _environment(credit))
    assert ANSWERED.fullmatch(printed.strip())
    assert _until_answered(credit, "J-1")["request"]["age"] == 44


def _environment(credit: Project) -> dict[str, str]:
    """What the page's examples are run with: what `tailrace env` prints."""
    return dict(credit.json("env"))


def _sh(credit: Project, script: str) -> str:
    """Runs an example with kcat where it is installed; elsewhere does with librdkafka what kcat does with it: a null
    key, librdkafka's own partitioner, a line of text as the value."""
    if shutil.which("kcat"):
        (login,) = _examples("bash")
        done = subprocess.run(
            ["sh", "-c", login + script],
            cwd=credit.path,
            env=os.environ | _environment(credit),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
    match = re.fullmatch(r"echo '(.*)' \|\n  kcat -P -b \"\$KAFKA_BOOTSTRAP_SERVERS\" -t (\S+)\n", script)
    assert match, script
    producer = Producer(connect({}, credit.home, APPLICATION).kafka)
    producer.produce(match[2], match[1].encode(), None)
    assert producer.flush(30) == 0
    return ""


def test_kcat(credit: Project) -> None:
    request, label, read = _examples("sh")
    _sh(credit, request)
    event = _until_answered(credit, "K-1")
    assert (event["request_id"], event["request"]["amount"]) == ("K-1", 9000.0)
    _sh(credit, label)
    stored = "SELECT defaulted FROM credit_labels WHERE loan_id = 'K-1'"
    rows = until(lambda: credit.json("query", stored), credit.logs)
    assert [bool(row["defaulted"]) for row in rows] == [False]
    assert "isolation.level=read_committed" in read
    if (
        shutil.which("kcat")
        and "Avro" in subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
    ):
        assert "K-1" in _sh(credit, read)


def test_the_account_is_in_order(credit: Project) -> None:
    found = credit.json("verify", "--model", "credit", "--deep", check=False)
    assert found["ok"], found["problems"]
    assert (found["predictions"], found["dead_letters"]) == (4, 1)
    assert found["topics"]["credit.labels"]["rows"] == 2
