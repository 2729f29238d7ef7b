"""What a shadow's outcome says of the answer that the champion gave."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest

from tailrace.avro.codec import HEADER
from tailrace.contracts.state.contracts import AppliedContract
from tailrace.joiner.answered import answered
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.match import CHAMPION, Prediction
from tailrace.streaming.records import RecordRef
from tailrace.testing.joined_lane import CONTRACT, JoinedLane

SAID = {"version": 1, "score": 0.0625, "probabilities": {}, "predicted_class": "false", "value": None}
NOTHING = SAID | {"score": None, "predicted_class": None}


@pytest.mark.parametrize(
    ("served", "carried"),
    [
        ({}, SAID),
        # A fallback that guards a model stays part of it; what stands in for one that is off is none of its doing.
        ({"served_by": "constant", "served_cause": "guardrail"}, SAID),
        ({"served_by": "constant", "served_cause": "off"}, NOTHING),
    ],
)
def test_what_stands_in_for_a_champion_that_is_off_is_no_answer_of_its(
    served: dict[str, Any], carried: dict[str, Any]
) -> None:
    read = read_back(JoinedLane(), action="refer", **served)
    assert read == {"prediction_id": "id", "action": "refer", **carried}


@pytest.mark.parametrize(("cause", "value"), [(None, 3.5), ("guardrail", 3.5), ("off", None)])
def test_so_it_is_with_the_value_of_a_regression(cause: str | None, value: float | None) -> None:
    lane = JoinedLane(CONTRACT.replace("{name: bad, type: boolean}", "{name: bad, type: number}"))
    served = {"score": None, "predicted_class": None, "value": 3.5, "served_cause": cause}
    assert read_back(lane, **served)["value"] == value


def read_back(lane: JoinedLane, **fields: Any) -> dict[str, Any]:
    """What the outcome's field says, by the reference."""
    contract = lane.contract
    applied = AppliedContract("credit", 1, contract.digest, contract.resolved_json, "", "test", 0)
    record = lane.prediction(RecordRef("credit.requests", 0, 7), "r", "k", 5, **fields)
    assert record.value is not None
    champion = Prediction(
        CHAMPION, 1, b"id", b"k", 5, 5, (0, 7), contract.digest, record.value[HEADER.size :]
    )
    written = io.BytesIO(answered(lane.codec, JoiningPlan(applied, lane.codec, lane.registry), champion))
    (schema,) = [field["type"] for field in lane.outcome_schema["fields"] if field["name"] == "champion"]
    read = fastavro.schemaless_reader(written, fastavro.parse_schema(schema), None)
    assert written.read() == b""
    assert isinstance(read, dict)
    return read
