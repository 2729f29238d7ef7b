"""What was answered, as metrics by model, version and role. Counted once it is committed, whole batches at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Set

import numpy as np
import prometheus_client

from tailrace.models.columns import Array
from tailrace.scorer.answers import ScoredAnswers, Unscored
from tailrace.scorer.batch import Batch
from tailrace.telemetry import metrics

_LABELLED = (metrics.REQUESTS, metrics.ACTIONS, metrics.FINDINGS, metrics.FALLBACKS, metrics.LATENCY)


class ServingMetrics:
    """Counts, and forgets versions that serve no more, so that there are never more than a few."""

    def __init__(self) -> None:
        # By metric: the labels that were used.
        self._used: dict[object, set[tuple[str, ...]]] = defaultdict(set)

    def count(self, batch: Batch, now_ms: int) -> None:
        """Counts what a batch came to, now that it is committed."""
        for positions, identity, answers in batch.answered:
            version = (identity.model, str(identity.version), identity.role)
            self._inc(metrics.REQUESTS, version, len(positions))
            for action, count in actions(answers).items():
                self._inc(metrics.ACTIONS, (*version, action), count)
            for guard, count in guards(answers).items():
                self._inc(metrics.FINDINGS, (*version, guard), count)
            if identity.served_cause is not None:
                self._inc(metrics.FALLBACKS, (*version, identity.served_cause), len(positions))
            waited = np.maximum(now_ms - batch.append_times[positions], 0) / 1000
            metrics.LATENCY.observe(version, waited)
            self._used[metrics.LATENCY].add(version)

    def keep(self, versions: Set[tuple[str, int]]) -> None:
        """Forgets what is not of one of these."""
        kept = {(model, str(version)) for model, version in versions}
        for metric in _LABELLED:
            gone = {labels for labels in self._used[metric] if labels[:2] not in kept}
            for labels in gone:
                metric.remove(*labels)
            self._used[metric] -= gone

    def _inc(self, metric: prometheus_client.Counter, labels: tuple[str, ...], count: int) -> None:
        metric.labels(*labels).inc(count)
        self._used[metric].add(labels)


def actions(answers: ScoredAnswers) -> Counter[str]:
    """How often each action was chosen; of a choice that has none, each predicted class."""
    counts: Counter[str] = Counter()
    outputs = answers.outputs
    for choice, count in _counted(answers.choices):
        option = answers.options[choice]
        if option.action is not None:
            counts[option.action] += count
        elif outputs.most_probable is not None:
            classes = _counted(outputs.most_probable[answers.choices == choice])
            counts.update({outputs.classes[number]: n for number, n in classes})
        else:
            counts[(outputs.named if isinstance(outputs, Unscored) else None) or ""] += count
    return counts


def guards(answers: ScoredAnswers) -> Counter[str]:
    """How often each guard found something."""
    counts: Counter[str] = Counter()
    for kind, count in _counted(answers.findings.which):
        for finding in answers.findings.kinds[kind]:
            counts[finding.guard] += count
    return counts


def _counted(numbers: Array) -> list[tuple[int, int]]:
    """The numbers that there are, each with how often."""
    return [(number, count) for number, count in enumerate(np.bincount(numbers).tolist()) if count]
