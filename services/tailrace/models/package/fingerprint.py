"""What a score depends on besides its inputs: the CPU and the libraries that computed it."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from contextlib import suppress
from pathlib import Path

LIBRARIES = ("tailrace", "numpy", "onnxruntime", "scikit-learn", "scipy", "polars", "skops")


@functools.cache
def cpu_fingerprint() -> str:
    """12 hex digits that name the CPU: architecture, model and instruction sets.

    BLAS and ONNX Runtime choose their kernels by instruction set, so another CPU gives other last bits.
    """
    facts = [platform.system(), platform.machine()]
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "CPU implementer", "CPU part", "flags", "Features"):
                facts.append(" ".join(sorted(value.split())))
            elif not line.strip():
                break  # the first core speaks for all
    except OSError:
        facts.append(platform.processor())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


@functools.cache
def library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@functools.cache
def runtime_versions() -> dict[str, str]:
    """The ``runtime`` of a prediction event: library versions and the CPU's fingerprint."""
    return {**library_versions(), "cpu": cpu_fingerprint()}
