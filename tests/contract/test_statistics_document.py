"""docs/statistics.md is what METRICS and DRIFT_TESTS say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.contracts.language.sections import DEFAULT_DRIFT_TESTS, DEFAULT_METRICS, GATE_METRIC
from tailrace.statistics.drift_tests import DRIFT_TESTS, EFFECT_SIZES
from tailrace.statistics.metrics import METRIC, METRICS, METRICS_OF
from tailrace.statistics.page import page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    command = "python -m tailrace.statistics.page > docs/statistics.md"
    assert (DOCS / "statistics.md").read_text() == page(), f"run {command}"


@pytest.mark.parametrize(
    "names", [list(METRIC), [test.name for test in DRIFT_TESTS]], ids=["metrics", "tests"]
)
def test_a_name_is_given_once(names: list[str]) -> None:
    assert len(set(names)) == len(names)
    assert len(METRIC) == len(METRICS)


def test_an_effect_size_is_one_thing() -> None:
    assert all(EFFECT_SIZES[test.effect.name] == test.effect for test in DRIFT_TESTS)


def test_what_a_contract_means_by_default_is_in_the_tables() -> None:
    assert set(DEFAULT_DRIFT_TESTS) <= {test.name for test in DRIFT_TESTS}
    for task, names in METRICS_OF.items():
        assert {*DEFAULT_METRICS[task], GATE_METRIC[task]} <= set(names)


def test_the_contract_page_says_the_defaults() -> None:
    text = (DOCS / "contract.md").read_text()
    assert f"| `drift.tests` | `[{', '.join(DEFAULT_DRIFT_TESTS)}]` |" in text
    assert all(", ".join(names) in text for names in DEFAULT_METRICS.values())
