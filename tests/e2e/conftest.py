"""A project with everything up, shared by the tests that only use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.project import Project, running_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Tests apply models of their own, and leave everything running."""
    with running_project(tmp_path_factory.mktemp("project")) as running:
        yield running


@pytest.fixture(scope="session")
def credit(project: Project) -> Project:
    """The project with the credit model in service, trained on simulated loans."""
    from tailrace.demo.loans import simulate
    from tailrace.package_data import data_dir

    contract = project.path / "contracts" / "models" / "credit.yaml"
    contract.parent.mkdir(parents=True, exist_ok=True)
    contract.write_text((data_dir("contracts", "models") / "credit.yaml").read_text())
    simulate(rows=2_000, seed=1).write_csv(project.path / "loans.csv")
    project.run("apply", str(contract))
    project.run("train", "credit", "--data", "loans.csv", "--where", "TRUE")
    project.wait_for_champion("credit", 1)
    return project
