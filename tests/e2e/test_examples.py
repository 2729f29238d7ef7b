"""examples/, as they stand: each program is run as its README says, in this order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.project import Project
from tests.support.waiting import PATIENCE_S

EXAMPLES = Path(__file__).parents[2] / "examples"


def _run(project: Project, program: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / program)],
        cwd=project.path,
        env=project.env | env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{project.logs()}"
    return done.stdout


@pytest.fixture(scope="module")
def parcels(project: Project) -> Project:
    """The project with version 1 of the model in service, published by the data scientist's program."""
    project.run("apply", str(EXAMPLES / "parcels.yaml"))
    printed = _run(project, "publish_version.py")
    assert re.match(r"published parcels 1: .*\bauc 0\.[89]", printed), printed
    project.wait_for_champion("parcels", 1)
    return project


@pytest.fixture(scope="module")
def sent(parcels: Project) -> list[str]:
    """What the application's program printed."""
    return _run(parcels, "send_requests.py").splitlines()


def test_an_application_is_answered_and_refused(sent: list[str]) -> None:
    *answered, rejected, labelled = sent
    assert {line.split(" ")[0] for line in answered} == {"P-1:", "P-2:", "P-3:"}
    actions = {line.split(" ")[0]: line.split(" ")[1] for line in answered}
    assert (actions["P-1:"], actions["P-2:"]) == ("ship", "warn")
    assert all(re.fullmatch(r"P-\d: \w+ [01]\.\d{3} by version 1", line) for line in answered)
    assert rejected.startswith("P-4: rejected, distance: ")
    assert labelled == "P-2: labelled"


def test_a_consumer_decodes_what_the_application_was_told(parcels: Project, sent: list[str]) -> None:
    read = _run(parcels, "read_predictions.py", **parcels.json("env")).splitlines()
    answers = [line.split(": ", 1)[1] for line in read]
    lines = [
        line.replace(":", "").removesuffix(" by version 1") for line in sent if line.endswith("version 1")
    ]
    assert sorted(answers) == sorted([*lines, next(answer for answer in lines if answer.startswith("P-2"))])
