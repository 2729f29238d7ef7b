"""What a shadow's outcome says of the answer that the champion gave."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from tests.support.joining import JoinedLane

from tailrace.contracts.fold import AppliedContract
from tailrace.joiner.answered import answered
from tailrace.joiner.contract_plan import ContractPlan
from tailrace.joiner.match import CHAMPION, Prediction
from tailrace.kit.codec import HEADER
from tailrace.kit.messages import Source

SAID = {"version": 1, "score": 0.0625, "probabilities": {}, "predicted_class": "false", "value": None}
NOTHING = SAID | {"score": None, "predicted_class": None}


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({}, SAID),
        # A fallback that guards a model stays part of it; what stands in for one that is off is none of its doing.
        ({"served_by": "constant", "served_cause": "guardrail"}, SAID),
        ({"served_by": "constant", "served_cause": "off"}, NOTHING),
    ],
)
def test_what_stands_in_for_a_champion_that_is_off_is_no_answer_of_its(
    served: dict[str, Any], said: dict[str, Any]
) -> None:
    lane = JoinedLane()
    contract = lane.contract
    applied = AppliedContract("credit", 1, contract.digest, contract.resolved_json, "", "test", 0)
    record = lane.prediction(Source("credit.requests", 0, 7), "r", "k", 5, action="refer", **served)
    assert record.value is not None
    champion = Prediction(
        CHAMPION, 1, b"id", b"k", 5, 5, (0, 7), contract.digest, record.value[HEADER.size :]
    )
    written = io.BytesIO(answered(lane.codec, ContractPlan(applied, lane.codec, lane.registry), champion))
    (schema,) = [field["type"] for field in lane.outcome_schema["fields"] if field["name"] == "champion"]
    read = fastavro.schemaless_reader(written, fastavro.parse_schema(schema), None)
    assert read == {"prediction_id": "id", "action": "refer", **said}
    assert written.read() == b""
