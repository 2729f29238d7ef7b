"""Writes the bill of materials of what is installed, in CycloneDX's JSON: ``python -m tools.sbom FILE``."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component as Entry
from cyclonedx.model.component import ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tailrace.local.java import JarLock
from tailrace.local.kafka import LOCK as JARS
from tools.components import ELSEWHERE, PYTHON, ROOT, Component, java_components, python_components


def bill() -> Bom:
    """Every Python package of the lock file and every jar, all needed by Tailrace."""
    bom = Bom()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    subject = _entry(
        Component(project["name"], (project["version"],), project["license"]), ComponentType.APPLICATION
    )
    bom.metadata.component = subject
    for entry in _needed():
        bom.components.add(entry)
    bom.register_dependency(subject, bom.components)
    return bom


def _needed() -> Iterator[Entry]:
    for name, versions, licence in python_components(PYTHON):
        for version in versions:
            yield _entry(Component(name, (version,), licence))
    sums = {jar.coordinate: jar.sha256 for jar in JarLock.read(JARS).jars}
    for component in java_components():
        entry = _entry(component)
        sha256 = sums[f"{component.name}:{component.versions[0]}"]
        entry.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=sha256))
        yield entry


def _entry(component: Component, kind: ComponentType = ComponentType.LIBRARY) -> Entry:
    licences = (
        [] if component.licence == ELSEWHERE else [LicenseFactory().make_from_string(component.licence)]
    )
    return Entry(
        name=component.name,
        version=component.versions[0],
        type=kind,
        licenses=licences,
        purl=PackageURL.from_string(component.url),
        bom_ref=component.url,
    )


def text() -> str:
    return JsonV1Dot6(bill()).output_as_string(indent=2)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text() + "\n")
