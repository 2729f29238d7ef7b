"""A virtual environment outside the repo, with exactly what an install of some extras would bring."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def build_wheel(into: Path) -> Path:
    """Builds the wheel from the checkout, with the build tools that are installed; touches no network."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(into), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    [wheel] = into.glob("tailrace-*.whl")
    return wheel


def make_environment(path: Path, wheel: Path, extras: set[str]) -> Path:
    """Makes an environment with the wheel and what the wheel itself says that it needs.

    The third-party packages are those of the lock file, linked from the environment that runs the tests, and
    only those that the wheel's metadata asks for, directly or not: what it forgets to declare is not there.

    Returns:
        The environment's folder of scripts.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True)
    [packages] = path.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps"]
    subprocess.run([*install, "--python", str(path / "bin" / "python"), str(wheel)], check=True)
    [metadata] = packages.glob("tailrace-*.dist-info")
    for needed in _closure(Distribution.at(metadata), extras):
        _link(needed, packages)
    return path / "bin"


def _closure(root: Distribution, extras: set[str]) -> list[Distribution]:
    distributions: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [(root, extra) for extra in (extras or {""})]
    while waiting:
        parent, extra = waiting.pop()
        for text in parent.requires or ():
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(needed.name)
            child = distributions.setdefault(name, distribution(name))
            for one in needed.extras or {""}:
                if (name, one) not in done:
                    done.add((name, one))
                    waiting.append((child, one))
    return list(distributions.values())


def _link(package: Distribution, into: Path) -> None:
    for file in package.files or ():
        if ".." not in file.parts:  # scripts, which tailrace does not call
            target = into.joinpath(*file.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(file.locate())
