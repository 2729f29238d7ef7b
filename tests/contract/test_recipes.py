"""The recipes of CONTRIBUTING.md add what they say, in a copy of the tree, and nothing else has to know of it.

In the copy the documents are made anew, then every test of documents and schemas has to pass, and a program of
`recipes/` finds what was added in contracts, in their JSON schema, in reports and in documents.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import indent

import pytest
from tests.support.distributions import install

ROOT = Path(__file__).resolve().parents[2]
RECIPES = Path(__file__).parent / "recipes"
COPIED = (
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "compose.yaml",
    "contracts",
    "docs",
    "observability",
    "pyproject.toml",
    "requirements.txt",
    "schemas",
    "services",
    "tests",
    "tools",
)
STATISTICS = Path("services/tailrace/statistics")
GUARDS = Path("services/tailrace/contracts/language/guards")
TEMPLATES = Path("services/tailrace/templates")
HOLD_DOCUMENTS = (
    "test_statistics_document.py",
    "test_guards_document.py",
    "test_templates_document.py",
    "test_contract_docs.py",
    "test_model_contract_files.py",
    "test_asyncapi.py",
    "test_schemas.py",
    "test_room_readmes.py",
    "test_compose.py",
    "test_record_kinds.py",
    "test_service_files.py",
    "test_services_table.py",
)


def blocks(title: str, language: str = "python") -> list[str]:
    """The programs of a section of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def made(title: str) -> list[list[str]]:
    """The commands of a target of the Makefile, each the arguments of Python and the file that it is put into."""
    target = re.search(rf"^{title}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target
    return [line.strip().removeprefix("$(BIN)/python ").split() for line in target[1].splitlines()]


class Copy:
    """A copy of the tree, of which the interpreter's own packages are used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = [root / "services", root]
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy(source, root / name)

    def add(self, table: Path, entry: str, imports: str = "") -> None:
        """Puts the entry at the end of the first table of a file."""
        path = self.root / table
        head, opened, rest = re.split(
            r"^([A-Z_]+: tuple\[.*\] = \(\n)", path.read_text(), maxsplit=1, flags=re.MULTILINE
        )
        entries, closed, rest = rest.partition("\n)\n")
        path.write_text(
            head.replace("\nfrom tailrace", f"\n{imports}from tailrace", 1)
            + opened
            + entries
            + f"\n{indent(entry.rstrip(), '    ')},"
            + closed
            + rest
        )

    def python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, self.paths)), "PYTHONSAFEPATH": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def holds(self, program: str) -> None:
        """Makes the pages, and runs what has to be so."""
        for arguments in made("pages"):
            command, into, file = " ".join(arguments).partition(" > ")
            output = self.python(*command.split())
            if into:
                (self.root / file).write_text(output)
        self.python(str(Path("tests/contract/recipes") / program))
        folder = Path("tests/contract")
        self.python(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(folder / name) for name in HOLD_DOCUMENTS)
        )


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def test_a_quality_metric_is_one_entry(copy: Copy) -> None:
    (entry,) = blocks("Add a quality metric")
    copy.add(STATISTICS / "metrics.py", entry)
    copy.holds("quality.py")


def test_a_drift_test_is_a_method_and_an_entry(copy: Copy) -> None:
    method, entry = blocks("Add a drift test")
    name = re.search(
        r"`services/tailrace/statistics/(\w+)\.py`, with its effect", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert name
    (copy.root / STATISTICS / f"{name[1]}.py").write_text(method)
    copy.add(STATISTICS / "drift_tests.py", entry, f"from tailrace.statistics.{name[1]} import {name[1]}\n")
    copy.holds("drift.py")


def test_a_guard_with_its_section_and_an_entry(copy: Copy) -> None:
    guard, entry = blocks("Add a guard")
    (copy.root / GUARDS / "margin.py").write_text(guard)
    module = "tailrace.contracts.language.guards.margin"
    copy.add(GUARDS / "guards.py", entry, f"from {module} import Margin, close_calls\n")
    copy.holds("guard.py")


def test_a_training_template_is_a_file_and_an_entry(copy: Copy) -> None:
    module, entry = blocks("Add a training template")
    (copy.root / TEMPLATES / "extra_trees.py").write_text(module)
    copy.add(TEMPLATES / "table.py", entry, "from tailrace.templates.extra_trees import EXTRA_TREES\n")
    copy.holds("template.py")


def test_a_team_brings_a_template_in_its_own_distribution(copy: Copy) -> None:
    (module,) = blocks("Bring a template of your own")
    (project,) = map(tomllib.loads, blocks("Bring a template of your own", "toml"))
    table = project["project"]
    (group,) = table["entry-points"]
    points = "".join(f"{name} = {target}\n" for name, target in table["entry-points"][group].items())
    site = copy.root / "site"
    files = {"acme_trees.py": module}
    install(site, table["name"], files, f"[{group}]\n{points}", table["version"])
    copy.paths.append(site)
    copy.python(str(Path("tests/contract/recipes/team_template.py")))


def test_a_service_is_an_app_a_readme_and_an_entry(copy: Copy) -> None:
    app, entry = blocks("Add a service")
    (readme,) = blocks("Add a service", "markdown")
    room = copy.root / "services" / "tailrace" / "notifier"
    room.mkdir()
    for name, text in (("__init__.py", ""), ("app.py", app), ("README.md", readme)):
        (room / name).write_text(text)
    copy.add(Path("services/tailrace/services.py"), entry)
    copy.holds("service.py")
    copy.python("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())")
