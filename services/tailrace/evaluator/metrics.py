"""Which metrics a contract's reports have."""

from __future__ import annotations

from tailrace.contracts.language.model_contract import ModelContract
from tailrace.statistics.metric import Metric
from tailrace.statistics.metrics import METRIC, METRICS_OF


def metrics_of(contract: ModelContract) -> list[Metric]:
    """All metrics of the contract's task, those that it names first."""
    names = dict.fromkeys([*contract.quality.metrics, *METRICS_OF[contract.task]])
    return [METRIC[name] for name in names]


def positive_index(contract: ModelContract) -> int | None:
    positive = contract.positive_class
    return None if positive is None else contract.classes.index(positive)
