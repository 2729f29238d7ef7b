"""Views of how well a model does, made from the evaluator's reports: one row a metric, to be asked by a plain SELECT.

``MODEL_performance`` has a row for each window, age, version, role, segment and metric: what the last report says of
it. ``MODEL_latest`` has, of each version, role, segment and metric, the row of the newest window at its greatest age; a
window in which too few labels are in only where there is no other.
"""

from __future__ import annotations

from tailrace.clickhouse.client import RowStore, quoted
from tailrace.clickhouse.tables import CONTROL_TABLES, table_name
from tailrace.contracts.records.lanes import PERFORMANCE_REPORTS

REPORTS = CONTROL_TABLES[PERFORMANCE_REPORTS]

_PERFORMANCE = """CREATE VIEW IF NOT EXISTS {view} AS
SELECT
    window_start, window_end, age / 3600000 AS age_hours, judged_at, version, role, segment, predictions, labelled,
    mature, verdict, metric.metric AS metric, metric.value AS value, metric.low AS low, metric.high AS high,
    metric.n AS n, metric.holdout AS holdout, metric.drop AS `drop`, metric.p_value AS p_value
FROM (
    SELECT * FROM {reports} WHERE model = '{model}' AND against IS NULL
    ORDER BY _offset DESC LIMIT 1 BY window_start, window_end, age, version, role, segment
)
ARRAY JOIN metrics AS metric"""
_LATEST = """CREATE VIEW IF NOT EXISTS {view} AS
SELECT * FROM {performance}
ORDER BY mature DESC, window_end DESC, age_hours DESC LIMIT 1 BY version, role, segment, metric"""


def performance_view(model: str) -> str:
    return table_name(model, "performance")


def latest_view(model: str) -> str:
    return table_name(model, "latest")


def ensure_views(store: RowStore, model: str) -> list[str]:
    """Makes the views of the model that are not there. Gives back what was run.

    Raises:
        QueryFailed: the table of the reports is not there; migrations make it.
    """
    performance, latest = performance_view(model), latest_view(model)
    statements = {
        performance: _PERFORMANCE.format(view=quoted(performance), reports=quoted(REPORTS), model=model),
        latest: _LATEST.format(view=quoted(latest), performance=quoted(performance)),
    }
    done = [statement for view, statement in statements.items() if not store.columns(view)]
    for statement in done:
        store.command(statement)
    return done
