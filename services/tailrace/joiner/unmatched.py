"""Dead letters of labels and actions that nothing can match any more."""

from __future__ import annotations

from tailrace.joiner.match import AFTER_HORIZON, LABEL, Feedback
from tailrace.streaming.records import DeadLetter, Message, PlainMessage


def unmatched(topic: str, truth: Feedback) -> DeadLetter:
    """
    Args:
        topic: of dead letters.
    """
    what = "label" if truth.kind == LABEL else "action"
    if truth.fate == AFTER_HORIZON:
        reason = f"the {what} came after its request's horizon"
        return DeadLetter(topic, _message(truth), "after-horizon", reason)
    reason = f"no request of this id was answered within the horizon of the {what}"
    return DeadLetter(topic, _message(truth), "no-request", reason)


def _message(truth: Feedback) -> Message:
    """The message that a label or action came in, from what is kept of it."""
    topic, partition, offset = truth.said.source.rsplit("/", 2)
    assert truth.original is not None
    key, value, headers, appended = truth.original
    return PlainMessage(topic, int(partition), int(offset), value, key, headers or (), appended)
