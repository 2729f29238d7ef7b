"""The wheel, installed where the repo is not: it imports with little, and runs with its extras from nowhere."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from tests.support.bare_environment import ROOT, build_wheel, make_environment
from tests.support.waiting import PATIENCE_S

from tailrace.services import PROGRAMS

_FOREIGN = ("KAFKA_BOOTSTRAP", "SCHEMA_REGISTRY_", "CLICKHOUSE_", "PYTHON", "VIRTUAL_ENV")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def _env(scripts: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return env | {"PATH": f"{scripts}{os.pathsep}{env['PATH']}"}


def _run(scripts: Path, cwd: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(scripts / command[0]), *command[1:]],
        cwd=cwd,
        env=_env(scripts),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    if check and done.returncode:
        logs = [
            f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
            for log in cwd.glob(".tailrace/run/*.log")
        ]
        raise AssertionError("\n".join([" ".join(command), done.stdout, done.stderr, *logs]))
    return done


def test_the_wheel_carries_what_a_running_installation_reads(wheel: Path) -> None:
    carried = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("schemas", "contracts/topics", "contracts/models"):
        files = [file for file in (ROOT / folder).rglob("*") if file.is_file()]
        assert files
        for file in files:
            assert f"tailrace/_data/{file.relative_to(ROOT)}" in carried
    assert "tailrace/local/kafka-jars.lock" in carried
    tests = re.compile(r"(^|/)(tests?|testing|test_[^/]*|conftest\.py)(/|$)")
    assert not [name for name in carried if tests.search(name)]


def test_the_base_install_is_all_that_an_application_needs(wheel: Path, tmp_path: Path) -> None:
    scripts = make_environment(tmp_path / "env", wheel, extras=set())
    program = (
        "import json, sys, tailrace; from importlib.metadata import distributions; tailrace.Client; "
        "print(json.dumps([tailrace.__file__, sorted(d.name for d in distributions())]))"
    )
    origin, installed = json.loads(_run(scripts, tmp_path, "python", "-c", program).stdout)
    assert origin.startswith(str(tmp_path))
    assert installed == ["confluent-kafka", "fastavro", "tailrace"]
    refused = _run(scripts, tmp_path, "tailrace", "status", check=False)
    assert refused.returncode == 1
    assert "tailrace[services]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_two_extras_are_all_that_a_container_needs(wheel: Path, tmp_path: Path) -> None:
    scripts = make_environment(tmp_path / "env", wheel, extras={"services", "train"})
    programs = [module for name, module in PROGRAMS.items() if name != "clickhouse"]
    # What these import when they get to work.
    later = ["tailrace.control.apply", "tailrace.clickhouse.migrations", "tailrace.models.formats.skops.run"]
    _run(scripts, tmp_path, "python", "-c", f"import {', '.join([*programs, *later])}")
    assert "registry" in _run(scripts, tmp_path, "tailrace", "run", "--help").stdout


def test_with_its_extras_it_runs_everything_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    scripts = make_environment(tmp_path / "env", wheel, extras={"local", "services", "train"})
    folder = tmp_path / "empty"
    folder.mkdir()
    draw = random.Random(7)
    rows = ["temperature,humidity,machine,failed"]
    for _ in range(400):
        temperature, humidity = draw.gauss(60, 15), draw.random()
        failed = temperature + 20 * humidity + draw.gauss(0, 5) > 75
        rows.append(f"{temperature:.2f},{humidity:.3f},{draw.choice('ABC')},{'yes' if failed else 'no'}")
    (folder / "machines.csv").write_text("\n".join(rows) + "\n")

    init = (
        "init",
        "machines.csv",
        "--target",
        "failed",
        "--positive",
        "yes",
        "--name",
        "machines",
        "--every",
        "1min",
    )
    _run(scripts, folder, "tailrace", *init)
    try:
        _run(scripts, folder, "tailrace", "up", "--detach")
        _run(scripts, folder, "tailrace", "train", "machines", "--data", "machines.csv")
        hot = {"temperature": 110.0, "humidity": 0.9, "machine": "A"}
        answer = _run(scripts, folder, "tailrace", "predict", "machines", json.dumps(hot), "--json")
        assert json.loads(answer.stdout)["score"] > 0.5
        origin = "import tailrace.package_data as d; print(d.data_dir('schemas', 'avro'))"
        assert str(tmp_path) in _run(scripts, folder, "python", "-c", origin).stdout
    finally:
        _run(scripts, folder, "tailrace", "down", "--purge", check=False)
    assert not (folder / ".tailrace").exists()
