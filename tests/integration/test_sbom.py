"""The bill of materials has every package and every jar of the lock files."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tools.components import PYTHON, pins
from tools.sbom import text

from tailrace.local.java import JarLock
from tailrace.local.kafka import LOCK as JARS


@pytest.fixture
def bill() -> Any:
    return json.loads(text())


def test_it_is_what_cyclonedx_reads(bill: Any) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    bill["components"][0]["type"] = "book"
    assert validator.validate_str(json.dumps(bill)) is not None


def test_every_package_and_jar_is_in_it_with_its_licence(bill: Any) -> None:
    named = {component["purl"]: component for component in bill["components"]}
    packages = {
        f"pkg:pypi/{name}@{version}" for name, versions in pins(PYTHON).items() for version in versions
    }
    jars = {
        "pkg:maven/{}/{}@{}".format(*jar.coordinate.split(":")): jar.sha256 for jar in JarLock.read(JARS).jars
    }
    assert named.keys() == packages | jars.keys()
    assert {purl: named[purl]["hashes"][0]["content"] for purl in jars} == jars
    unknown = {component["name"] for component in named.values() if "licenses" not in component}
    assert unknown <= {"colorama", "httpx2-jsfetch"}, (
        "what is installed here says its licence; these are for others"
    )


def test_licences_are_ones_that_spdx_knows(bill: Any) -> None:
    known = set(
        json.loads(files("cyclonedx.schema").joinpath("_res", "spdx.SNAPSHOT.schema.json").read_text())[
            "enum"
        ]
    )
    for component in bill["components"]:
        for licence in component.get("licenses", []):
            names = licence.get("expression") or licence["license"].get("id") or licence["license"]["name"]
            ids = set(re.split(r" AND | OR | WITH |[()]", names)) - {""}
            assert ids <= known | {"LicenseRef-Repoze"}, component


def test_all_of_it_is_what_tailrace_stands_on(bill: Any) -> None:
    subject = bill["metadata"]["component"]
    assert (subject["name"], subject["licenses"]) == ("tailrace", [{"license": {"id": "Apache-2.0"}}])
    (needs,) = [each["dependsOn"] for each in bill["dependencies"] if each["ref"] == subject["bom-ref"]]
    assert len(needs) == len(bill["components"])
