"""What a prediction answered: the part that a shadow's outcome carries of the champion's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.avro.codec import HEADER, MAGIC, Codec
from tailrace.avro.encoding import NULL, SOME, double, long, sized, text
from tailrace.errors import BadRecord
from tailrace.joiner.contract_plan import JoiningPlan
from tailrace.joiner.match import NOBODY, Prediction

OFF = "off"


def answered(codec: Codec, plan: JoiningPlan, champion: Prediction) -> bytes:
    """The outcome's ``champion`` in Avro.

    Of a champion that was switched off, the action alone: to do better than its stand-in proves nothing about it.
    Nothing of one that cannot be read.
    """
    try:
        record = _decoded(codec, plan, champion)
    except BadRecord:
        return NOBODY
    if record["served_cause"] == OFF:
        record |= {"score": None, "probabilities": {}, "predicted_class": None, "value": None}
    answer = SOME + sized(champion.id) + long(champion.version)
    answer += _number(record["score"]) + _probabilities(record["probabilities"])
    answer += NULL if record["predicted_class"] is None else SOME + text(record["predicted_class"])
    return answer + _number(record["value"]) + text(record["action"])


def policy_action(codec: Codec, plan: JoiningPlan, prediction: Prediction) -> str:
    """The action that the policy chose; empty where it cannot be read."""
    try:
        return str(_decoded(codec, plan, prediction)["action"])
    except BadRecord:
        return ""


def _decoded(codec: Codec, plan: JoiningPlan, prediction: Prediction) -> dict[str, Any]:
    return codec.decode(HEADER.pack(MAGIC, plan.prediction_schema_id) + prediction.body).record


def _number(value: float | None) -> bytes:
    return NULL if value is None else SOME + double(value)


def _probabilities(shares: Mapping[str, float]) -> bytes:
    entries = b"".join(text(name) + double(share) for name, share in shares.items())
    return (long(len(shares)) + entries if shares else b"") + long(0)
