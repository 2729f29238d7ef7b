"""ClickHouse's folder is removed under a running home: it is said where people look, and made good by what is said."""

from __future__ import annotations

import shutil

from tests.support.project import Project

import tailrace
from tailrace.connection import connect

LOAN = {
    "income": 41000,
    "debt_ratio": 0.3,
    "age": 44,
    "purpose": "car",
    "amount": 9000,
    "region": "north",
    "sex": "f",
}


def test_what_was_lost_is_said_by_status_and_apply_and_made_good_by_rebuild(credit: Project) -> None:
    with tailrace.Client(connect(home=credit.home)) as client:
        for number in range(20):
            client.send("credit", LOAN | {"loan_id": f"lost-{number}"})
    credit.wait(
        lambda: credit.json("verify", "--model", "credit", check=False)["ok"], "all rows to be stored"
    )
    before = credit.pid("clickhouse")
    shutil.rmtree(credit.home / "data" / "clickhouse")
    credit.wait(lambda: credit.pid("clickhouse") != before, "ClickHouse to be started again")
    credit.wait(lambda: credit.status()["clickhouse"].get("lacking"), "tables to be missed")

    warned = credit.run("apply", "contracts/models/credit.yaml").stderr
    tables = credit.status()["clickhouse"]["lacking"]
    assert {"credit_requests", "credit_predictions", "contracts", "rollouts"} <= tables.keys()
    printed = credit.run("status").stdout
    assert "more tables lack rows" in printed
    assert "`tailrace rebuild` fills them in" in printed
    assert "credit_predictions" in warned
    assert "lack rows" in warned
    assert credit.json("query", "SELECT count() AS n FROM credit_predictions") == [{"n": 0}]

    assert {report["table"] for report in credit.json("rebuild")} == tables.keys()
    assert credit.status()["clickhouse"]["lacking"] == {}
    verified = credit.json("verify", "--model", "credit", check=False)
    assert verified["ok"], verified["problems"]
