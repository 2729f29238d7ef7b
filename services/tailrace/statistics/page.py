"""Quality metrics and drift tests, as a page: ``python -m tailrace.statistics.page > docs/statistics.md``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tailrace.statistics.drift_tests import DRIFT_TESTS, EFFECT_SIZES
from tailrace.statistics.metrics import METRICS


def page() -> str:
    """The page, in Markdown."""
    metrics = _table(
        ("metric", "of tasks", "better", "definition", "95 % interval", "two versions are compared by"),
        ((f"`{m.name}`", ", ".join(m.tasks), m.better, m.doc, m.interval, m.paired or "-") for m in METRICS),
    )
    tests = _table(
        ("test", "of fields", "method", "effect"),
        ((f"`{t.name}`", ", ".join(t.kinds), t.doc, f"`{t.effect.name}`") for t in DRIFT_TESTS),
    )
    effects = _table(
        ("effect", "what it is", "floor by default"),
        ((f"`{e.name}`", e.doc, f"{e.floor:g}") for e in EFFECT_SIZES.values()),
    )
    return f"""\
# Quality metrics and drift tests

Made by `python -m tailrace.statistics.page > docs/statistics.md` from METRICS
(`services/tailrace/statistics/metrics.py`) and DRIFT_TESTS
(`services/tailrace/statistics/drift_tests.py`); do not edit. [CONTRIBUTING.md](../CONTRIBUTING.md) says
how one is added.

## Quality metrics

Training runs, packages, performance reports and gates compute them alike, and equal to scikit-learn's to
1e-9. A metric of no task is in reports where the contract has `value`, or `guardrails.coverage`.

{metrics}
## Drift tests

A contract names its tests in `drift.tests`, and the floors of their effects in `drift.min_effect`.

{tests}
## Effect sizes

{effects}"""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (heads, ["---"] * len(heads), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
