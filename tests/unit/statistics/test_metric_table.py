"""METRICS of rows that are all there, against scikit-learn; and what whoever reads the tables does not pay for."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sk

from tailrace.statistics.count_rows import estimates
from tailrace.statistics.judged_rows import JudgedRows
from tailrace.statistics.metric import BINARY
from tailrace.statistics.metrics import METRIC
from tailrace.statistics.score_counts import LIMIT


def test_an_auc_of_rows_that_are_all_there_is_exact_however_many_scores_there_are() -> None:
    rng = np.random.default_rng(1)
    n = 2 * LIMIT
    truth = rng.random(n) < 0.3
    scores = np.clip(0.2 * truth + rng.random(n), 0, 1)
    nothing = np.full(n, np.nan)
    rows = JudgedRows(
        BINARY,
        truth.astype(np.int64),
        nothing,
        (scores > 0.5).astype(np.int64),
        scores,
        np.empty((n, 0)),
        nothing,
        1,
    )
    auc = estimates(rows)["auc"]
    assert auc.value == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-12)
    assert (auc.error, auc.interval, auc.n) == (None, "delong", n)


@pytest.mark.parametrize(
    ("metric", "value", "than", "by"),
    [("auc", 0.8, 0.7, 0.1), ("log_loss", 0.3, 0.4, 0.1), ("bias", -0.1, 0.3, 0.2), ("value", 2.0, 1.0, 1.0)],
)
def test_what_is_better_is_a_metrics_own(metric: str, value: float, than: float, by: float) -> None:
    assert METRIC[metric].better_by(value, than) == pytest.approx(by)


def test_whoever_reads_contracts_does_not_load_scipy() -> None:
    program = "import sys, tailrace.contracts.language.load; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
