"""Everything that an installation consists of beside the project's own code, with versions and licences.

What is installed is what the lock files say; licences are what each package says of itself, in the environment in which
this runs, and each jar in the cache of `tailrace up`.
"""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from tailrace.local.java import JarLock, jars
from tailrace.local.kafka import LOCK as JARS

ROOT = Path(__file__).resolve().parents[1]
PYTHON, IMAGE = ROOT / "requirements.txt", ROOT / "services" / "requirements.txt"
ELSEWHERE = "not installed on this system"

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", re.MULTILINE)

# How licence fields, licence files and classifiers call what SPDX has a name for; the first that fits. Of a file only
# the beginning is looked at: the licences of what a package carries along come behind its own.
_BEGINNING = 2_000
_SPDX = {
    r"GNU General Public License v2": "GPL-2.0-only WITH Classpath-exception-2.0",
    r"(?i)\bApache\b": "Apache-2.0",
    r"\bMPL-2\.0\b|Mozilla Public License 2\.0": "MPL-2.0",
    r"BSD-derived \(Repoze\)": "LicenseRef-Repoze",
    r"\bBSD[ -]2-Clause\b": "BSD-2-Clause",
    r"\bBSD[ -]3-Clause\b|\b3-Clause BSD\b": "BSD-3-Clause",
    r"(?s)Redistribution and use in source and binary forms.*\b(endorse|promote)\b": "BSD-3-Clause",
    r"Redistribution and use in source and binary forms": "BSD-2-Clause",
    r"\bMIT\b|/mit-license|Permission is hereby granted, free of charge": "MIT",
    r"\bISCL?\b": "ISC",
    r"\bPSFL?\b|\bPSF-2\.0\b|Python Software Foundation": "PSF-2.0",
    r"\bWTFPL\b": "WTFPL",
}
# Their jars say nothing; this is what their projects state.
_STATED = {
    "com.dynatrace.hash4j:hash4j": "Apache-2.0",
    "com.google.re2j:re2j": "BSD-3-Clause",
    "com.yammer.metrics:metrics-core": "Apache-2.0",
    "org.lz4:lz4-java": "Apache-2.0",
    "org.pcollections:pcollections": "MIT",
    "org.slf4j:slf4j-api": "MIT",
}


class Component(NamedTuple):
    """``versions``: several where Python's version decides; ``licence``: SPDX, or `ELSEWHERE`."""

    name: str
    versions: tuple[str, ...]
    licence: str

    @property
    def url(self) -> str:
        """The package URL, of its first version."""
        group, _, artifact = self.name.rpartition(":")
        kind = f"maven/{group}/{artifact}" if group else f"pypi/{self.name}"
        return f"pkg:{kind}@{self.versions[0]}"


def pins(lock: Path) -> dict[str, tuple[str, ...]]:
    """The versions that a lock file of Python packages allows, by name."""
    versions: dict[str, list[str]] = defaultdict(list)
    for name, version in _PIN.findall(lock.read_text()):
        versions[name].append(version)
    return {name: tuple(each) for name, each in versions.items()}


def python_components(lock: Path) -> list[Component]:
    return [Component(name, versions, _python_licence(name)) for name, versions in pins(lock).items()]


def java_components() -> list[Component]:
    """The jars of Kafka; those that this machine's cache lacks are fetched."""
    coordinates = [jar.coordinate.rpartition(":") for jar in JarLock.read(JARS).jars]
    return [
        Component(name, (version,), _STATED.get(name) or _jar_licence(jar))
        for (name, _, version), jar in zip(coordinates, jars(JARS), strict=True)
    ]


def _python_licence(name: str) -> str:
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return ELSEWHERE
    (expression, *_) = package.metadata.get_all("License-Expression", [""])
    return expression or _spdx(name, _python_words(package))


def _python_words(package: Distribution) -> Iterator[str]:
    yield from package.metadata.get_all("License", [])
    for file in package.files or []:
        if re.match(r"(LICEN[CS]E|COPYING)", file.name) and ".dist-info" in str(file):
            yield str(file.read_text())
    for classifier in package.metadata.get_all("Classifier", []):
        if classifier.startswith("License :: OSI Approved :: "):
            yield classifier.rpartition(" :: ")[2]


def _jar_licence(jar: Path) -> str:
    with zipfile.ZipFile(jar) as archive:
        manifest = archive.read("META-INF/MANIFEST.MF").decode()
        words = re.findall(r"Bundle-License: (.*)", re.sub(r"\r?\n ", "", manifest))
        for name in archive.namelist():
            if re.fullmatch(r"(META-INF/LICENSE.*|LICENSE.*|META-INF/maven/.*/pom\.xml)", name):
                text = archive.read(name).decode(errors="replace")
                words += re.findall(r"<license>\s*<name>([^<]*)", text) if name.endswith(".xml") else [text]
    return _spdx(jar.name, iter(words))


def _spdx(name: str, words: Iterator[str]) -> str:
    for text in words:
        for called, licence in _SPDX.items():
            if re.search(called, text[:_BEGINNING]):
                return licence
    raise ValueError(f"{name} does not say its licence in a way that is known here: look, and add it")
