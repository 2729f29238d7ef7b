"""A home that has been used: services did all that they do under their limits, and what they left is its owner's."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.landlock import needs_landlock
from tests.support.project import Project, running_project

from tailrace.confinement import landlock
from tailrace.demo.loans import simulate
from tailrace.local.home import Home
from tailrace.package_data import data_dir
from tailrace.services import TABLE

NOBODY = 65534


@pytest.fixture(scope="module")
def used() -> Iterator[Project]:
    """A running project in a folder that everybody may go through: a model was trained, answered, was trained again by
    the trainer, and its labels were joined and stored.
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with running_project(Path(folder) / "project") as project:
            _use(project)
            yield project


def _use(project: Project) -> None:
    contract = project.path / "credit.yaml"
    text = (data_dir("contracts", "models") / "credit.yaml").read_text()
    # Two days of loans are to be enough for windows whose horizon has passed.
    for pattern, quick in (
        (r"min_labels: \d+", "min_labels: 100"),
        (r"horizon: \w+", "horizon: 6h"),
        (r"window: 10d", "window: 6h"),
        (r"judge_at: \[.*\]", "judge_at: [6h]"),
    ):
        text = re.sub(pattern, quick, text)
    contract.write_text(text)
    simulate(rows=3_000, seed=1).write_csv(project.path / "loans.csv")
    project.run("apply", str(contract))
    project.run("train", "credit", "--data", "loans.csv", "--where", "TRUE")
    project.wait_for_champion("credit", 1)
    project.run("replay", "loans.csv", "--model", "credit", "--label-delay", "2h")
    # Refused until enough of what was joined has been counted.
    project.wait(lambda: project.run("retrain", "credit", check=False).returncode == 0, "enough labels")


def exposed(folder: Path) -> list[str]:
    """What group or others can do anything with, below a folder and the folder itself."""
    return [
        f"{stat.filemode(mode)} {path}"
        for path in (folder, *folder.rglob("*"))
        if (mode := _mode(path)) is not None and not stat.S_ISLNK(mode) and mode & 0o077
    ]


def _mode(path: Path) -> int | None:
    """None for what the services at work have removed meanwhile, such as the folder of a merge of ClickHouse's."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def test_a_used_home_has_nothing_for_group_or_others(used: Project) -> None:
    assert not exposed(used.home)
    kinds = {path.relative_to(used.home).parts[0] for path in used.home.rglob("*") if path.is_file()}
    assert kinds >= {"data", "run", "keys", "cache", "home.json"}, "the walk has missed something"


def test_what_the_umask_of_a_shell_leaves_open_is_seen(tmp_path: Path) -> None:
    (tmp_path / "open").touch(0o640)
    tmp_path.chmod(0o700)
    assert len(exposed(tmp_path)) == 1


@pytest.mark.parametrize("what", ["keys/signing.key", "run/addresses.json", "run/kafka.log", "home.json"])
def test_another_user_reads_no_file_of_the_home(used: Project, what: str) -> None:
    if os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "this test has to be root to become another user"
        pytest.skip("only root can become another user")
    file = used.home / what
    open_to_all = used.path.parent / "open"
    open_to_all.touch(0o644)
    assert file.exists()
    assert _read_by_nobody(open_to_all).returncode == 0, "that one it can read, and the home's it cannot"
    refused = _read_by_nobody(file)
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


def _read_by_nobody(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["cat", str(file)], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True
    )


def test_all_that_services_do_is_done(used: Project) -> None:
    """Answers are given, labels joined, rows stored; the trainer's process reads, trains and says how it ended."""
    report = used.json("verify", "--model", "credit", "--deep", check=False)
    assert report["ok"], report["problems"]
    assert report["requests"] == report["predictions"] > 0

    def ended() -> list[dict[str, Any]]:
        return list(used.json("query", "SELECT state FROM training_runs WHERE state != 'running'"))

    used.wait(ended, "the end of a training run")
    assert used.json("query", "SELECT count() AS n FROM credit_outcomes")[0]["n"] > 0
    assert list((used.home / "cache" / "rollout" / "examined").iterdir())
    assert not (used.home / "cache" / "scorer" / "examined").exists(), "rollout's word is not taken"
    assert {service["restarts"] for service in used.status()["services"]} == {0}, used.logs()


@needs_landlock
@pytest.mark.parametrize("name", [*TABLE, "clickhouse"])
def test_every_thread_of_every_service_is_confined_and_its_log_says_so(used: Project, name: str) -> None:
    service = psutil.Process(used.pid(name))
    for process in (service, *service.children(recursive=True)):  # examiners and workers too
        for thread in process.threads():
            status = Path(f"/proc/{process.pid}/task/{thread.id}/status").read_text()
            assert "NoNewPrivs:\t1" in status, process.cmdline()
    assert "confined by Landlock" in Home(used.home).log(name).read_text()


def test_what_services_write_is_in_folders_of_their_own(used: Project) -> None:
    caches = {folder.name for folder in (used.home / "cache").iterdir()}
    assert caches - {"owner"} == set(TABLE)  # owner: the commands, such as verify
    assert {folder.name for folder in (used.home / "state").iterdir()} == {"joiner"}
    assert {path.name for path in used.path.iterdir()} == {".tailrace", "credit.yaml", "loans.csv"}


def test_nothing_compiles_for_itself_what_is_compiled(used: Project) -> None:
    """Numba reads only where it may write: each service has a copy, in which nothing is newer than what was copied."""
    own = used.home / "cache" / "scorer" / "numba"
    copies = list(own.rglob("*.nbc"))
    assert copies
    sources = {file.name: file for file in Path(landlock.__file__).parent.parent.rglob("__pycache__/*.nbc")}
    for copy in copies:
        assert copy.read_bytes() == sources[copy.name].read_bytes(), copy
