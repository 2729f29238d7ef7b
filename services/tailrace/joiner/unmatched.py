"""Dead letters of labels and actions that nothing can match any more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tailrace.contracts.language.durations import format_duration
from tailrace.contracts.language.model_contract import ModelContract
from tailrace.joiner.match import AFTER_HORIZON, BEFORE_REQUEST, LABEL, Feedback
from tailrace.streaming.records import DeadLetter, PlainMessage


def unmatched(dead_letters: str, feedback: Feedback, contract: ModelContract) -> DeadLetter:
    """The dead letter, for the topic ``dead_letters``, from what is kept of the message; ``contract`` is in force."""
    topic, partition, offset = feedback.content.source.rsplit("/", 2)
    assert feedback.original is not None
    key, value, headers, appended = feedback.original
    message = PlainMessage(topic, int(partition), int(offset), value, key, headers or (), appended)
    kind = "label" if feedback.kind == LABEL else "action"
    if feedback.fate == AFTER_HORIZON:
        reason = f"the {kind} came after its request's horizon"
        return DeadLetter(dead_letters, message, "after-horizon", reason)
    if feedback.fate == BEFORE_REQUEST:
        reason = (
            f"the {kind} is of {_iso(feedback.content.time)}, before its request by more than labels.tolerance "
            f"({format_duration(contract.labels.tolerance_ms)}): correct the time, give each request an id of its own, "
            "or raise the tolerance"
        )
        return DeadLetter(dead_letters, message, "before-request", reason, contract.event_time.name)
    reason = f"no request of this id was answered within the horizon of the {kind}"
    return DeadLetter(dead_letters, message, "no-request", reason)


def _iso(time_ms: int) -> str:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)).isoformat()
    except OverflowError:
        return f"{time_ms} ms"
