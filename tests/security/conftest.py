"""The home that attacks are made on where it has to have been used."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.project import Project, running_project

from tailrace.demo.loans import simulate
from tailrace.kit.data import data_dir


@pytest.fixture(scope="session")
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
    project.wait(lambda: project.run("retrain", "credit", check=False).returncode == 0, "enough labels", 120)
