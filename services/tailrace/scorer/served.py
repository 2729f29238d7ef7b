"""What was answered, as metrics by model, version and role. Counted once it is committed, whole batches at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Set

import numpy as np
import prometheus_client

from tailrace.kit import metrics
from tailrace.scorer.event import Answers
from tailrace.scorer.policy import Unscored
from tailrace.scorer.work import Work

_LABELLED = (metrics.REQUESTS, metrics.ACTIONS, metrics.FINDINGS, metrics.FALLBACKS, metrics.LATENCY)


class Served:
    """Counts, and forgets versions that serve no more, so that there are never more than a few."""

    def __init__(self) -> None:
        # By metric: the labels that were used.
        self._used: dict[object, set[tuple[str, ...]]] = defaultdict(set)
        self._changes = 0

    def count(self, work: Work, now_ms: int) -> None:
        """Counts what a batch came to, now that it is committed."""
        for positions, identity, answers in work.answered:
            version = (identity.model, str(identity.version), identity.role)
            self._inc(metrics.REQUESTS, version, len(positions))
            for action, count in actions(answers).items():
                self._inc(metrics.ACTIONS, (*version, action), count)
            for guard, count in guards(answers).items():
                self._inc(metrics.FINDINGS, (*version, guard), count)
            if identity.served_cause is not None:
                self._inc(metrics.FALLBACKS, (*version, identity.served_cause), len(positions))
            waited = np.maximum(now_ms - work.append_times[positions], 0) / 1000
            metrics.LATENCY.observe(version, waited)
            self._used[metrics.LATENCY].add(version)

    def keep(self, served: Callable[[], Set[tuple[str, int]]], changes: int) -> None:
        """Forgets what is not of one of these versions, where they have changed."""
        if changes == self._changes:
            return
        self._changes = changes
        kept = {(model, str(version)) for model, version in served()}
        for metric in _LABELLED:
            gone = {labels for labels in self._used[metric] if labels[:2] not in kept}
            for labels in gone:
                metric.remove(*labels)
            self._used[metric] -= gone

    def _inc(self, metric: prometheus_client.Counter, labels: tuple[str, ...], count: int) -> None:
        metric.labels(*labels).inc(count)
        self._used[metric].add(labels)


def actions(answers: Answers) -> Counter[str]:
    """How often each action was chosen; of a choice that has none, each predicted class."""
    found: Counter[str] = Counter()
    choices, outputs = np.asarray(answers.choices), answers.outputs
    for choice, option in enumerate(answers.options):
        chosen = choices == choice
        count = int(np.count_nonzero(chosen))
        if not count:
            continue
        if option.action is not None:
            found[option.action] += count
        elif outputs.probabilities is not None:
            classes = np.bincount(
                outputs.probabilities[chosen].argmax(axis=1), minlength=len(outputs.classes)
            )
            found.update({name: n for name, n in zip(outputs.classes, classes.tolist(), strict=True) if n})
        else:
            found[(outputs.named if isinstance(outputs, Unscored) else None) or ""] += count
    return found


def guards(answers: Answers) -> Counter[str]:
    """How often each guard found something."""
    return Counter(finding.guard for findings in answers.findings.values() for finding in findings)
