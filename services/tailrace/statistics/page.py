"""Quality metrics and drift tests, as a page: ``python -m tailrace.statistics.page > docs/statistics.md``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tailrace.statistics.drift_tests import DRIFT_TESTS, EFFECT_SIZES
from tailrace.statistics.metrics import METRICS


def page() -> str:
    """The page, in Markdown."""
    return "\n".join(
        [
            "# Quality metrics and drift tests",
            "",
            "Made by `python -m tailrace.statistics.page > docs/statistics.md` from METRICS",
            "(`services/tailrace/statistics/metrics.py`) and DRIFT_TESTS",
            "(`services/tailrace/statistics/drift_tests.py`); do not edit. [CONTRIBUTING.md](../CONTRIBUTING.md) says",
            "how one is added.",
            "",
            "## Quality metrics",
            "",
            "Training runs, packages, performance reports and gates compute them alike, and equal to scikit-learn's to",
            "1e-9. A metric of no task is in reports where the contract has `value`, or `guardrails.coverage`.",
            "",
            *_metrics(),
            "",
            "## Drift tests",
            "",
            "A contract names its tests in `drift.tests`, and the floors of their effects in `drift.min_effect`.",
            "",
            *_tests(),
            "",
            "## Effect sizes",
            "",
            *_effects(),
            "",
        ]
    )


def _metrics() -> Iterator[str]:
    yield from _table(
        ("metric", "of tasks", "better", "definition", "95 % interval", "two versions are compared by"),
        ((f"`{m.name}`", ", ".join(m.tasks), m.better, m.doc, m.interval, m.paired or "-") for m in METRICS),
    )


def _tests() -> Iterator[str]:
    yield from _table(
        ("test", "of fields", "method", "effect"),
        ((f"`{t.name}`", ", ".join(t.kinds), t.doc, f"`{t.effect.name}`") for t in DRIFT_TESTS),
    )


def _effects() -> Iterator[str]:
    yield from _table(
        ("effect", "what it is", "floor by default"),
        ((f"`{e.name}`", e.doc, f"{e.floor:g}") for e in EFFECT_SIZES.values()),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    print(page(), end="")
