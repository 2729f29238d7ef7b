"""Dead letters of labels and actions that nothing can match any more."""

from __future__ import annotations

from tailrace.joiner.match import AFTER_HORIZON, LABEL, Feedback
from tailrace.streaming.records import DeadLetter, PlainMessage


def unmatched(dead_letters: str, feedback: Feedback) -> DeadLetter:
    """The dead letter, for the topic ``dead_letters``, from what is kept of the message."""
    topic, partition, offset = feedback.content.source.rsplit("/", 2)
    assert feedback.original is not None
    key, value, headers, appended = feedback.original
    message = PlainMessage(topic, int(partition), int(offset), value, key, headers or (), appended)
    kind = "label" if feedback.kind == LABEL else "action"
    if feedback.fate == AFTER_HORIZON:
        reason = f"the {kind} came after its request's horizon"
        return DeadLetter(dead_letters, message, "after-horizon", reason)
    reason = f"no request of this id was answered within the horizon of the {kind}"
    return DeadLetter(dead_letters, message, "no-request", reason)
