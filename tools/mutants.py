"""Whether the tests notice faults: ``python -m tools.mutants [NAME ...] [--json] [--jobs N]``.

The faults are listed in ``tests/mutants/*.toml``: a text of one file, what stands there instead, and the tests that
have to fail then. Each is put into a copy of the tree, one at a time; the working tree stays as it is. Ends with 0 only
where the tests pass without faults and fail with each of them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "mutants"
KILLED, LIVED, STALE = "killed", "lived", "no longer applies"

_LEFT_OUT = shutil.ignore_patterns(".*", "dist", "node_modules", "*.egg-info")
# Exit codes of pytest; the second is also that of a module that cannot be imported.
_TESTS_FAILED, _INTERRUPTED = 1, 2
_LONGEST_S = 600
"""How long the tests of one fault may take: a fault that never ends is noticed."""


class Fault(NamedTuple):
    """One change of the code.

    Attributes:
        name: unique, with the part of the product before a slash.
        why: what goes wrong with it.
        file, text, instead: where ``text`` stands, exactly once, and what stands there with the fault.
        tests: files or node ids of pytest, relative to the tree.
    """

    name: str
    why: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def applies(self, root: Path = ROOT) -> bool:
        file = root / self.file
        return file.is_file() and file.read_text().count(self.text) == 1

    def put_in(self, root: Path) -> None:
        file = root / self.file
        file.write_text(file.read_text().replace(self.text, self.instead))


class Result(NamedTuple):
    name: str
    outcome: str
    seconds: float
    by: str
    """The first test that failed."""


def read_faults(folder: Path = FAULTS) -> list[Fault]:
    """All faults, in the order of their files."""
    faults = []
    for file in sorted(folder.glob("*.toml")):
        for name, entry in tomllib.loads(file.read_text()).items():
            faults.append(Fault(f"{file.stem}/{name}", **{**entry, "tests": tuple(entry["tests"])}))
    return faults


def run(fault: Fault) -> Result:
    """Runs a fault's tests on a copy of the tree that has it."""
    began = time.monotonic()
    if not fault.applies():
        return Result(fault.name, STALE, 0.0, "")
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tree = _copy(Path(folder))
        fault.put_in(tree)
        code, output = _pytest(tree, fault.tests, "-x")
    if code not in (0, _TESTS_FAILED, _INTERRUPTED):
        raise RuntimeError(f"{fault.name}: pytest ended with {code}\n{output}")
    first = next((line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))), "")
    outcome = KILLED if code else LIVED
    return Result(fault.name, outcome, round(time.monotonic() - began, 1), first.partition(" - ")[0])


def pass_without(faults: Collection[Fault]) -> bool:
    """Whether the named tests pass on a copy without any fault; without it, no fault is said to be noticed."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        tests = sorted({test for fault in faults for test in fault.tests})
        code, output = _pytest(_copy(Path(folder)), tests)
    if code:
        print(output, file=sys.stderr)
    return code == 0


def _copy(folder: Path) -> Path:
    # Times and compiled files come along, so that nothing but the changed file is compiled again.
    return shutil.copytree(ROOT, folder / "tree", ignore=_LEFT_OUT)


def _pytest(tree: Path, tests: Sequence[str], *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "services")}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=_LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED, "FAILED after too long a time"
    return done.returncode, done.stdout + done.stderr


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="the faults, or the parts of the product; all without it")
    parser.add_argument("--json", action="store_true", help="the results as JSON on stdout")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at a time")
    options = parser.parse_args(arguments)
    faults = read_faults()
    if options.names:
        faults = [f for f in faults if f.name in options.names or f.name.partition("/")[0] in options.names]
    if not faults:
        parser.error("no such fault")
    began = time.monotonic()
    print(f"the tests of {len(faults)} faults, without any", file=sys.stderr)
    if not pass_without(faults):
        return 1
    results: list[Result] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for result in pool.map(run, faults):
            results.append(result)
            line = f"[{len(results)}/{len(faults)}] {result.outcome}: {result.name} ({result.seconds} s)"
            print(line, result.by, file=sys.stderr, flush=True)
    counts = Counter(result.outcome for result in results)
    summary = {outcome: counts[outcome] for outcome in (KILLED, LIVED, STALE)}
    seconds = round(time.monotonic() - began, 1)
    if options.json:
        report = {**summary, "seconds": seconds, "faults": [result._asdict() for result in results]}
        print(json.dumps(report, indent=2))
    else:
        print(", ".join(f"{number} {outcome}" for outcome, number in summary.items()), f"in {seconds} s")
    return 0 if counts[KILLED] == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
