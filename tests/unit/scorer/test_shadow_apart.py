"""What answers is the same to the byte whatever is in shadow."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.scoring import REFUSED, REQUEST, Bench, Publisher

from tailrace.models.columns import Array, Columns
from tailrace.testing.formula_model import formula_model

REQUESTS = [{**REQUEST, "request_id": f"r{n}"} for n in range(200)]


class Raising:
    """A version that fails at every row."""

    def run(self, columns: Columns, rows: int) -> Array:
        raise RuntimeError("it looks beyond its end")


def answers(shadow: str | None) -> tuple[list[Any], list[dict[str, Any]]]:
    """The records that the champion's scorer writes, with this in shadow."""
    publisher = Publisher()
    bench = Bench(publisher.logic(), publisher)
    bench.control(publisher.contract(), publisher.manifest(1))
    contract = publisher.contracts["credit"][-1]
    opened: dict[str | None, Any] = {
        "good": formula_model(contract, 2),
        "raising": formula_model(contract, 2, Raising()),
        "refused": REFUSED,
        "broken": ValueError("no package"),
    }
    if shadow in opened:
        bench.control(publisher.manifest(2, opened[shadow]))
    bench.control(publisher.rollout(champion=1, shadow=[] if shadow is None else [2]))
    output = bench.requests(*REQUESTS)
    return list(output.records), bench.events(output)


@pytest.mark.parametrize("shadow", ["good", "raising", "refused", "broken", "not published yet"])
def test_answers_are_the_same_to_the_byte_with_and_without_a_shadow(shadow: str) -> None:
    alone, events = answers(None)
    assert [event["version"] for event in events] == [1] * len(REQUESTS)
    assert answers(shadow) == (alone, events)
